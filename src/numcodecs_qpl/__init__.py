"""Deflate for numcodecs, zarr and QEMU, on an In-Memory Analytics Accelerator (IAA) or in software."""

from importlib.metadata import version

from numcodecs_qpl._core import (
    CorruptDataError,
    QplError,
    compress_pages,
    decompress_pages,
    get_numa,
    get_path,
    get_threads,
    reset_stats,
    set_numa,
    set_path,
    set_threads,
    stats,
)
from numcodecs_qpl.codec import QPL
from numcodecs_qpl.serve import disable, enable, enabled

__version__ = version("numcodecs-qpl")

__all__ = [
    "QPL",
    "CorruptDataError",
    "QplError",
    "__version__",
    "compress_pages",
    "decompress_pages",
    "disable",
    "enable",
    "enabled",
    "get_numa",
    "get_path",
    "get_threads",
    "reset_stats",
    "set_numa",
    "set_path",
    "set_threads",
    "stats",
]
