"""Lines of text for a terminal."""

from __future__ import annotations

import shutil
import textwrap

NARROWEST, WIDEST = 80, 100
"""Columns that tables need, and the longest line."""


def columns() -> int:
    """Return the columns of the terminal, within limits; 80 if the output is not a terminal."""
    return max(NARROWEST, min(WIDEST, shutil.get_terminal_size().columns))


def wrapped(text: str, mark: str = "") -> str:
    """Return `text` in lines that fit, the first after `mark` and the others indented by its length."""
    return textwrap.fill(
        text,
        columns() - 1,
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_on_hyphens=False,
        break_long_words=False,
    )
