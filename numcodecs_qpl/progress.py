"""What a terminal shows while something takes its time."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


def progress_bar() -> Progress:
    """A bar on stderr, if that is a terminal which can show one; it goes when it is done."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description:26}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_interactive,  # a file or a dumb terminal would get one bar below the other
        transient=True,
        redirect_stdout=False,
    )
