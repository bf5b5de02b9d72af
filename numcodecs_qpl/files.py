"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file beside `path`, and give it that name when it is done; nothing is left where it fails.

    Parameters
    ----------
    write : callable
        Is given the path to write to, which has the suffix of `path`.

    Raises
    ------
    OSError
        If it can't be written.
    """
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
