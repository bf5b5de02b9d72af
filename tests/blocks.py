"""Single blocks through the core, and data for them: what the scripts that run on the emulated IAA share."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from numcodecs_qpl import QplError, _core

RNG = np.random.default_rng(1)
DATA = {
    "words": bytes(RNG.choice(np.frombuffer(b"abcd efgh", np.uint8), 1 << 20)),
    "noise": RNG.bytes(1 << 20),
    "zeros": bytes(1 << 20),
    "periodic": (RNG.bytes(4096) * 257)[: 1 << 20],
}
WORDS = DATA["words"][:65536]


def compress(data: bytes, dynamic: bool = False, *, level: int = 1) -> bytes:
    """One block, whose CRC-32 as libqpl says it is checked."""
    writer = _core.BytesWriter(_core.compress_bound(len(data)))
    _, lengths, crcs = _core.compress_blocks(data, writer, max(1, len(data)), level=level, dynamic=dynamic)
    assert int(crcs[0]) == zlib.crc32(data)
    return writer.finish(int(lengths[0]))


def decompress(stream: bytes, room: int) -> tuple[int, bytes, int]:
    """Status, what was written, and its CRC-32 by libqpl."""
    out = bytearray(room + _core.OUTPUT_SLACK)
    status, _, written, crc = _core.decompress_blocks(
        stream, np.zeros(1, np.int64), np.array([len(stream)]), out, np.array([room])
    )
    return status[0], bytes(out[: written[0]]), crc[0]


def status_of(work: Callable[..., object], *arguments: object) -> int | None:
    """libqpl's status that `work` ends with, returned or raised."""
    try:
        done = work(*arguments)
    except QplError as error:
        return error.status
    return done[0] if isinstance(done, tuple) else 0


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
