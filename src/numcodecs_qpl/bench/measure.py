"""Timing of each codec on the chunks of a sample."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from numcodecs_qpl import CorruptDataError, QplError, reset_stats, stats
from numcodecs_qpl.bench.contenders import Contender
from numcodecs_qpl.bench.errors import BenchError
from numcodecs_qpl.bench.sample import Chunk, Sample
from numcodecs_qpl.bench.verdict import Figures
from numcodecs_qpl.times import Times

if TYPE_CHECKING:
    from numcodecs_qpl._core.types import Stats

MB = 10**6
GB = 10**9

Announce = Callable[[str, int], None]
"""Callback with the next codec's name and the total number of turns."""


@dataclass(frozen=True)
class Result:
    """Result of a codec.

    Attributes
    ----------
    contender : Contender
    size, encoded : int
        Bytes of the sample, before and after encoding.
    encode, decode : Times
    counts : dict or None
        Counts of `numcodecs_qpl.stats` while the sample was encoded and decoded once; None for other codecs.
    """

    contender: Contender
    size: int
    encoded: int
    counts: Stats | None
    encode: Times = field(default_factory=Times)
    decode: Times = field(default_factory=Times)

    def figures(self) -> Figures:
        """The medians."""
        return Figures(
            self.contender.name,
            ratio=self.size / self.encoded,
            encode=self.size / MB / median(self.encode.wall),
            decode=self.size / MB / median(self.decode.wall),
            encode_cpu=median(self.encode.cpu) / self.size * GB,
            decode_cpu=median(self.decode.cpu) / self.size * GB,
            ours=self.contender.ours,
            gzip=self.contender.gzip,
            codec=self.contender.zarr3 is not None,
            shuffle=self.contender.shuffle is not None,
        )


@dataclass(frozen=True)
class Measured:
    """A sample and the results of all codecs.

    Attributes
    ----------
    sample : Sample
    results : list of Result
        Results of codecs that were measured alternately, in rounds.
    left_out : dict
        Reasons of the codecs that failed on a device, by name.
    """

    sample: Sample
    results: list[Result]
    left_out: dict[str, str]

    @property
    def noise(self) -> float:
        """Typical relative difference between rounds: the median of all times' relative median deviations."""
        return median(_deviation(times.wall) for result in self.results for times in (result.encode, result.decode))


def _deviation(seconds: list[float]) -> float:
    middle = median(seconds)
    return median(abs(one - middle) for one in seconds) / middle


def measure(
    sample: Sample, everyone: list[Contender], *, seconds: float, least_rounds: int, announce: Announce
) -> Measured:
    """Encode and decode the sample with all codecs, alternately, for about the given number of seconds.

    The first round compares the chunks and is not timed.

    Raises
    ------
    BenchError
        If a decoded chunk differs from the original, or if a codec other than QPL on a device fails.
    QplError
        If a device is lost during the run.
    """
    results: list[Result] = []
    left_out: dict[str, str] = {}
    start = time.perf_counter()
    for contender in everyone:
        announce(contender.name, (1 + least_rounds) * len(everyone))
        contender.settle()
        try:
            results.append(_checked(contender, sample))
        except QplError as error:
            # A device may refuse work. Wrong data from a device is an error.
            if contender.path != "hardware" or isinstance(error, CorruptDataError):
                raise BenchError(f"{contender.name} failed: {error}") from error
            left_out[contender.name] = str(error)
    taken = time.perf_counter() - start
    rounds = max(least_rounds, int((seconds - taken) / taken))
    order = list(results)
    for _ in range(rounds):
        for result in order:
            announce(result.contender.name, len(everyone) + rounds * len(order))
            result.contender.settle()
            _time(result, sample.chunks)
        order.append(order.pop(0))  # another codec begins each round
    return Measured(sample, results, left_out)


def _checked(contender: Contender, sample: Sample) -> Result:
    reset_stats()
    encoded = 0
    for number, chunk in enumerate(sample.chunks, 1):
        where = f"{contender.name}, chunk {number} of {len(sample.chunks)} of {sample.name}"
        try:
            stored = contender.write(chunk)
            found = contender.read(stored, chunk.itemsize)
        except QplError:
            raise
        except Exception as error:  # every codec has errors of its own
            raise BenchError(f"{where}: {type(error).__name__}: {error}") from error
        if not _same(chunk, found):
            raise BenchError(f"{where}: the decoded chunk differs from the original")
        encoded += len(stored)
    return Result(contender, sample.size, encoded, stats() if contender.ours else None)


def _same(chunk: Chunk, found: Any) -> bool:
    return np.array_equal(np.frombuffer(found, "u1"), chunk.view("u1"))


def _time(result: Result, chunks: list[Chunk]) -> None:
    encoded: list[Any] = []
    result.encode.run(lambda: encoded.extend(map(result.contender.write, chunks)))
    result.decode.run(lambda: _use_up(result.contender, encoded, [chunk.itemsize for chunk in chunks]))


def _use_up(contender: Contender, encoded: list[Any], item_sizes: list[int]) -> None:
    """Decode each chunk and drop the result, so that the next one reuses its memory, as in a program's loop."""
    for stored, item_size in zip(encoded, item_sizes, strict=True):
        contender.read(stored, item_size)
