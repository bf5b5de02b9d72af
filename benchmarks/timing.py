"""Timing, for all benchmarks: of one call, and of several functions in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median, quantiles

LEAST_ROUNDS = 15
LEAST_TIME = 0.002
"""Seconds that one timing takes at least: short calls are repeated."""

Clock = Callable[[], float]


def seconds_of(function: Callable[[], object], repeats: int = 1, clock: Clock = time.perf_counter) -> float:
    """Seconds of one call: the mean of `repeats` calls."""
    start = clock()
    for _ in range(repeats):
        function()
    return max(clock() - start, 1e-9) / repeats


def spread(first: list[float], second: list[float]) -> tuple[float, float]:
    """Quartiles of the first function's time as a multiple of the second's, round by round."""
    low, _, high = quantiles((one / two for one, two in zip(first, second, strict=True)), n=4)
    return low, high


class Turns:
    """Seconds that each of several functions takes, measured in turns for `seconds` in all."""

    clock: Clock = staticmethod(time.perf_counter)
    """Replaced by the option --cpu-time of a benchmark."""

    def __init__(self, functions: dict[str, Callable[[], object]], seconds: float, *, threads: bool = False) -> None:
        clock = time.perf_counter if threads else self.clock
        repeats = {
            name: max(1, int(LEAST_TIME / seconds_of(function, clock=clock))) for name, function in functions.items()
        }
        self._seconds: dict[str, list[float]] = {name: [] for name in functions}
        order = list(functions)
        end = time.perf_counter() + seconds
        rounds = 0
        while rounds < LEAST_ROUNDS or time.perf_counter() < end:
            for name in order:
                self._seconds[name].append(seconds_of(functions[name], repeats[name], clock))
            order.append(order.pop(0))
            rounds += 1

    def speed(self, name: str, of: str) -> tuple[float, float, float]:
        """Return the speed of `name` divided by that of `of`: by their medians, and the quartiles of the rounds."""
        return (
            median(self._seconds[of]) / median(self._seconds[name]),
            *spread(self._seconds[of], self._seconds[name]),
        )
