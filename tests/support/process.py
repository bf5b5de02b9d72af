"""Settings of the process that tests change and restore."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from numcodecs_qpl import get_threads, set_threads


@contextmanager
def with_threads(count: int | None = None) -> Iterator[None]:
    """Restore the number of threads at the end; until then it is `count`, if that is given."""
    before = get_threads()
    if count is not None:
        set_threads(count)
    try:
        yield
    finally:
        set_threads(before)
