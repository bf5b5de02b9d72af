"""A connection from the source and its continuation to the next hop, and the end of both."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from numcodecs_qpl.multifd.transport.connection import Connection

STUCK_SECONDS = 1.0
"""Time for the threads of failed pairs to notice that their connections were ended."""


@dataclass
class Pair:
    """Two connections and the threads that pass bytes between them.

    Attributes
    ----------
    source, onward : Connection
        The connection from the source, and the one to the next hop.
    source_ended : bool
        True if the source has ended its direction and all its bytes were passed on.
    threads : list of Thread
        The thread of the source's direction, then the thread of the other direction.
    """

    source: Connection
    onward: Connection
    source_ended: bool = False
    threads: list[threading.Thread] = field(default_factory=list)

    def passes_forward(self) -> bool:
        """Return True while the bytes of the source are passed on."""
        return any(thread.is_alive() for thread in self.threads[:1])

    def abort(self) -> None:
        """End both connections in both directions."""
        self.source.abort()
        self.onward.abort()

    def close(self) -> None:
        """Close both connections, whose streams have ended in both directions."""
        for thread in self.threads:
            thread.join()
        self.source.close()
        self.onward.close()


def fail(pairs: Collection[Pair]) -> None:
    """End the connections of `pairs` in mid-stream. May be called again.

    The next hop sees the end of the stream after the bytes that were passed on. The source sees a reset, so that a
    relay there can tell a failure from the end of a successful migration.
    """
    for pair in pairs:
        pair.source.stop_reading()
        pair.onward.abort()
    deadline = time.monotonic() + STUCK_SECONDS  # for all pairs together: a source has up to 256 connections
    for pair in pairs:
        for thread in pair.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in pair.threads):
            pair.source.abort()  # the source does not read the other direction
        for thread in pair.threads:
            thread.join()
        pair.source.reset()
        pair.onward.close()
