"""A limit of the bytes sent onward in a second, shared by all connections."""

from __future__ import annotations

import threading
import time

CREDIT_SECONDS = 0.05
"""Longest delay, such as by the system's scheduling, whose bytes a sender may catch up on."""


class Throttle:
    """Limit of the rate of sent bytes.

    Parameters
    ----------
    bandwidth : float
        Bytes per second, for all senders that share this object.
    """

    def __init__(self, bandwidth: float) -> None:
        self._bandwidth = bandwidth
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self, size: int, stop: threading.Event) -> None:
        """Wait until `size` bytes may be sent, after earlier callers' bytes, or until `stop` is set."""
        with self._lock:
            now = time.monotonic()
            start = max(self._next, now - CREDIT_SECONDS)
            self._next = start + size / self._bandwidth
        if start > now:
            stop.wait(start - now)
