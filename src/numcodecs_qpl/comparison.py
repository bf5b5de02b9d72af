"""Timing of work through zarr, alternately with the codecs of zarr and numcodecs and with those of `enable`.

The demo shows these times, and the benchmarks compare their medians.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from numcodecs_qpl import disable, enable, reset_stats, stats
from numcodecs_qpl.times import T, Times

if TYPE_CHECKING:
    from numcodecs_qpl._core.types import Stats


@dataclass
class Side(Times):
    """One of the two sets of codecs, and the times of its rounds.

    Attributes
    ----------
    codecs : callable
        Makes the context manager in which the work runs.
    counts : dict
        Counts of the last round, in the form of `numcodecs_qpl.stats`.
    """

    codecs: Callable[[], AbstractContextManager[object]] = nullcontext
    counts: Stats = field(default_factory=stats)

    def run(self, work: Callable[[], T]) -> T:
        """Do the work with this side's codecs, and record its times."""
        reset_stats()
        with self.codecs():
            result = super().run(work)
        self.counts = stats()
        return result

    @property
    def blocks(self) -> int:
        """Number of blocks that this package compressed or decompressed in the last round, on any path."""
        paths = (self.counts["hardware"], self.counts["software"])
        return sum(path["compressed"] + path["decompressed"] for path in paths)


def in_turns(work: Callable[[], T], check: Callable[[T], object], *, rounds: int) -> tuple[Side, Side]:
    """Do the work alternately on both sides.

    Codecs are made when an array is opened, so `work` has to open its arrays itself. An earlier `enable` is undone.

    Parameters
    ----------
    work : callable
        Function to time.
    check : callable
        Function that gets each result, and raises an error if it is wrong. It is not timed.
    rounds : int
        Number of times that each side does the work.

    Returns
    -------
    own, served : Side
        Times with the codecs of zarr and numcodecs, and times with those of this package.
    """
    disable()
    own, served = sides = [Side(), Side(codecs=enable)]
    for _ in range(rounds):
        for side in sides:
            check(side.run(work))
        sides.reverse()
    return own, served
