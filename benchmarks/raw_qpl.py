"""The limit that numcodecs-qpl is measured against: loops in C over libqpl's software path, called through ctypes.

ctypes releases the GIL during a call, and the loops read and write memory that was made, and touched, before: what they
take is what libqpl itself takes.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"

_SLACK = 4096
"""Bytes after an output, for what libqpl's software path may write beyond the room it was given."""


class _Blocks(ctypes.Structure):
    """``struct blocks`` of raw_qpl.c."""

    _fields_ = (
        ("src", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("lengths", ctypes.c_void_p),
        ("dst", ctypes.c_void_p),
        ("room", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("pages", ctypes.c_uint32),
        ("written", ctypes.c_void_p),
    )


def _libqpl() -> list[str]:
    """Compiler arguments for libqpl, found as the build of the package finds it."""
    if shutil.which("pkg-config"):
        wanted = ["pkg-config", "--cflags", "--libs", "--static", "qpl"]
        found = subprocess.run(wanted, capture_output=True, text=True)
        if found.returncode == 0:
            return [*shlex.split(found.stdout), "-lstdc++", "-ldl"]
    fetch = [sys.executable, str(HERE.parent / "tools/fetch_debian.py"), "--into", str(BUILD / "debian"), "qpl"]
    include, archive, _ = subprocess.run(fetch, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return ["-isystem", include, archive, "-lstdc++", "-ldl"]


@cache
def library() -> ctypes.CDLL:
    """raw_qpl.c, compiled by ``$CC`` or ``cc`` into the build folder, and loaded."""
    target = BUILD / "raw_qpl.so"
    target.parent.mkdir(exist_ok=True)
    compiler = shlex.split(os.environ.get("CC", "cc"))
    # No name of libqpl is to be seen outside, for the extension in the same process has its own copy.
    flags = ["-std=c11", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-Wl,--exclude-libs,ALL"]
    subprocess.run([*compiler, *flags, HERE / "raw_qpl.c", *_libqpl(), "-o", target], check=True)
    loaded = ctypes.CDLL(str(target))
    loaded.raw_qpl_open.restype = ctypes.c_void_p
    loaded.raw_qpl_close.argtypes = (ctypes.c_void_p,)
    loaded.raw_qpl_version.restype = ctypes.c_char_p
    loaded.raw_qpl_compress.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Blocks), ctypes.c_uint32, ctypes.c_uint32)
    loaded.raw_qpl_compress.restype = ctypes.c_uint32
    loaded.raw_qpl_decompress.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Blocks))
    loaded.raw_qpl_decompress.restype = ctypes.c_uint32
    return loaded


def libqpl_version() -> str:
    """Version of the libqpl that the loops are linked with."""
    return bytes(library().raw_qpl_version()).decode()


class _Loop:
    """Memory for a loop over blocks that lie one after the other in `src`, `lengths` bytes each."""

    def __init__(self, src: NDArray[np.uint8], lengths: NDArray[np.uint32], room: int, pages: bool) -> None:
        ends = np.cumsum(lengths, dtype=np.uint64)
        self.src = src
        self.lengths = lengths
        self.offsets = ends - lengths
        self.dst = np.full((room + 1) * len(lengths) + _SLACK, 0xFF, np.uint8)
        self.written = np.zeros(len(lengths), np.uint32)
        self.blocks = _Blocks(
            src.ctypes.data,
            self.offsets.ctypes.data,
            lengths.ctypes.data,
            self.dst.ctypes.data,
            room,
            len(lengths),
            pages,
            self.written.ctypes.data,
        )
        self.reference = ctypes.byref(self.blocks)


class RawQpl:
    """A reused libqpl job, and the memory for one chunk on its way there and back.

    Parameters
    ----------
    data : bytes
        The chunk.
    block_size : int
        Uncompressed bytes in a block; the last one is what remains.
    level : {1, 3}
        libqpl's level.
    dynamic : bool
        Huffman tables for each block, or the fixed ones.
    pages : bool
        Blocks are guest pages: one that does not get smaller stays as it is, as in `numcodecs_qpl.compress_pages`.
    """

    def __init__(
        self, data: bytes, block_size: int, *, level: int = 1, dynamic: bool = True, pages: bool = False
    ) -> None:
        self._level = level
        self._dynamic = dynamic
        self._job: int | None = library().raw_qpl_open()
        if self._job is None:
            raise MemoryError("libqpl gave no job")
        starts = range(0, len(data), block_size)
        lengths = np.array([min(block_size, len(data) - start) for start in starts], np.uint32)
        plain = np.frombuffer(data, np.uint8)
        room = block_size - 1 if pages else block_size + 5 * (block_size // 65535 + 2) + 16
        self._compress = _Loop(plain, lengths, room, pages)
        self.encoded_size = self.encode()
        # Fixed tables do not give the same bytes every time, so what is to be decoded is kept apart.
        streams = self._compress.dst[: self.encoded_size].copy()
        self._decompress = _Loop(streams, self._compress.written.copy(), block_size, pages)
        if self.decode() != len(data) or not np.array_equal(self._decompress.dst[: len(data)], plain):
            raise RuntimeError("the loops in C do not give back what was put in")

    def __del__(self) -> None:
        if self._job is not None:
            library().raw_qpl_close(self._job)

    def encode(self) -> int:
        """Compress the chunk; returns the bytes of the streams."""
        return self._total(
            self._compress,
            library().raw_qpl_compress(self._job, self._compress.reference, self._level, self._dynamic),
        )

    def decode(self) -> int:
        """Inflate the chunk from the streams of the first `encode`; returns its bytes."""
        return self._total(self._decompress, library().raw_qpl_decompress(self._job, self._decompress.reference))

    def _total(self, loop: _Loop, status: int) -> int:
        if status:
            raise RuntimeError(f"libqpl failed with status {status}")
        return int(loop.written.sum())
