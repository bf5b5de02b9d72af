"""Single blocks through the core, and data for them: what the scripts that run on the emulated IAA share."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from numcodecs_qpl import QplError
from numcodecs_qpl._core import Memory
from numcodecs_qpl._core import blocks as core_blocks

RNG = np.random.default_rng(1)
DATA = {
    "words": bytes(RNG.choice(np.frombuffer(b"abcd efgh", np.uint8), 1 << 20)),
    "noise": RNG.bytes(1 << 20),
    "zeros": bytes(1 << 20),
    "periodic": (RNG.bytes(4096) * 257)[: 1 << 20],
}
WORDS = DATA["words"][:65536]

LAST_BLOCK = b"\x03\x00"
"""The empty final block that closes a stream of open blocks."""


def compress(data: bytes, dynamic: bool = False) -> bytes:
    """A stream of one open block and the empty final one; its CRC-32 is checked."""
    stream, crc = core_blocks.compress_blocks(Memory(data, "data"), max(1, len(data)), dynamic, "crc32", 0, False, 0)
    assert crc == zlib.crc32(data)
    return stream


def decompress(stream: bytes, size: int) -> bytes | None:
    """Return the content of the open block in such a stream; None if it is not `size` bytes. Its CRC-32 is checked."""
    assert stream.endswith(LAST_BLOCK)
    out = bytearray(size)
    place = (0, len(stream) - len(LAST_BLOCK), size)
    target = Memory(out, "out", True)
    crcs = core_blocks.decompress_blocks(Memory(stream, "stream"), [place], target, False, "crc32")
    assert crcs is None or crcs == [zlib.crc32(out)]
    return None if crcs is None else bytes(out)


def status_of(work: Callable[..., object], *arguments: object) -> int | None:
    """libqpl's status of the error that `work` raises, or 0."""
    try:
        work(*arguments)
    except QplError as error:
        return error.status
    return 0


def raw_deflate(data: bytes, **options: Any) -> bytes:
    """A stream of zlib's."""
    compressor = zlib.compressobj(**options, wbits=-15)
    return compressor.compress(data) + compressor.flush()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition()`` holds."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)
