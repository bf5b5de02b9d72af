"""Progress bar of a measurement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from numcodecs_qpl.bench.measure import Announce
from numcodecs_qpl.progress import progress_bar


@contextmanager
def shown(what: str) -> Iterator[Announce]:
    """Show a progress bar; call the yielded function at each turn."""
    progress = progress_bar()
    task = progress.add_task(what, total=None)
    with progress:
        yield lambda name, turns: progress.update(task, description=name, total=turns, advance=1)
