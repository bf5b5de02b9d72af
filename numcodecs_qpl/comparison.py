"""Work through zarr, timed in turns: with the codecs of zarr and numcodecs, and with those that `enable` serves.

The demo shows such times, and the benchmarks compare their medians.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from numcodecs_qpl import disable, enable, reset_stats, stats
from numcodecs_qpl.times import T, Times


@dataclass
class Side(Times):
    """One of the two sides, and the times of its rounds.

    Attributes
    ----------
    codecs : callable
        Makes the context in which the work runs.
    counts : dict
        What `numcodecs_qpl.stats` counted in the last round.
    """

    codecs: Callable[[], AbstractContextManager[object]] = nullcontext
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def run(self, work: Callable[[], T]) -> T:
        """Do the work with this side's codecs, and note what it took."""
        reset_stats()
        with self.codecs():
            result = super().run(work)
        self.counts = stats()
        return result

    @property
    def blocks(self) -> int:
        """Blocks that this package compressed or decompressed in the last round, on any path."""
        return sum(sum(self.counts[path].values()) for path in ("hardware", "software"))


def in_turns(work: Callable[[], T], check: Callable[[T], object], *, rounds: int) -> tuple[Side, Side]:
    """Do the work on both sides, in turns.

    Codecs are made when an array is opened, so `work` has to open its arrays itself. What `enable` served before is
    not served any more.

    Parameters
    ----------
    work : callable
        What is timed.
    check : callable
        Is given each result, and raises an error if it is wrong. It is not timed.
    rounds : int
        How often each side does it.

    Returns
    -------
    own, served : Side
        The side of zarr's and numcodecs' codecs, and the side of this package's.
    """
    disable()
    own, served = sides = [Side(), Side(codecs=enable)]
    for _ in range(rounds):
        for side in sides:
            check(side.run(work))
        sides.reverse()
    return own, served
