"""The core: blocks of raw deflate, on an IAA or in software, without any container format."""

from numcodecs_qpl._core.arguments import HUFFMAN, MAX_BLOCK, MAX_LEVEL
from numcodecs_qpl._core.batch import engine_versions, reset_stats, software_versions, stats
from numcodecs_qpl._core.errors import CorruptDataError, QplError
from numcodecs_qpl._core.iaa import init_status as hardware_init_status
from numcodecs_qpl._core.iaa import libqpl_version, status_name
from numcodecs_qpl._core.memory import Memory
from numcodecs_qpl._core.pages import compress_pages, compress_pages_into, decompress_pages
from numcodecs_qpl._core.settings import (
    NO_LIBQPL,
    PATH_SETTINGS,
    check_settings,
    get_numa,
    get_path,
    get_threads,
    hardware_advice,
    path_in_force,
    set_numa,
    set_path,
    set_threads,
)

__all__ = [
    "HUFFMAN",
    "MAX_BLOCK",
    "MAX_LEVEL",
    "NO_LIBQPL",
    "PATH_SETTINGS",
    "CorruptDataError",
    "Memory",
    "QplError",
    "check_settings",
    "compress_pages",
    "compress_pages_into",
    "decompress_pages",
    "engine_versions",
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
    "software_versions",
    "stats",
    "status_name",
]
