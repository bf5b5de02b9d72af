"""Printing of the results: a table, and the conclusions."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import Box
from rich.console import Console
from rich.table import Table

from numcodecs_qpl.bench.contenders import isal_is_installed
from numcodecs_qpl.bench.host import host_text
from numcodecs_qpl.bench.measure import Measured
from numcodecs_qpl.bench.sample import Sample
from numcodecs_qpl.bench.verdict import Verdict, short
from numcodecs_qpl.text import columns, wrapped

RULED = Box("    \n    \n -  \n    \n    \n    \n    \n    \n", ascii=True)
"""A line below the head, and a space between columns."""

LONG_WAIT = 0.1
"""Seconds of waiting per second of work from which on the machine is reported as busy."""

LEGEND = (
    "MB, GB: 10**6, 10**9 uncompressed bytes. Speeds are medians. CPU: CPU time of the whole process. front: no other "
    "codec is better in all of ratio, encoding and decoding (-: not judged). gzip: any gzip reads it (s: and gets "
    "shuffled bytes). zarr: zarr has a codec for it. Blosc shuffles the bytes of numbers first, unless its row says "
    "otherwise."
)


def show(measured: Measured, verdict: Verdict) -> None:
    """Print the results of a sample."""
    console = Console(highlight=False, width=columns())
    with console.capture() as capture:
        console.print(_table(measured, verdict))
    print(*(line.rstrip() for line in capture.get().splitlines()), "", sep="\n")
    for line in _below(measured):
        print(wrapped(line))
    print("\nWhat to choose (the rules: numcodecs-qpl bench --help):")
    for sentence in verdict.sentences:
        print(wrapped(sentence, "- "))
    chosen = {one.name for choice in verdict.choices for one in (choice.usable, choice.close) if one is not None}
    if chosen:
        print("\nThe arguments of zarr.create_array for them:")
    for contender in (result.contender for result in measured.results if result.contender.name in chosen):
        for zarr_format, arguments in (contender.zarr_arguments or {}).items():
            print(wrapped(f"{contender.name}, format {zarr_format}: {arguments}", "- "))


def announce(sample: Sample) -> None:
    """Print the name of the next sample."""
    for line in ("", str(sample), *sample.notes):
        print(wrapped(line), flush=True)


def introduce() -> None:
    """Print the lines that apply to all samples."""
    print(wrapped(f"On {host_text()}."))
    print(wrapped("Codecs take turns, with one thread unless their row says otherwise. Every chunk is compared."))
    if not isal_is_installed():
        print(wrapped("ISA-L's gzip is left out: it needs the package isal (pip install isal)."))


def _table(measured: Measured, verdict: Verdict) -> Table:
    table = Table(box=RULED, padding=0, show_edge=False)
    table.add_column("codec", no_wrap=True)
    for heading in ("ratio", "encode\nMB/s", "decode\nMB/s", "encode\nCPU\ns/GB", "decode\nCPU\ns/GB"):
        table.add_column(heading, justify="right")
    for heading in ("front", "gzip", "zarr"):
        table.add_column(heading, justify="center")
    for result in measured.results:
        contender, figures = result.contender, result.figures()
        table.add_row(
            contender.name,
            _cell(figures.ratio),
            short(figures.encode),
            short(figures.decode),
            _cell(figures.encode_cpu),
            _cell(figures.decode_cpu),
            "-" if not contender.judged else "*" * (figures.name in verdict.front),
            ("*" if contender.shuffle is None else "s") * contender.gzip,
            "*" * (contender.zarr3 is not None),
        )
    return table


def _cell(value: float) -> str:
    return f"{value:.2f}" if value < 1000 else f"{value:,.0f}"


def _below(measured: Measured) -> Iterator[str]:
    rounds = len(measured.results[0].encode.wall)
    noise = f"{measured.noise:.0%}" if measured.noise >= 0.01 else "less than 1%"
    yield f"{LEGEND} Medians of {rounds} rounds, which typically differ by {noise}."
    if (waiting := _waiting(measured)) > LONG_WAIT:
        yield (
            f"Other programs were busy: a second of work waited {waiting:.1f} s for a CPU. CPU times hold, and speeds "
            "are too low: run it again on an idle machine."
        )
    for name, reason in measured.left_out.items():
        yield f"{name} is left out: {reason}."
    yield from _done_otherwise(measured)
    emulated = [result for result in measured.results if result.contender.emulated]
    if emulated:
        yield "The emulated IAA is a software device: its rows show that the path works, and nothing of an IAA's speed."


def _waiting(measured: Measured) -> float:
    """Return the seconds of waiting for a CPU per second of work, for codecs other than QPL in one thread."""
    every = [result for result in measured.results if result.contender.threads == 1 and not result.contender.ours]
    times = [one for result in every for one in (result.encode, result.decode)]
    return sum(sum(one.wall) for one in times) / sum(sum(one.cpu) for one in times) - 1


def _done_otherwise(measured: Measured) -> Iterator[str]:
    """Yield sentences on blocks that a device left to software."""
    for result in measured.results:
        for reason, blocks in result.counts["fallback"].items() if result.counts else ():
            yield f"{result.contender.name}: {blocks:,} blocks were done in software ({reason})."
