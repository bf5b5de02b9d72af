"""Progress bars."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


def progress_bar() -> Progress:
    """Return a progress bar on stderr, shown if stderr is a terminal that can draw one. It disappears at the end."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description:26}"),
        BarColumn(36),  # the line leaves room in 80 columns for the "^C" that a terminal adds
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_interactive,  # a file or a dumb terminal would get a new line for each update
        transient=True,
        redirect_stdout=False,
    )
