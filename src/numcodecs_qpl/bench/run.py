"""The whole of ``numcodecs-qpl bench``: sample, measure, judge, show."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from numcodecs_qpl import QplError
from numcodecs_qpl.bench import table
from numcodecs_qpl.bench.contenders import contenders, settings_kept
from numcodecs_qpl.bench.document import as_json, document, write_document
from numcodecs_qpl.bench.errors import BenchError
from numcodecs_qpl.bench.measure import Measured, measure
from numcodecs_qpl.bench.progress import shown
from numcodecs_qpl.bench.sample import MIB, Sample, made_here, of_file
from numcodecs_qpl.bench.verdict import Verdict, judge

SECONDS = 30.0
LEAST_ROUNDS = 5
SAMPLE = 16 * MIB
"""Defaults of the size of the sample and the length of the run."""

QUICK_ROUNDS = 3
QUICK_SAMPLE = 2 * MIB
"""The same in a quick run."""


@dataclass(frozen=True)
class Wishes:
    """Arguments of the command.

    Attributes
    ----------
    data : Path or None
        A file, or the folder of a zarr store; None for the built-in sets.
    sample, chunk_size : int
        Bytes.
    seconds : float
        Time to measure in all, unless `rounds` takes longer.
    rounds : int
        Least number of rounds.
    json, plot : Path or None
        Files to write.
    only_json : bool
        Print JSON in place of text.
    """

    data: Path | None
    sample: int
    chunk_size: int
    seconds: float
    rounds: int
    json: Path | None
    plot: Path | None
    only_json: bool


def run(wishes: Wishes) -> None:
    """Measure, judge and show.

    Raises
    ------
    BenchError
        If any step fails, or a decoded chunk differs from the original.
    """
    try:
        with settings_kept():
            _run(wishes)
    except QplError as error:  # such as a device that is lost during the run
        raise BenchError(str(error)) from error


def _run(wishes: Wishes) -> None:
    samples = _samples(wishes)
    if not wishes.only_json:
        table.introduce()
    done: list[tuple[Measured, Verdict]] = []
    for sample in samples:
        if not wishes.only_json:
            table.announce(sample)
        with shown(sample.name) as announce:
            measured = measure(
                sample,
                contenders(sample.largest, sample.item_sizes),
                seconds=wishes.seconds / len(samples),
                least_rounds=wishes.rounds,
                announce=announce,
            )
        figures = [result.figures() for result in measured.results if result.contender.judged]
        verdict = judge(figures, measured.noise)
        done.append((measured, verdict))
        if not wishes.only_json:
            table.show(measured, verdict)
    if wishes.json is not None:
        write_document(wishes.json, document(done))
    if wishes.plot is not None:
        from numcodecs_qpl.bench import plot

        plot.save(wishes.plot, done)
    if wishes.only_json:
        print(as_json(document(done)), end="")
    for path in filter(None, (wishes.json, wishes.plot)):
        print(f"wrote {path}", file=sys.stderr if wishes.only_json else sys.stdout)


def _samples(wishes: Wishes) -> list[Sample]:
    if wishes.data is None:
        return made_here(wishes.sample // 4, wishes.chunk_size)  # they are several, and uniform
    if wishes.data.is_dir():
        from numcodecs_qpl.bench.store import of_store

        return [of_store(wishes.data, wishes.sample)]
    return [of_file(wishes.data, wishes.sample, wishes.chunk_size)]
