"""Damaged and crafted data: messages of the errors, and limits. ``test_damage_matrix.py`` has the verdicts."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import numcodecs
import numpy as np
import pytest
from process import with_threads

from numcodecs_qpl import QPL, CorruptDataError
from numcodecs_qpl.containers import ContainerName

RNG = np.random.default_rng(7)
SMALL = {
    "text": RNG.choice(np.frombuffer(b"abcd efgh", "u1"), 600).tobytes(),
    "noise": RNG.bytes(300),
    "zeros": bytes(5000),
    "one byte": b"x",
    "nothing": b"",
}
CONFIGS: list[dict[str, Any]] = [
    {},
    {"block_size": 250},
    {"huffman": "fixed"},
    {"container": "zlib"},
    {"container": "zlib", "block_size": 250},
    {"container": "zlib", "huffman": "fixed"},
    {"container": "deflate"},
    {"container": "deflate", "huffman": "fixed"},
]
IDS = [str(config or "default") for config in CONFIGS]


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
@pytest.mark.parametrize("length", range(30))
def test_short_junk_is_an_error(config: dict[str, Any], length: int) -> None:
    header = {"gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\xff", "zlib": b"\x78\x9c", "deflate": b""}[
        config.get("container", "gzip")
    ]
    for junk in (bytes(length), b"\xff" * length, header[:length].ljust(length, b"\xff"), RNG.bytes(length)):
        codec = QPL(**config)
        try:
            codec.decode(junk)
        except CorruptDataError:
            continue
        assert config.get("container") == "deflate"
        assert zlib.decompress(junk, -15) == codec.decode(junk)


GZIP = QPL().encode(SMALL["text"])
INDEXED = 24
"""Bytes of the header with one block: 10, XLEN, the subfield's ID and size, the block size, the size of the block."""


def with_header(header: bytes) -> bytes:
    return header + GZIP[INDEXED:]


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"", r"gzip header at byte 0 is truncated: the data has 0 bytes"),
        (GZIP[:9], r"gzip header at byte 0 is truncated: the data has 9 bytes"),
        (GZIP[:15], r"gzip header at byte 0 is truncated"),
        (b"PK" + GZIP[2:], r"no gzip member begins at byte 0: 50 4b 08 instead of 1f 8b 08$"),
        (GZIP[:3] + b"\x24" + GZIP[4:], r"gzip header at byte 0 has reserved flags: 0x24"),
        (with_header(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\xff\xff"), r"gzip header at byte 0 is truncated"),
        (b"\x1f\x8b\x08\x08\0\0\0\0\0\xff" + b"name without end", r"byte 0 is truncated: a name does not end"),
        (b"\x1f\x8b\x08\x10\0\0\0\0\0\xff" + b"x" * 10_000, r"byte 0 is truncated: a name does not end"),
        (
            with_header(b"\x1f\x8b\x08\x02\0\0\0\0\0\xff\x12\x34"),
            r"header at byte 0 is damaged: it does not have its own CRC-16",
        ),
        (
            GZIP[:-1],
            rf"gzip member 0 at byte 0 is truncated: its trailer would end at byte {len(GZIP)} of {len(GZIP) - 1}",
        ),
        (GZIP[:60], rf"gzip member 0 at byte 0 is truncated: the data ends after {60 - INDEXED} bytes of it"),
        (
            GZIP[:-8] + bytes(4) + GZIP[-4:],
            r"gzip member 0 at byte 0 is damaged: its 600 bytes have CRC-32 [0-9a-f]{8}, its trailer \(byte "
            rf"{len(GZIP) - 8}\) says 600 bytes with 00000000$",
        ),
        (
            GZIP[:-4] + b"\1\0\0\0",
            r"gzip member 0 at byte 0 is damaged: its 600 bytes have .*, its trailer \(byte \d+\) says 1 bytes with",
        ),
        (GZIP + GZIP[:-9], rf"gzip member 1 at byte {len(GZIP)} is"),
        (GZIP + b"\x1f", rf"the gzip header at byte {len(GZIP)} is truncated"),
        (GZIP + b"\1", rf"no gzip member begins at byte {len(GZIP)}: 01 instead of 1f 8b 08; 1 bytes follow the last"),
        (zlib.compress(b"text"), r"no gzip member begins at byte 0: .*, as zlib does: container='zlib' reads it$"),
        (
            numcodecs.Zstd().encode(b"text"),
            r"no gzip member begins at byte 0: .*, as Zstandard does, which QPL does not",
        ),
        (GZIP[:INDEXED] + b"\xff" * 99, r"gzip member 0 at byte 0 is damaged"),
    ],
)
def test_the_error_says_what_was_wrong_with_gzip_and_where(encoded: bytes, message: str) -> None:
    with pytest.raises(CorruptDataError, match=message):
        QPL().decode(encoded)


ZLIB = QPL(container="zlib").encode(SMALL["text"])


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"", r"zlib header is truncated: the data has 0 bytes"),
        (b"\x78", r"zlib header is truncated: the data has 1 bytes"),
        (b"\x78\x9d" + ZLIB[2:], r"not a zlib stream: it begins with 78 9d"),
        (b"\x79\x9c" + ZLIB[2:], r"not a zlib stream"),
        (b"\x88\x1c" + ZLIB[2:], r"not a zlib stream: it begins with 88 1c$"),
        (GZIP, r"not a zlib stream: it begins with 1f 8b, as gzip does: container='gzip' reads it$"),
        (b"\x78\xbb" + ZLIB[2:], r"needs a preset dictionary, which is not supported"),
        (ZLIB[:2], r"zlib stream is truncated: the data ends after 0 bytes of it"),
        (ZLIB[:-1], rf"zlib stream is truncated: its Adler-32 would end at byte {len(ZLIB)} of {len(ZLIB) - 1}"),
        (
            ZLIB[:-4] + b"\0\0\0\1",
            rf"zlib stream is damaged: its bytes have Adler-32 [0-9a-f]{{8}}, its end \(byte {len(ZLIB) - 4}\) says "
            "00000001",
        ),
        (
            ZLIB + b"\0more",
            rf"the zlib stream ends at byte {len(ZLIB)} of {len(ZLIB) + 5}, but byte {len(ZLIB) + 1} is 0x6d; only",
        ),
    ],
)
def test_the_error_says_what_was_wrong_with_zlib(encoded: bytes, message: str) -> None:
    with pytest.raises(CorruptDataError, match=message):
        QPL(container="zlib").decode(encoded)


def test_a_truncated_stream_that_ends_like_the_checksum_of_nothing_is_not_nothing() -> None:
    """A fixed block of one literal, cut; its last bytes are the Adler-32 of nothing."""
    cut = bytes.fromhex("480d 63 00000001")
    with pytest.raises(CorruptDataError, match="truncated"):
        QPL(container="zlib").decode(cut)
    with pytest.raises(ValueError, match="out has 0 bytes, but the data inflates to more"):
        QPL(container="zlib").decode(cut, bytearray())


def test_the_error_says_what_was_wrong_with_deflate() -> None:
    stream = QPL(container="deflate").encode(SMALL["text"])
    for encoded, message in (
        (b"", "the deflate stream is truncated"),
        (stream[:-1], "the deflate stream is truncated"),
        (b"\xff" + stream, "the deflate stream is damaged"),
        (
            stream + b"abc",
            f"the deflate stream ends at byte {len(stream)} of {len(stream) + 3}, but byte {len(stream)} is 0x61",
        ),
    ):
        with pytest.raises(CorruptDataError, match=message):
            QPL(container="deflate").decode(encoded)


@pytest.fixture
def two_threads() -> Iterator[None]:
    with with_threads(2):
        yield


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("claim", [2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("index", ["", "of blocks", "of members"])
def test_no_memory_is_taken_for_a_claim_that_the_stream_cannot_hold(claim: int, index: str) -> None:
    size = struct.pack("<I", claim)
    stream = GZIP[INDEXED:-4] + size
    extra = {
        "": b"",
        "of blocks": GZIP[10:16] + size + GZIP[20:INDEXED],
        "of members": struct.pack("<H2sHI", 8, b"IG", 4, 20 + len(stream)),
    }[index]
    encoded = b"\x1f\x8b\x08" + (b"\x04" if index else b"\0") + b"\0\0\0\0\0\xff" + extra + stream
    tracemalloc.start()
    try:
        with pytest.raises(CorruptDataError, match=rf"its 600 bytes have .* says {claim} bytes"):
            QPL().decode(encoded)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("two_threads")
def test_memory_for_a_wrong_index_is_free_before_the_stream_is_inflated() -> None:
    data = RNG.bytes(4 << 20)
    encoded = bytearray(QPL().encode(data))
    first, second = struct.unpack_from("<II", encoded, 20)
    struct.pack_into("<II", encoded, 20, first + 1, second - 1)
    tracemalloc.start()
    try:
        assert QPL().decode(encoded) == data
        assert tracemalloc.get_traced_memory()[1] < 1.5 * len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("container", ["gzip", "zlib", "deflate"])
def test_the_fault_of_a_large_chunk_is_found_without_copies_of_it(container: ContainerName) -> None:
    codec = QPL(container=container)
    data = RNG.bytes(16 << 20)
    encoded = codec.encode(data)
    for damaged, message in (
        (encoded[:-100], r"is truncated: the data ends after \d+ bytes of it"),
        (encoded[: 8 << 20] + b"\xff" * 100_000 + encoded[-100:], "is damaged: Error -3"),
    ):
        out = bytearray(len(data))
        tracemalloc.start()
        try:
            with pytest.raises(CorruptDataError, match=message):
                codec.decode(damaged, out)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("container", ["gzip", "zlib", "deflate"])
def test_the_greatest_expansion_that_deflate_has_is_read(container: ContainerName) -> None:
    data = bytes(20_000_000)
    encoded = zlib.compress(data, 9, {"gzip": 31, "zlib": 12, "deflate": -12}[container])
    assert len(data) / len(encoded) > 1000
    assert QPL(container=container).decode(encoded) == data
