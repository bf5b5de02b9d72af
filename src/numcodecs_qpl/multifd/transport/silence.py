"""Time in which nothing passes."""

from __future__ import annotations

import time


class Silence:
    """Measures for how long nothing has passed."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._passed = 0

    def measure(self, passed: int, *, begun: bool) -> float:
        """Return the seconds for which nothing has passed: 0.0 before it has begun.

        Parameters
        ----------
        passed : int
            Bytes that have passed so far.
        begun : bool
            True if something could have passed.
        """
        now = time.monotonic()
        if passed != self._passed or not begun:
            self._since, self._passed = now, passed
        return now - self._since
