"""Signals that end a command, which cleans up first."""

from __future__ import annotations

import signal
from typing import Any, Self


class Terminated(BaseException):
    """SIGTERM or SIGHUP (a closed terminal) has come.

    Attributes
    ----------
    status : int
        Exit status: a shell's status for the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Signals:
    """Signal handling: the first SIGINT, SIGTERM or SIGHUP ends the command by an exception, like an error.

    The first signal waits until `check` or `let_come` is called, so that everything can be cleaned up. Later signals
    are ignored, because they would interrupt the cleanup. A signal that was ignored at the start (nohup) stays ignored.

    The thread's signal mask cannot do this: the threads of NumPy's libraries take the signal, and Python then handles
    it in the main thread.
    """

    def __init__(self) -> None:
        self._waits = True
        self._first: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def let_come(self) -> None:
        """Raise as `check` does when the first signal comes, or immediately if it has come."""
        self._waits = False
        self.check()

    def check(self) -> None:
        """Raise KeyboardInterrupt (SIGINT) or `Terminated` if a signal has come."""
        if self._first is not None:
            raise KeyboardInterrupt if self._first == signal.SIGINT else Terminated(self._first)

    def _take(self, number: int, frame: object) -> None:
        if self._first is None:
            self._first = number
            if not self._waits:
                self.check()
