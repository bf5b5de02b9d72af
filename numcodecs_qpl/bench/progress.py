"""What a terminal shows while something is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from numcodecs_qpl.bench.measure import Announce


@contextmanager
def shown(what: str) -> Iterator[Announce]:
    """A bar on stderr, if that is a terminal which can show one; what is given is to be told of each turn."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description:26}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_interactive,  # a file or a dumb terminal would get one bar below the other
        transient=True,
        redirect_stdout=False,
    )
    task = progress.add_task(what, total=None)
    with progress:
        yield lambda name, turns: progress.update(task, description=name, total=turns, advance=1)
