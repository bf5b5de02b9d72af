"""libqpl itself, without the package: its software path on any machine, its hardware path on the emulated IAA.

What it writes the package reads, and the other way round. ``reference_qpl.c`` is built beside the emulated IAA.
It has its own copy of libqpl. Only one copy in a process finds the emulated IAA: the first that looks for it.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from functools import cache
from typing import Final, NamedTuple

import emulated_iaa

LIBRARY: Final = "libreference_qpl.so"
PATIENCE: Final = 30.0
"""Seconds that a job may take."""

GUARD: Final = bytes(range(1, 65))
"""Bytes after each output. libqpl's software path may write a few bytes past the end, but not so many."""


class Path(IntEnum):
    """libqpl's paths."""

    SOFTWARE = 0
    HARDWARE = 1


class JobError(Exception):
    """A job ended with another status than OK."""

    def __init__(self, status: int) -> None:
        super().__init__(f"libqpl's status {status}")
        self.status = status


class _Outcome(ctypes.Structure):
    """``struct outcome`` of reference_qpl.c."""

    _fields_ = (
        ("read", ctypes.c_uint32),
        ("written", ctypes.c_uint32),
        ("crc", ctypes.c_uint32),
        ("last_bits", ctypes.c_uint32),
    )


class Outcome(NamedTuple):
    """Result of a job: its status, bytes read, the bytes written, their CRC-32 and the bits used of the last one."""

    status: int
    read: int
    output: bytes
    crc: int
    last_bits: int


@cache
def library() -> ctypes.CDLL:
    """reference_qpl.c; a test without it is skipped, and fails in CI."""
    loaded = ctypes.CDLL(str(emulated_iaa.folder() / LIBRARY))
    loaded.reference_open.argtypes = (ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32))
    loaded.reference_open.restype = ctypes.c_void_p
    loaded.reference_close.argtypes = (ctypes.c_void_p,)
    loaded.reference_version.restype = ctypes.c_char_p
    loaded.reference_run.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_uint32,
        ctypes.c_char_p,
        ctypes.c_uint32,
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_double,
        ctypes.POINTER(_Outcome),
    )
    loaded.reference_run.restype = ctypes.c_uint32
    return loaded


def version() -> str:
    """Version of this copy of libqpl."""
    return bytes(library().reference_version()).decode()


class Job:
    """A job of libqpl's, which is used again and again.

    Raises
    ------
    JobError
        If there is no such job.
    """

    def __init__(self, path: Path) -> None:
        self._job: int | None = None
        status = ctypes.c_uint32()
        self._path = path
        self._job = library().reference_open(int(path), ctypes.byref(status))
        if self._job is None:
            raise JobError(status.value)

    def __del__(self) -> None:
        if self._job is not None:
            library().reference_close(self._job)

    def compress(self, data: bytes, dynamic: bool = False, room: int | None = None) -> Outcome:
        """Compress a block, as a final one."""
        return self._run(data, stored_size(len(data)) if room is None else room, compress=True, dynamic=dynamic)

    def decompress(self, stream: bytes, room: int) -> Outcome:
        """Inflate a stream."""
        return self._run(stream, room)

    def _run(self, src: bytes, room: int, compress: bool = False, dynamic: bool = False) -> Outcome:
        outcome = _Outcome()
        dst = ctypes.create_string_buffer(bytes(room) + GUARD, room + len(GUARD))
        status = library().reference_run(
            self._job, compress, dynamic, src, len(src), dst, room, PATIENCE, ctypes.byref(outcome)
        )
        if self._path == Path.HARDWARE and dst.raw[room:] != GUARD:
            raise AssertionError("bytes after the output were changed")
        return Outcome(status, outcome.read, dst.raw[: outcome.written], outcome.crc, outcome.last_bits)


def stored_size(size: int) -> int:
    """Bytes of `size` bytes as stored blocks, and those that libqpl wants to have free besides."""
    return size + 5 * (size // 65535 + 2) + 16


# ---- For scripts that run on the emulated IAA: a new job for each block, as each thread needs one of its own ----


def compress(data: bytes, dynamic: bool = False) -> bytes:
    """One final block by the device.

    Raises
    ------
    JobError
        If libqpl's status is not OK.
    """
    done = Job(Path.HARDWARE).compress(data, dynamic)
    if done.status:
        raise JobError(done.status)
    return done.output


def decompress(stream: bytes, room: int) -> tuple[int, bytes, int]:
    """Status, what the device wrote, and its CRC-32 by libqpl."""
    done = Job(Path.HARDWARE).decompress(stream, room)
    return done.status, done.output, done.crc


def status_of(data: bytes, dynamic: bool = False) -> int:
    """libqpl's status of compressing a block on the device."""
    return Job(Path.HARDWARE).compress(data, dynamic).status
