"""Write-back: threads store what has changed, while more changes come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from numcodecs_qpl.multifd.threads import start

Key = TypeVar("Key")


class WriteBack(Generic[Key]):
    """Threads that store what has changed, beginning with what has not changed for the longest time.

    A key is stored by one thread at a time. If it changes while it is stored, it is stored again, so that the newest
    content is stored last.

    Parameters
    ----------
    store : callable
        ``store(key)`` stores the content of a key, as it is then.
    threads : int
        Threads that call it. They start with the first change.
    lag : int
        Keys that are left alone until `finish`: those that changed last, as they are likely to change again.
    """

    def __init__(self, store: Callable[[Key], None], threads: int, lag: int) -> None:
        self._store = store
        self._count = threads
        self._lag = lag
        self._threads: list[threading.Thread] = []
        self._waiting: dict[Key, None] = {}  # the one that changed last is the last
        self._taken: set[Key] = set()
        self._stopped = False
        self._error: Exception | None = None
        self._condition = threading.Condition()

    def changed(self, keys: Iterable[Key]) -> None:
        """Have the content of `keys` stored, as it is now or later.

        Raises
        ------
        NoThreadError
            If a thread cannot be started.
        Exception
            What `store` raised, in any thread.
        """
        with self._condition:
            self._check()
            while len(self._threads) < self._count:
                self._threads.append(start(threading.Thread(target=self._work, name="write-back")))
            for key in keys:
                self._waiting.pop(key, None)
                self._waiting[key] = None
            self._condition.notify_all()

    def finish(self) -> None:
        """Wait until everything is stored, and end the threads.

        Raises
        ------
        Exception
            What `store` raised, in any thread.
        """
        with self._condition:
            self._lag = 0
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._error or not self._waiting)
        self.stop()  # waits for what is being stored
        self._check()

    def stop(self) -> None:
        """End the threads, without storing what waits. May be called again."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (key := self._take()) is not None:
            error: Exception | None = None
            try:
                self._store(key)
            except Exception as caught:  # of any kind: `changed` or `finish` raises it
                error = caught
            with self._condition:
                self._taken.discard(key)
                self._error = self._error or error
                self._condition.notify_all()

    def _take(self) -> Key | None:
        with self._condition:
            while not (self._stopped or self._error):
                if len(self._waiting) > self._lag:
                    for key in self._waiting:
                        if key not in self._taken:
                            del self._waiting[key]
                            self._taken.add(key)
                            return key
                self._condition.wait()
        return None
