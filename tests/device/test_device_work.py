"""Requests to a device, the proof in its answers, and the cost of waiting for them."""

from __future__ import annotations

import emulated_iaa

# ---- Where a stream ends: hardware does not tell ----------------------------------------------------------------

SPANNED = """
import gzip, struct, sys, zlib
import numpy as np
from numcodecs_qpl import QPL, _core, set_path, set_threads, stats

TABLE = []
for value in range(256):
    for _ in range(8):
        value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
    TABLE.append(value)
BY_TOP = {value >> 24: index for index, value in enumerate(TABLE)}

def forge(prefix, wanted):
    # Four bytes that give `prefix` a chosen CRC-32.
    crc, target, indices = zlib.crc32(prefix) ^ 0xFFFFFFFF, wanted ^ 0xFFFFFFFF, []
    for _ in range(4):
        indices.append(BY_TOP[target >> 24])
        target = ((target ^ TABLE[indices[-1]]) << 8) & 0xFFFFFFFF
    suffix = b""
    for index in reversed(indices):
        suffix += bytes([(crc ^ index) & 0xFF])
        crc = (crc >> 8) ^ TABLE[index]
    assert zlib.crc32(prefix + suffix) == wanted
    return suffix

def raw(data):
    compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
    return compressor.compress(data) + compressor.flush()

def trailer(data):
    return struct.pack("<II", zlib.crc32(data), len(data))

def indexed(body):
    # A header whose index claims all of `body` as one member's stream and trailer.
    return struct.pack("<3sBIBBH2sHI", b"\\x1f\\x8b\\x08", 4, 0, 0, 255, 8, b"IG", 4, 20 + len(body)) + body

assert _core.path_in_force() == "hardware"
first = np.random.default_rng(0).integers(0, 8, 5000, np.uint8).tobytes()
second = np.random.default_rng(1).integers(0, 8, 4996, np.uint8).tobytes()
second += forge(second, zlib.crc32(first))
plain = b"\\x1f\\x8b\\x08" + bytes(6) + b"\\xff"
body = raw(first) + trailer(first)
ours = QPL(block_size=5000).encode(first * 3)
"""


def test_an_index_that_spans_two_members_returns_both() -> None:
    emulated_iaa.run(
        SPANNED
        + """
second_member = plain + raw(second) + trailer(second)
for path in ("auto", "hardware"):
    set_path(path)
    for before, after in ((b"", b""), (ours, b""), (b"", ours), (ours, ours)):
        chunk = before + indexed(body + second_member) + after
        wanted = gzip.decompress(chunk)
        assert first + second in wanted
        assert QPL().decode(chunk) == wanted
        out = bytearray(len(wanted))
        QPL().decode(chunk, out)
        assert out == wanted
"""
    )


def test_an_index_that_spans_a_member_and_other_bytes_is_refused() -> None:
    emulated_iaa.run(
        SPANNED
        + """
for path in ("auto", "hardware"):
    set_path(path)
    for between in (b"junk", bytes(8) + b"junk"):
        chunk = indexed(body + between + trailer(first))
        try:
            got = QPL().decode(chunk)
        except ValueError:
            pass
        else:
            raise AssertionError("read as if nothing were wrong")
"""
    )


def test_chunks_of_our_own_are_still_inflated_by_the_device() -> None:
    emulated_iaa.run(
        SPANNED
        + """
set_path("hardware")
before = stats()["hardware"]["decompressed"]
assert QPL().decode(ours) == first * 3
assert stats()["hardware"]["decompressed"] == before + 3
"""
    )


# ---- Streams of other producers ------------------------------------------------------------------------------------


def test_zlib_of_unknown_size_is_inflated_once_and_in_software() -> None:
    emulated_iaa.run(
        """
import zlib
import numpy as np
from numcodecs_qpl import QPL, _core, reset_stats, stats
assert _core.path_in_force() == "hardware"
for megabytes, symbols in ((1, 9), (3, 9), (16, 1)):  # 16 MiB of one symbol are 16 KiB of zlib
    data = np.random.default_rng(0).integers(0, symbols, megabytes << 20, np.uint8).tobytes()
    compressor = zlib.compressobj(1, wbits=12)
    encoded = compressor.compress(data) + compressor.flush()
    codec = QPL(container="zlib")
    for _ in range(3):
        reset_stats()
        assert codec.decode(encoded) == data
        seen = stats()
        assert seen["hardware"]["decompressed"] == 0 and seen["software"]["decompressed"] == 1, seen
"""
    )


# ---- Waiting ----------------------------------------------------------------------------------------------------


def test_a_thread_that_waits_for_a_device_uses_less_than_a_tenth_of_a_core() -> None:
    emulated_iaa.run(
        """
import time
import numpy as np
from numcodecs_qpl import QPL, _core, compress_pages, decompress_pages, stats
data = np.random.default_rng(0).integers(0, 9, 64 << 10, np.uint8).tobytes()
codec = QPL()
encoded = codec.encode(data)
lengths, payload = compress_pages(data)
before = stats()["hardware"]
calls = {
    "encode": lambda: codec.encode(data),
    "decode": lambda: codec.decode(encoded),
    "compress_pages": lambda: compress_pages(data),
    "decompress_pages": lambda: decompress_pages(payload, lengths),
}
for name, call in calls.items():
    start, cpu = time.perf_counter(), time.thread_time()
    for _ in range(4):
        call()
    wall, cpu = time.perf_counter() - start, time.thread_time() - cpu
    assert wall >= 0.4, (name, wall)
    assert cpu < 0.1 * wall, (name, cpu, wall)
after = stats()["hardware"]
assert after["compressed"] == before["compressed"] + 4 * 17
assert after["decompressed"] == before["decompressed"] + 4 * 17
""",
        job_us=100_000,
    )
