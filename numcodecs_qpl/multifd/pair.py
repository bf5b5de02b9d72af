"""A connection that has come, and the one that it was opened onward with: how both end."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from numcodecs_qpl.multifd.connection import Connection

STUCK_SECONDS = 1.0
"""Time that a thread has to notice that its connections were ended."""


@dataclass
class Pair:
    """Two connections and the threads that pass bytes between them.

    Attributes
    ----------
    source, onward : Connection
        The one that came, and the one to the next hop.
    source_ended : bool
        All that the source has sent was passed on.
    threads : list of Thread
        One for each direction, the one that passes on what the source sends first.
    """

    source: Connection
    onward: Connection
    source_ended: bool = False
    threads: list[threading.Thread] = field(default_factory=list)

    def join_forward(self, timeout: float) -> None:
        """Wait until all that the source has sent was passed on, for at most `timeout` seconds."""
        for thread in self.threads[:1]:
            thread.join(timeout)

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

    def fail(self) -> None:
        """End both connections in the middle of what goes on. May be called again.

        The next hop sees the end of what was passed on. The source sees a reset, so that a relay there can tell it from
        the end of a migration that has succeeded.
        """
        self.source.stop_reading()
        self.onward.abort()
        for thread in self.threads:
            thread.join(STUCK_SECONDS)
        if any(thread.is_alive() for thread in self.threads):
            self.source.abort()  # the source does not read what comes back
        for thread in self.threads:
            thread.join()
        self.source.reset()
        self.onward.close()
