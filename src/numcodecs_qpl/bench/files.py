"""Output files of the command, written completely or not at all, and never over the user's data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from numcodecs_qpl.bench.errors import BenchError
from numcodecs_qpl.files import write_whole

FORMAT = "numcodecs-qpl bench 1"
"""First value of a document. The number increases when a value changes its meaning or its place."""

BEGINNING = f'{{\n  "format": "{FORMAT.rpartition(" ")[0]}'


def check_output(path: Path) -> None:
    """Check, before the work, that `write_output` can write the file.

    Raises
    ------
    BenchError
    """
    folder = path.parent
    if not folder.is_dir():
        raise BenchError(f"{path} cannot be written: the folder {folder} does not exist")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise BenchError(f"{path} cannot be written: it is a folder, or {folder} is read-only")


def check_document(path: Path) -> None:
    """Refuse to overwrite a file that is not a document: it may be the user's data, given in the wrong place.

    Raises
    ------
    BenchError
    """
    check_output(path)
    try:
        with path.open(errors="replace") as file:
            ours = file.read(len(BEGINNING)) == BEGINNING
    except FileNotFoundError:
        return
    except OSError as error:
        raise BenchError(f"{path} cannot be used: {error.strerror}") from error
    if not ours:
        raise BenchError(
            f"{path} exists and was not written by --json: give another name, or put the data before --json"
        )


def write_output(path: Path, write: Callable[[Path], object]) -> None:
    """Write the file with `write`, completely or not at all (`write_whole`).

    Raises
    ------
    BenchError
        If it cannot be written.
    """
    try:
        write_whole(path, write)
    except OSError as error:
        raise BenchError(f"{path} cannot be written: {error.strerror}") from error
