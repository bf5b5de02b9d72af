"""A limit of the bytes that go onward in a second, shared by all connections."""

from __future__ import annotations

import threading
import time

CREDIT_SECONDS = 0.05
"""Time whose bytes may be made up for where a sender was late, as by the system's scheduling."""


class Throttle:
    """Spreads bytes over time.

    Parameters
    ----------
    bandwidth : float
        Bytes per second of all that share this object.
    """

    def __init__(self, bandwidth: float) -> None:
        self._bandwidth = bandwidth
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self, size: int, stop: threading.Event) -> None:
        """Wait until `size` bytes may be sent, after those for which others wait already, or until `stop` is set."""
        with self._lock:
            now = time.monotonic()
            start = max(self._next, now - CREDIT_SECONDS)
            self._next = start + size / self._bandwidth
        if start > now:
            stop.wait(start - now)
