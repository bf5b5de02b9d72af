"""Write-back: threads store changed content while more changes come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from numcodecs_qpl.multifd.threads import start

Key = TypeVar("Key")


class WriteBack(Generic[Key]):
    """Threads that store changed content, the least recently changed first.

    One thread at a time stores a key. If the key changes meanwhile, it is stored again, so that the newest content is
    stored last.

    Parameters
    ----------
    store : callable
        ``store(key)`` stores the present content of a key.
    threads : int
        Number of threads. They start with the first change.
    lag : int
        Number of most recently changed keys that wait until `finish`, because they are likely to change again.
    """

    def __init__(self, store: Callable[[Key], None], threads: int, lag: int) -> None:
        self._store = store
        self._count = threads
        self._lag = lag
        self._threads: list[threading.Thread] = []
        self._waiting: dict[Key, None] = {}  # in order of the last change
        self._taken: set[Key] = set()
        self._stopped = False
        self._error: Exception | None = None
        self._condition = threading.Condition()

    def changed(self, keys: Iterable[Key]) -> None:
        """Schedule the present or later content of `keys` to be stored.

        Raises
        ------
        NoThreadError
            If a thread cannot be started.
        Exception
            Any exception of `store`, in any thread.
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
            Any exception of `store`, in any thread.
        """
        with self._condition:
            self._lag = 0
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._error or not self._waiting)
        self.stop()  # waits for the keys that are being stored
        self._check()

    def stop(self) -> None:
        """End the threads without storing the keys that wait. May be called again."""
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
