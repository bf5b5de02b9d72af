"""Rounds: nobody goes on past a SYNC before all have come to theirs.

A page that is sent again comes in a later round, perhaps on another channel. Were that channel ahead of the one with
the older copy, the older copy would win.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from numcodecs_qpl.multifd.errors import MultiFDError


class Rounds:
    """What the main channel and the multifd channels wait at.

    Parameters
    ----------
    parties : iterable
        Who takes part.
    complete : callable
        ``complete()`` is called at the end of each round, when all have come and nobody goes on yet.
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
        """Wait until all the others have come to the end of this round too.

        Raises
        ------
        MultiFDError
            If one of them has ended, or all were called off.
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
            raise MultiFDError(f"the stream has a SYNC that {_names(self._gone)} never came to")
        if self._aborted:
            raise MultiFDError("called off")

    def leave(self, party: Hashable) -> None:
        """`party` has ended; whoever waits for it, waits in vain."""
        with self._changed:
            self._gone.add(party)
            self._changed.notify_all()

    def abort(self) -> None:
        """Call everything off: nobody waits any more."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()


def _names(parties: set[Hashable]) -> str:
    return ", ".join(
        "the main channel" if party == "main" else f"channel {party}" for party in sorted(map(str, parties))
    )
