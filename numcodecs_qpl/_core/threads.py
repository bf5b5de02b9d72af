"""Number of threads that share a batch."""

from __future__ import annotations

import os

from numcodecs_qpl._core.arguments import as_index

THREADS_VARIABLE = "NUMCODECS_QPL_THREADS"
MAX_THREADS = 256
"""The most threads that `spread.c` starts for one call."""

_setting: int | None = None


def set_threads(count: int) -> None:
    """Spread each batch of blocks over `count` threads, for this process.

    The default is the environment variable ``NUMCODECS_QPL_THREADS``, or 1 if it is unset or empty: zarr and dask
    already call from threads of their own. The result does not depend on it.

    Raises
    ------
    TypeError, ValueError
        If `count` is not an integer, or not 1 to `MAX_THREADS`.
    """
    global _setting
    _setting = as_index(count, "threads", 1, MAX_THREADS)


def get_threads() -> int:
    """Number of threads that share a batch.

    Raises
    ------
    ValueError
        If nothing was set and ``NUMCODECS_QPL_THREADS`` is not a number from 1 to `MAX_THREADS`.
    """
    global _setting
    if _setting is None:
        word = os.environ.get(THREADS_VARIABLE) or "1"
        if not (word.isascii() and word.isdecimal() and len(word) < 10):  # int() has a limit of its own
            raise ValueError(f"{THREADS_VARIABLE} is {word!r}; it must be a number from 1 to {MAX_THREADS}")
        _setting = as_index(int(word), THREADS_VARIABLE, 1, MAX_THREADS)
    return _setting
