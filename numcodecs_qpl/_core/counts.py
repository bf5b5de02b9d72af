"""Counts that threads share."""

from __future__ import annotations

import os
import threading
from collections import Counter


class Counts:
    """How often what happened, by name, in this process: a forked child begins anew."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()  # a new one, as a thread of the parent may have held the other

    def add(self, name: str, count: int = 1) -> None:
        """Count something once, or `count` times."""
        with self._lock:
            self._counts[name] += count

    def seen(self) -> dict[str, int]:
        """All that was counted."""
        with self._lock:
            return dict(self._counts)

    def clear(self) -> None:
        """Set all to zero."""
        with self._lock:
            self._counts.clear()
