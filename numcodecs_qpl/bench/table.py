"""The results as text: a table, and what it says."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from numcodecs_qpl.bench.contenders import isal_is_installed
from numcodecs_qpl.bench.host import host_text
from numcodecs_qpl.bench.measure import Measured
from numcodecs_qpl.bench.verdict import Verdict

WIDTH = 100

LONG_WAIT = 0.1
"""Seconds of waiting for a second of work from which on they are told."""

LEGEND = (
    "MB and GB: 10**6 and 10**9 uncompressed bytes. Speeds are medians. CPU s/GB: CPU time of the whole process. "
    "front: no other codec beats it in all of ratio, encoding and decoding (-: not judged). gzip: any gzip reads it "
    "(s: and gets shuffled bytes). zarr: there is a codec for it. Blosc shuffles the bytes of numbers first, unless "
    "its row says otherwise."
)


def show(measured: Measured, verdict: Verdict) -> None:
    """Print what came of a sample."""
    print(f"\n{_wrapped(str(measured.sample))}")
    for note in measured.sample.notes:
        print(_wrapped(note))
    console = Console(highlight=False, width=WIDTH)
    console.print(_table(measured, verdict))
    for line in _below(measured):
        print(_wrapped(line))
    print("\nWhat to choose (the rules: numcodecs-qpl bench --help):")
    for sentence in verdict.sentences:
        print(_wrapped(sentence, "- "))
    chosen = {one.name for choice in verdict.choices for one in (choice.usable, choice.close) if one is not None}
    if chosen:
        print("\nThe arguments of zarr.create_array for them:")
    for contender in (result.contender for result in measured.results if result.contender.name in chosen):
        for zarr_format, arguments in (contender.zarr_arguments or {}).items():
            print(_wrapped(f"{contender.name}, format {zarr_format}: {arguments}", "- "))


def introduce() -> None:
    """Print what holds for all samples, before any is measured."""
    print(_wrapped(f"On {host_text()}."))
    print(
        _wrapped("Everyone in turns, one thread each unless it says otherwise; all compared bit for bit."), flush=True
    )
    if not isal_is_installed():
        print(_wrapped("Without ISA-L's gzip, which needs the package isal: pip install isal"), flush=True)


def _table(measured: Measured, verdict: Verdict) -> Table:
    table = Table(box=box.ASCII2)
    table.add_column("codec", no_wrap=True)
    for heading in ("ratio", "encode\nMB/s", "decode\nMB/s", "encode\nCPU s/GB", "decode\nCPU s/GB"):
        table.add_column(heading, justify="right")
    for heading in ("front", "gzip", "zarr"):
        table.add_column(heading, justify="center")
    for result in measured.results:
        contender, figures = result.contender, result.figures()
        table.add_row(
            contender.name,
            f"{figures.ratio:.2f}",
            f"{figures.encode:,.0f}",
            f"{figures.decode:,.0f}",
            f"{figures.encode_cpu:.2f}",
            f"{figures.decode_cpu:.2f}",
            "-" if not contender.judged else "*" * (figures.name in verdict.front),
            ("*" if contender.shuffle is None else "s") * contender.gzip,
            "*" * (contender.zarr3 is not None),
        )
    return table


def _below(measured: Measured) -> Iterator[str]:
    rounds = len(measured.results[0].encode.wall)
    yield f"{LEGEND} Medians of {rounds} rounds, which differ by {_noise(measured):.0%} typically."
    if (waiting := _waiting(measured)) > LONG_WAIT:
        yield (
            f"Other programs were busy: a second of work waited {waiting:.1f} s for a CPU. CPU times are right all the "
            "same; for speeds, run it again when the host is idle."
        )
    for name, reason in measured.left_out.items():
        yield f"{name} is left out: {reason}."
    yield from _done_otherwise(measured)
    emulated = [result for result in measured.results if result.contender.emulated]
    if emulated:
        yield "The emulated IAA is a software device: its rows show that the path works, and nothing of an IAA's speed."


def _waiting(measured: Measured) -> float:
    """Seconds that a second of the peers' work, in one thread each, waited for a CPU."""
    every = [result for result in measured.results if result.contender.threads == 1 and not result.contender.ours]
    times = [one for result in every for one in (result.encode, result.decode)]
    return sum(sum(one.wall) for one in times) / sum(sum(one.cpu) for one in times) - 1


def _done_otherwise(measured: Measured) -> Iterator[str]:
    """Sentences on blocks that software did in place of a device."""
    for result in measured.results:
        for reason, blocks in result.counts["fallback"].items() if result.counts else ():
            yield f"{result.contender.name}: {blocks:,} blocks were done in software ({reason})."


def _noise(measured: Measured) -> float:
    """Median over all times of how far the middle one of their rounds is from the median, of the latter."""
    return median(_deviation(times.wall) for result in measured.results for times in (result.encode, result.decode))


def _deviation(seconds: list[float]) -> float:
    middle = median(seconds)
    return median(abs(one - middle) for one in seconds) / middle


def _wrapped(text: str, mark: str = "") -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_on_hyphens=False,
        break_long_words=False,
    )
