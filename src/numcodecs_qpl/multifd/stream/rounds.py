"""Barrier: every channel waits at a SYNC until all channels have reached it.

A page that is sent again comes in a later round, perhaps on another channel. Without the barrier, that channel could be
ahead of the channel with the older copy, and the older copy would overwrite the newer one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from numcodecs_qpl.multifd.errors import MultiFDError


class Rounds:
    """Barrier of the main channel and the multifd channels.

    Parameters
    ----------
    parties : iterable
        Names of the channels.
    complete : callable
        ``complete()`` is called at the end of each round: all channels have arrived, and none has continued.
    """

    def __init__(self, parties: set[Hashable], complete: Callable[[], None]) -> None:
        self._parties = frozenset(parties)
        self._complete = complete
        self._changed = threading.Condition()
        self._here: set[Hashable] = set()
        self._gone: set[Hashable] = set()
        self._aborted = False
        self.passed = 0
        """Rounds that have ended."""

    def arrive(self, party: Hashable) -> None:
        """Wait until all other channels have reached the end of this round.

        Raises
        ------
        MultiFDError
            If another channel has ended, or after `abort`.
        """
        with self._changed:
            this = self.passed
            self._here.add(party)
            self._check()
            if self._here == self._parties:
                self._complete()
                self.passed += 1
                self._here.clear()
                self._changed.notify_all()
            while self.passed == this:
                self._check()
                self._changed.wait()

    def _check(self) -> None:
        if self._gone:
            raise MultiFDError(f"the stream has a SYNC that {_names(self._gone)} never reached")
        if self._aborted:
            raise MultiFDError("aborted")

    def leave(self, party: Hashable) -> None:
        """Record that `party` has ended. Channels that wait for it get an error."""
        with self._changed:
            self._gone.add(party)
            self._changed.notify_all()

    def abort(self) -> None:
        """Raise an error in all channels that wait."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()


def _names(parties: set[Hashable]) -> str:
    return ", ".join(
        "the main channel" if party == "main" else f"channel {party}" for party in sorted(map(str, parties))
    )
