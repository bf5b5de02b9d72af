"""How many threads share a batch, and the threads that do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

THREADS_VARIABLE = "NUMCODECS_QPL_THREADS"

_setting: int | None = None
_executor: ThreadPoolExecutor | None = None
_executor_size = 0


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
    """Call `work` in this thread and in ``count - 1`` others at once, and wait until all are done.

    Every call of `work` must take pieces from one shared list until none is left, so that it does not matter how
    many of the calls come to run: helpers that find no thread free are withdrawn, and at interpreter exit, when no
    thread can be started, this thread does it all.
    """
    helpers: list[Future[None]] = []
    with contextlib.suppress(RuntimeError):  # raised while the interpreter shuts down
        for _ in range(count - 1):
            helpers.append(_threads(count - 1).submit(work))
    try:
        work()
    finally:
        started = [helper for helper in helpers if not helper.cancel()]
        for helper in started:
            helper.result()


def _threads(count: int) -> ThreadPoolExecutor:
    global _executor, _executor_size
    if _executor is None or _executor_size < count:
        # A smaller one that others still use ends when they let go of it.
        _executor = ThreadPoolExecutor(count, thread_name_prefix="numcodecs-qpl")
        _executor_size = count
    return _executor


def _after_fork_in_child() -> None:
    global _executor, _executor_size
    _executor = None  # its threads stayed with the parent
    _executor_size = 0


os.register_at_fork(after_in_child=_after_fork_in_child)
