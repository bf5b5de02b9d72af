"""Damaged and crafted data: an error, or the right bytes; never wrong ones, short ones, or a crash."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import numcodecs
import numpy as np
import pytest

from numcodecs_qpl import QPL, CorruptDataError

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
    {"level": 3},
    {"huffman": "fixed"},
    {"container": "zlib"},
    {"container": "zlib", "huffman": "fixed"},
    {"container": "deflate"},
    {"container": "deflate", "huffman": "fixed"},
]
IDS = [str(config or "default") for config in CONFIGS]


def outcomes(config: dict[str, Any], encoded: bytes, size: int) -> Iterator[bytes | None]:
    """What each way of decoding gives; None for the error that it should be. A codec each, so that none has learned."""
    for out in (None, bytearray(size)):
        try:
            got = QPL(**config).decode(encoded, out)
        except CorruptDataError:
            yield None
        except ValueError as error:
            if out is None or not str(error).startswith(f"out has {size} bytes, but the data inflates to"):
                raise
            yield None
        else:
            yield bytes(got)


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
@pytest.mark.parametrize("data", SMALL.values(), ids=SMALL)
def test_every_truncation_is_an_error_or_gives_the_right_bytes(config: dict[str, Any], data: bytes) -> None:
    encoded = QPL(**config).encode(data)
    # Without its last members a gzip file is whole, and nothing in it says that there were more.
    ends = {sum(sizes) for sizes in _prefixes(encoded)} if config.get("container", "gzip") == "gzip" else set()
    for length in range(len(encoded)):
        for got in outcomes(config, encoded[:length], len(data)):
            if length in ends and got is not None:
                assert data.startswith(got)
                assert got
            else:
                assert got is None or got == data


def _prefixes(encoded: bytes) -> Iterator[list[int]]:
    """Sizes of the first members, for each number of them but all."""
    sizes: list[int] = []
    while True:
        sizes.append(int.from_bytes(encoded[sum(sizes) + 16 : sum(sizes) + 20], "little"))
        if sum(sizes) == len(encoded):
            return
        yield list(sizes)


@pytest.mark.parametrize("config", [config for config in CONFIGS if config.get("container") != "deflate"], ids=str)
@pytest.mark.parametrize("data", SMALL.values(), ids=SMALL)
def test_every_flipped_bit_is_an_error_or_gives_the_right_bytes(config: dict[str, Any], data: bytes) -> None:
    encoded = QPL(**config).encode(data)
    right = 0
    for bit in range(8 * len(encoded)):
        flipped = bytearray(encoded)
        flipped[bit // 8] ^= 1 << bit % 8
        for got in outcomes(config, bytes(flipped), len(data)):
            assert got is None or got == data, f"bit {bit}"
            right += got is not None
    # MTIME, XFL and OS mean nothing for the data, and a wrong index is seen through.
    assert right >= (2 * 8 * 6 if encoded[:1] == b"\x1f" else 0)


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


def with_header(header: bytes) -> bytes:
    return header + GZIP[20:]


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
        (with_header(b"\x1f\x8b\x08\x02\0\0\0\0\0\xff\x12\x34"), r"header at byte 0 does not have its own CRC-16"),
        (GZIP[:-1], r"gzip member 0 at byte 0 is truncated: the data ends before its trailer does"),
        (GZIP[:60], r"gzip member 0 at byte 0 is truncated: the data ends before it does"),
        (
            GZIP[:-8] + bytes(4) + GZIP[-4:],
            r"gzip member 0 at byte 0 is damaged: its bytes have CRC-32 [0-9a-f]{8}, its trailer says 00000000",
        ),
        (GZIP[:-4] + b"\1\0\0\0", r"gzip member 0 at byte 0 is damaged: it inflates to 600 bytes, its trailer says 1"),
        (GZIP + GZIP[:-9], rf"gzip member 1 at byte {len(GZIP)} is"),
        (GZIP + b"\x1f", rf"the gzip header at byte {len(GZIP)} is truncated"),
        (GZIP + b"\1", rf"no gzip member begins at byte {len(GZIP)}: 01 instead of 1f 8b 08; 1 bytes follow the last"),
        (zlib.compress(b"text"), r"no gzip member begins at byte 0: .*, as zlib does: container='zlib' reads it$"),
        (
            numcodecs.Zstd().encode(b"text"),
            r"no gzip member begins at byte 0: .*, as Zstandard does, which QPL does not",
        ),
        (with_header(GZIP[:20])[:20] + b"\xff" * 99, r"gzip member 0 at byte 0 is damaged"),
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
        (b"\x78\x9d" + ZLIB[2:], r"no zlib stream: it begins with 78 9d"),
        (b"\x79\x9c" + ZLIB[2:], r"no zlib stream"),
        (b"\x88\x1c" + ZLIB[2:], r"no zlib stream: it begins with 88 1c$"),
        (GZIP, r"no zlib stream: it begins with 1f 8b, as gzip does: container='gzip' reads it$"),
        (b"\x78\xbb" + ZLIB[2:], r"needs a preset dictionary, which is not supported"),
        (ZLIB[:2], r"zlib stream is truncated: the data ends before it does"),
        (ZLIB[:-1], r"zlib stream is truncated: the data ends before its Adler-32 does"),
        (
            ZLIB[:-4] + b"\0\0\0\1",
            r"zlib stream is damaged: its bytes have Adler-32 [0-9a-f]{8}, its end says 00000001",
        ),
        (ZLIB + b"more", r"4 bytes follow the zlib stream"),
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
        (stream + b"abc", "3 bytes follow the deflate stream"),
    ):
        with pytest.raises(CorruptDataError, match=message):
            QPL(container="deflate").decode(encoded)


def index(size: int) -> bytes:
    return GZIP[:16] + struct.pack("<I", size & 0xFFFFFFFF)


@pytest.mark.parametrize("lie", [0, 1, 19, 20, 27, 28, 29, 30, 100, len(GZIP) - 1, len(GZIP) + 1, 2**31, 2**32 - 1])
def test_a_lie_in_the_index_is_seen_through(lie: int) -> None:
    """Readers that know no index read the same: the subfield is a hint."""
    for rest in (b"", GZIP, bytes(50)):
        encoded = with_header(index(lie)) + rest
        whole = SMALL["text"] * (2 if rest == GZIP else 1)
        assert QPL().decode(encoded) == whole
        out = bytearray(len(whole))
        QPL().decode(encoded, out)
        assert out == whole


@pytest.mark.parametrize("claim", [2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("indexed", [True, False])
def test_no_memory_is_taken_for_a_claim_that_the_stream_cannot_hold(claim: int, indexed: bool) -> None:
    stream = GZIP[20:-4] + struct.pack("<I", claim)
    encoded = GZIP[:20] + stream if indexed else b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + stream
    tracemalloc.start()
    try:
        with pytest.raises(CorruptDataError, match=rf"600 bytes, its trailer says {claim}"):
            QPL().decode(encoded)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("container", ["gzip", "zlib", "deflate"])
def test_the_greatest_expansion_that_deflate_has_is_read(container: str) -> None:
    data = bytes(20_000_000)
    encoded = zlib.compress(data, 9, {"gzip": 31, "zlib": 12, "deflate": -12}[container])
    assert len(data) / len(encoded) > 1000
    assert QPL(container=container).decode(encoded) == data


def test_more_than_a_chunk_may_hold_is_an_error() -> None:
    block = QPL().encode(bytes(2**20))
    encoded = block * 2048
    with pytest.raises(CorruptDataError, match="the data inflates to more than 2147483647 bytes"):
        QPL().decode(encoded)
