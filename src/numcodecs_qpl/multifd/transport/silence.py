"""Time without traffic."""

from __future__ import annotations

import time


class Silence:
    """Clock of the time without traffic."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._passed = 0

    def measure(self, passed: int, *, begun: bool) -> float:
        """Return the seconds since the last traffic; 0.0 if `begun` is false.

        Parameters
        ----------
        passed : int
            Bytes that have passed so far.
        begun : bool
            True if traffic is possible yet.
        """
        now = time.monotonic()
        if passed != self._passed or not begun:
            self._since, self._passed = now, passed
        return now - self._since
