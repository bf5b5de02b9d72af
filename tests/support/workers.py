"""Work for the processes of a dask cluster, which import this module by its name."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple

import numcodecs_qpl


class Settings(NamedTuple):
    """Settings in force in a process."""

    path: str
    threads: int
    numa: str | int
    serves_gzip: bool


def settings() -> Settings:
    """Return the settings of this process."""
    return Settings(
        numcodecs_qpl.get_path(),
        numcodecs_qpl.get_threads(),
        numcodecs_qpl.get_numa(),
        "gzip" in numcodecs_qpl.enabled(),
    )


def die_amid_a_write(marker: Path) -> None:
    """Let this process's next write of a chunk be its end, if it is the first of all workers to come that far.

    zarr writes a chunk into a file beside its place, which it then renames. Here the kernel ends the process (SIGKILL)
    with half of that file written. The process that makes the file `marker` is the one.
    """
    rename = os.replace

    def die(source: Path, target: Path) -> None:
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            rename(source, target)
        else:
            os.truncate(source, source.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = die  # type: ignore[assignment]
