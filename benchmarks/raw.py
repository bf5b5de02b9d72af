"""The limits that numcodecs-qpl is measured against: loops in C over libqpl, ISA-L and libdeflate, called by ctypes.

ctypes releases the GIL during a call. The loops read and write memory that was made, and touched, before, so they take
the time of the library itself. libqpl runs on its software path.
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
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"
FETCH = HERE.parent / "build-aux/fetch_debian.py"
FETCHED = BUILD / "make/debian"
"""Folder to which the Makefile's build fetches libraries."""

PACKAGES = ("qpl", "libisal", "libdeflate")
"""pkg-config's names of the libraries."""

Engine = Literal["libqpl", "ISA-L", "libdeflate"]
ENGINES: tuple[Engine, ...] = ("libqpl", "ISA-L", "libdeflate")
"""In the order of ``engines`` in raw.c."""

_SLACK = 4096
"""Bytes after an output: libqpl's software path may write beyond the room that it was given (version 1.9.0)."""


class _Blocks(ctypes.Structure):
    """``struct blocks`` of raw.c."""

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


def _by_pkg_config(name: str) -> list[str] | None:
    """Compiler arguments for a library of the system; None if pkg-config does not know it."""
    if not shutil.which("pkg-config"):
        return None
    static = [] if name == "libisal" else ["--static"]
    found = subprocess.run(["pkg-config", "--cflags", "--libs", *static, name], capture_output=True, text=True)
    return shlex.split(found.stdout) if found.returncode == 0 else None


def _libraries() -> list[str]:
    """Compiler arguments for the three libraries, found as the build of the package finds them."""
    system = {name: _by_pkg_config(name) for name in PACKAGES}
    arguments = [word for found in system.values() for word in found or ()]
    missing = [name for name, found in system.items() if found is None]
    if missing:
        fetch = [sys.executable, str(FETCH), "--into", str(FETCHED), *missing]
        lines = subprocess.run(fetch, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        for include, file in zip(lines[::3], lines[1::3], strict=True):  # the third line describes them
            arguments += ["-isystem", include, file, f"-Wl,-rpath,{Path(file).parent}"]
    return [*arguments, "-lstdc++", "-ldl"]


@cache
def library() -> ctypes.CDLL:
    """raw.c, compiled by ``$CC`` or ``cc`` into the build folder, and loaded."""
    target = BUILD / "raw.so"
    target.parent.mkdir(exist_ok=True)
    compiler = shlex.split(os.environ.get("CC", "cc"))
    # The symbols of static libraries stay hidden: the extensions in the same process have their own copies.
    flags = ["-std=c11", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-Wl,--exclude-libs,ALL"]
    subprocess.run([*compiler, *flags, HERE / "raw.c", *_libraries(), "-o", target], check=True)
    loaded = ctypes.CDLL(str(target))
    loaded.raw_open.argtypes = (ctypes.c_uint32,)
    loaded.raw_open.restype = ctypes.c_void_p
    loaded.raw_close.argtypes = (ctypes.c_uint32, ctypes.c_void_p)
    loaded.raw_close.restype = None
    loaded.raw_version.argtypes = (ctypes.c_uint32,)
    loaded.raw_version.restype = ctypes.c_char_p
    loop = (ctypes.c_uint32, ctypes.c_void_p, ctypes.POINTER(_Blocks))
    loaded.raw_compress.argtypes = (*loop, ctypes.c_uint32)
    loaded.raw_compress.restype = ctypes.c_uint32
    loaded.raw_decompress.argtypes = loop
    loaded.raw_decompress.restype = ctypes.c_uint32
    return loaded


def version(engine: Engine) -> str:
    """Version of a library that the loops are linked with."""
    return bytes(library().raw_version(ENGINES.index(engine))).decode()


class _State:
    """State that a library reuses from one block to the next."""

    def __init__(self, engine: Engine) -> None:
        self.engine = ENGINES.index(engine)
        self.pointer: int | None = library().raw_open(self.engine)
        if self.pointer is None:
            raise MemoryError(f"{engine} gave no state")

    def __del__(self) -> None:
        if self.pointer is not None:
            library().raw_close(self.engine, self.pointer)


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

    def result(self, failed: int) -> int:
        """Bytes that a run of the loop has written."""
        if failed:
            raise RuntimeError("a block failed")
        return int(self.written.sum())


class RawDeflate:
    """A loop that compresses a chunk, each block into a deflate stream of its own.

    Parameters
    ----------
    engine : {"libqpl", "ISA-L"}
        The library.
    data : bytes
        The chunk.
    block_size : int
        Uncompressed bytes in a block; the last one may be shorter.
    dynamic : bool
        Huffman tables for each block, or the fixed ones.
    pages : bool
        Blocks are guest pages: if one does not get smaller, it is copied, as in `numcodecs_qpl.compress_pages`.
    """

    def __init__(
        self, engine: Engine, data: bytes, block_size: int, *, dynamic: bool = True, pages: bool = False
    ) -> None:
        if engine == "libdeflate":
            raise ValueError("libdeflate cannot limit its window to 4 KiB")
        self._state = _State(engine)
        self._dynamic = dynamic
        starts = range(0, len(data), block_size)
        lengths = np.array([min(block_size, len(data) - start) for start in starts], np.uint32)
        room = block_size - 1 if pages else block_size + 5 * (block_size // 65535 + 2) + 16
        self._loop = _Loop(np.frombuffer(data, np.uint8), lengths, room, pages)
        self.size = self()
        # With fixed tables, libqpl does not give the same bytes every time: keep those of the first run.
        self.lengths = self._loop.written.copy()
        self.streams = self._loop.dst[: self.size].copy()

    def __call__(self) -> int:
        """Compress the chunk; returns the bytes of the streams."""
        state = self._state
        return self._loop.result(
            library().raw_compress(state.engine, state.pointer, self._loop.reference, self._dynamic)
        )


class RawInflate:
    """A loop that inflates blocks, each a deflate stream of its own.

    Parameters
    ----------
    engine : {"libqpl", "ISA-L", "libdeflate"}
        The library.
    streams : bytes-like
        The streams, one after the other.
    lengths : array_like
        Bytes of each.
    data : bytes
        What they inflate to, which is checked once.
    block_size : int
        Uncompressed bytes in a block.
    pages : bool
        Blocks are guest pages: one of `block_size` bytes is copied, as in `numcodecs_qpl.decompress_pages`.
    """

    def __init__(
        self,
        engine: Engine,
        streams: bytes | bytearray | NDArray[np.uint8],
        lengths: ArrayLike,
        data: bytes,
        block_size: int,
        *,
        pages: bool = False,
    ) -> None:
        self._state = _State(engine)
        self._loop = _Loop(np.frombuffer(streams, np.uint8), np.array(lengths, np.uint32), block_size, pages)
        if self() != len(data) or bytes(self._loop.dst[: len(data)]) != data:
            raise RuntimeError(f"{engine} does not give back what was put in")

    @classmethod
    def of(cls, engine: Engine, deflated: RawDeflate, data: bytes, block_size: int, *, pages: bool = False) -> Self:
        """A loop over the streams of a `RawDeflate`."""
        return cls(engine, deflated.streams, deflated.lengths, data, block_size, pages=pages)

    def __call__(self) -> int:
        """Inflate the blocks; returns the bytes of the chunk."""
        state = self._state
        return self._loop.result(library().raw_decompress(state.engine, state.pointer, self._loop.reference))
