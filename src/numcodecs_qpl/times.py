"""Timing of work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Times:
    """Times of rounds of work, in seconds.

    Attributes
    ----------
    wall, cpu : list of float
        Elapsed time of each round, and CPU time of the whole process.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, work: Callable[[], T]) -> T:
        """Do the work, and record its times."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        return result
