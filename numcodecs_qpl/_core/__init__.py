"""The core: blocks of raw deflate, through libqpl or ISA-L. No container format is known in here."""

from numcodecs_qpl._core.arguments import HUFFMAN, MAX_BLOCK, check_apart, compress_bound
from numcodecs_qpl._core.blocks import (
    OUTPUT_SLACK,
    BytesWriter,
    compress_blocks,
    compress_pages,
    compress_pages_into,
    decompress_blocks,
    decompress_pages,
    decompress_stream,
)
from numcodecs_qpl._core.counts import Counts
from numcodecs_qpl._core.engine import ENGINE, engine_version, libqpl_version, reset_stats, stats, status_name
from numcodecs_qpl._core.errors import CorruptDataError, QplError
from numcodecs_qpl._core.path import (
    NO_LIBQPL,
    PATH_SETTINGS,
    get_numa,
    get_path,
    hardware_advice,
    hardware_init_status,
    path_in_force,
    set_numa,
    set_path,
)
from numcodecs_qpl._core.threads import get_threads, set_threads

__all__ = [
    "ENGINE",
    "HUFFMAN",
    "MAX_BLOCK",
    "NO_LIBQPL",
    "OUTPUT_SLACK",
    "PATH_SETTINGS",
    "BytesWriter",
    "CorruptDataError",
    "Counts",
    "QplError",
    "check_apart",
    "compress_blocks",
    "compress_bound",
    "compress_pages",
    "compress_pages_into",
    "decompress_blocks",
    "decompress_pages",
    "decompress_stream",
    "engine_version",
    "get_numa",
    "get_path",
    "get_threads",
    "hardware_advice",
    "hardware_init_status",
    "libqpl_version",
    "path_in_force",
    "reset_stats",
    "set_numa",
    "set_path",
    "set_threads",
    "stats",
    "status_name",
]
