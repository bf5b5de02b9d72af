"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

SYNCS = 16
"""Files that `sync_all` waits for at a time. 500 files on ext4 took a sixth of the time that they take one by one."""
BATCH = 1024
"""Files that `sync_all` has in memory. There can be millions."""


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file beside `path`, and rename it to `path` when it is done. A failure leaves nothing.

    Parameters
    ----------
    write : callable
        Is given the path to write to, which has the name of `path` in a new folder.

    Raises
    ------
    OSError
        If it can't be written, or `path` is there and is not a file: a device or a pipe would be replaced.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "it is there, and is not a file", str(path))
    # A folder by mkdtemp: other users cannot put a symlink into it, and `write` creates a file with the umask's mode.
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as folder:
        beside = Path(folder) / path.name
        write(beside)
        sync(beside)
        beside.replace(path)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_all(paths: Iterable[Path]) -> None:
    """Wait until several files, or the names in folders, are on the disk."""
    left = iter(paths)
    with ThreadPoolExecutor(SYNCS) as threads:
        while batch := list(islice(left, BATCH)):
            for _ in threads.map(sync, batch):
                pass  # an error is raised here
