"""How many threads share a batch, and the threads that do."""

from __future__ import annotations

import _thread
import contextlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

THREADS_VARIABLE = "NUMCODECS_QPL_THREADS"

_setting: int | None = None
_submitted: SimpleQueue[Callable[[], None]] = SimpleQueue()
_started = 0


def set_threads(count: int) -> None:
    """Spread each batch of blocks over `count` threads, for this process.

    The default is 1, or what the environment variable ``NUMCODECS_QPL_THREADS`` says: zarr and dask already call from
    threads of their own. The bytes that come out do not depend on it.

    Raises
    ------
    ValueError
        If `count` is not a whole number of at least 1.
    """
    global _setting
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"threads is {count!r}; it must be a whole number of at least 1")
    _setting = count


def get_threads() -> int:
    """Number of threads that share a batch.

    Raises
    ------
    ValueError
        If nothing was set and ``NUMCODECS_QPL_THREADS`` is not a whole number of at least 1.
    """
    if _setting is None:
        word = os.environ.get(THREADS_VARIABLE, "1")
        if not word.isdecimal() or int(word) < 1:
            raise ValueError(f"{THREADS_VARIABLE} is {word!r}; it must be a whole number of at least 1")
        set_threads(int(word))
        return int(word)
    return _setting


def spread(work: Callable[[], None], count: int) -> None:
    """Call `work` in this thread and in ``count - 1`` others at once, and wait until all calls have ended.

    Every call of `work` must take pieces from one shared list until none is left, so that it does not matter how
    many of the calls come to run: helpers that find no thread free are withdrawn, and at interpreter exit, when no
    thread can be started, this thread does it all.

    Raises
    ------
    BaseException
        The first error, of any call or of a signal handler. It is raised after all calls have ended: until then they
        use the caller's memory.
    """
    errors: list[BaseException] = []
    helpers = [_Helper(work, errors) for _ in range(count - 1)]
    # `errors += [error]` is not a call: after a call, a signal handler could raise outside of the `try` statements.
    try:
        with contextlib.suppress(RuntimeError):  # raised while the interpreter shuts down
            for helper in helpers:
                _submit(helper.run, count - 1)
        work()
    except BaseException as error:
        errors += [error]
    while True:
        try:
            for helper in helpers:
                helper.withdraw_or_wait()
            break
        except BaseException as error:
            errors += [error]
    try:
        if errors:
            raise errors[0]
    finally:
        # The traceback keeps this frame: it must keep neither the error itself nor the caller's memory.
        errors.clear()
        del work


class _Helper:
    """One call of `work` in another thread. The caller can withdraw it until it begins.

    Each step of `withdraw_or_wait` can be interrupted by a signal handler that raises, and repeated.
    """

    def __init__(self, work: Callable[[], None], errors: list[BaseException]) -> None:
        self._work = work
        self._errors = errors
        self._claim: dict[str, object] = {}  # setdefault is atomic, and says the same when it is repeated
        self._ended = False
        self._at_end = threading.Lock()
        self._at_end.acquire()

    def run(self) -> None:
        """Call `work` unless this helper was withdrawn."""
        if self._claim.setdefault("by", self) is not self:
            return
        try:
            self._work()
        except BaseException as error:
            self._errors.append(error)
        finally:
            self._work = _nothing  # it refers to the caller's memory
            self._ended = True
            self._at_end.release()

    def withdraw_or_wait(self) -> None:
        """Withdraw the call where it has not begun, else wait until it has ended."""
        if self._claim.setdefault("by", None) is None:
            self._work = _nothing
            return
        while not self._ended:
            self._at_end.acquire()


def _nothing() -> None:
    """Do nothing."""


def _submit(run: Callable[[], None], threads: int) -> None:
    """Have one of at least `threads` threads call `run` when it is free.

    concurrent.futures would leave its locks taken where a signal handler raises in it. Here the two steps that matter
    are calls of C functions, which no handler interrupts.
    """
    global _started
    while _started < threads:
        _thread.start_new_thread(_serve, (_submitted,))
        _started += 1
    _submitted.put(run)


def _serve(submitted: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        submitted.get()()


def _after_fork_in_child() -> None:
    global _submitted, _started
    _submitted = SimpleQueue()
    _started = 0  # the threads stayed with the parent


os.register_at_fork(after_in_child=_after_fork_in_child)
