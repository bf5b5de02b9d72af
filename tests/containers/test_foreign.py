"""Streams of every producer: levels, windows, strategies, flushes, headers, members."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
from isal import igzip, igzip_lib, isal_zlib
from process import with_threads

import numcodecs_qpl
from numcodecs_qpl import QPL, CorruptDataError
from numcodecs_qpl._core.types import Huffman
from numcodecs_qpl.containers import ContainerName

RNG = np.random.default_rng(6)
TEXT = RNG.choice(np.frombuffer(b"abcd efgh", "u1"), 150_000).tobytes()
# Repetitions 20,000 bytes apart: farther than an IAA goes.
FAR = RNG.bytes(20_000) * 3
CONTENTS = {"text": TEXT, "far": FAR, "noise": RNG.bytes(140_000), "short": b"x", "nothing": b""}
CONTAINERS = {"gzip": 31, "zlib": 15, "deflate": -15}
"""Each container with the wbits that zlib has for it."""
TURNS: list[ContainerName] = ["gzip", "zlib", "deflate"]


@pytest.fixture(params=CONTENTS)
def data(request: pytest.FixtureRequest) -> bytes:
    return CONTENTS[request.param]


# ---- Others read ours -------------------------------------------------------------------------------------------

READERS: dict[str, list[Callable[[bytes], Any]]] = {
    "gzip": [gzip.decompress, igzip.decompress, numcodecs.GZip().decode],
    "zlib": [zlib.decompress, isal_zlib.decompress, numcodecs.Zlib().decode],
    "deflate": [
        lambda encoded: zlib.decompress(encoded, -15),
        lambda encoded: zlib.decompress(encoded, -12),
        lambda encoded: igzip_lib.decompress(encoded, igzip_lib.DECOMP_DEFLATE),
    ],
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("block_size", [1000, 65536])
@pytest.mark.parametrize("huffman", ["dynamic", "fixed"])
def test_others_read_what_we_write(container: ContainerName, block_size: int, huffman: Huffman, data: bytes) -> None:
    encoded = QPL(container, block_size, huffman).encode(data)
    for read in READERS[container]:
        assert bytes(read(encoded)) == data


def test_the_program_gzip_reads_what_we_write(data: bytes) -> None:
    program = shutil.which("gzip")
    if program is None and not os.environ.get("CI"):
        pytest.skip("the program gzip is not on this machine")
    assert program is not None
    for block_size in (1000, 65536, 2**31 - 1):
        encoded = QPL(block_size=block_size).encode(data)
        subprocess.run([program, "-t"], input=encoded, check=True)
        assert subprocess.run([program, "-dc"], input=encoded, capture_output=True, check=True).stdout == data


def test_what_we_write_is_as_the_format_page_says() -> None:
    encoded = QPL(block_size=60_000).encode(TEXT)
    header = struct.unpack_from("<2s2B I 2B H 2sH I 3I", encoded)
    assert header[:-3] == (b"\x1f\x8b", 8, 4, 0, 0, 255, 20, b"QB", 16, 60_000)
    at = 32
    for number, size in enumerate(header[-3:]):
        block = zlib.decompressobj(-12)
        assert block.decompress(encoded[at : at + size]) == TEXT[60_000 * number : 60_000 * (number + 1)]
        assert not block.eof
        at += size
    assert encoded[at:] == b"\x03\x00" + struct.pack("<II", zlib.crc32(TEXT), len(TEXT))
    assert QPL().encode(b"") == bytes.fromhex("1f8b08000000000000ff 0300") + bytes(8)
    zlib_encoded = QPL(container="zlib").encode(TEXT)
    assert (zlib_encoded[:2], zlib_encoded[-6:-4], zlib_encoded[-4:]) == (
        b"\x48\x0d",
        b"\x03\x00",
        zlib.adler32(TEXT).to_bytes(4, "big"),
    )
    assert QPL(container="deflate").encode(TEXT) == zlib_encoded[2:-4]


def test_blocks_are_twice_as_large_as_often_as_needed_for_an_index_of_them_all() -> None:
    data = TEXT[:100_000]
    for block_size, expected in ((1, 8), (6, 12), (7, 7), (100_000, 100_000)):
        encoded = QPL(block_size=block_size).encode(data)
        assert struct.unpack_from("<I", encoded, 16) == (expected,)
        assert gzip.decompress(encoded) == data
        assert QPL().decode(encoded) == data


# ---- We read others' --------------------------------------------------------------------------------------------


def check_decode(codec: QPL, encoded: bytes, data: bytes) -> None:
    """Twice, as a codec learns; to bytes and into `out`; with one thread, and with two, which read an index."""
    for count in (1, 1, 2, 2):
        with with_threads(count):
            assert codec.decode(encoded) == data
            out = bytearray(len(data))
            codec.decode(encoded, out)
            assert out == data


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("level", range(10))
def test_we_read_zlib_at_every_level(container: ContainerName, level: int, data: bytes) -> None:
    check_decode(QPL(container=container), zlib.compress(data, level, CONTAINERS[container]), data)


@pytest.mark.parametrize("window", range(9, 16))
@pytest.mark.parametrize(
    "strategy", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED]
)
@pytest.mark.parametrize("flush", [None, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH])
def test_we_read_zlib_of_every_window_strategy_and_flush(window: int, strategy: int, flush: int | None) -> None:
    # In one container each: every window, strategy and flush comes in all three.
    container: ContainerName = TURNS[(window + strategy + (flush or 0)) % 3]
    wbits = {"gzip": window + 16, "zlib": window, "deflate": -window}[container]
    for data in CONTENTS.values():
        compressor = zlib.compressobj(6, zlib.DEFLATED, wbits, 8, strategy)
        pieces = [compressor.compress(data[: len(data) // 2])]
        if flush is not None:
            pieces += [compressor.flush(flush), compressor.flush(flush)]
        encoded = b"".join([*pieces, compressor.compress(data[len(data) // 2 :]), compressor.flush()])
        check_decode(QPL(container=container), encoded, data)


@pytest.mark.parametrize("level", range(4))
def test_we_read_isal(level: int, data: bytes) -> None:
    check_decode(QPL(), igzip.compress(data, level), data)
    check_decode(QPL(container="zlib"), isal_zlib.compress(data, level), data)
    check_decode(QPL(container="deflate"), isal_zlib.compress(data, level, -12), data)


FHCRC, FEXTRA, FNAME, FCOMMENT = 2, 4, 8, 16


def member(data: bytes, flags: int = 0, extra: bytes = b"", *, indexed: bool = False) -> bytes:
    """A gzip member with every header field that `flags` ask for."""
    stream = zlib.compress(data, wbits=-15)
    header = struct.pack("<2sBBIBB", b"\x1f\x8b", 8, flags, 1_700_000_000, 2, 3)
    size = len(header) + len(stream) + 8
    if flags & FEXTRA:
        size += 2 + len(extra) + 8 * indexed
        if indexed:
            size += 11 * bool(flags & FNAME) + 3 * bool(flags & FCOMMENT) + 2 * bool(flags & FHCRC)
            extra += struct.pack("<2sHI", b"IG", 4, size)
        header += struct.pack("<H", len(extra)) + extra
    if flags & FNAME:
        header += b"a name.txt\0"
    if flags & FCOMMENT:
        header += b"no\0"
    if flags & FHCRC:
        header += struct.pack("<H", zlib.crc32(header) & 0xFFFF)
    return header + stream + struct.pack("<II", zlib.crc32(data), len(data))


def test_members_without_an_index_fill_an_out_at_the_first_try() -> None:
    out = bytearray(len(TEXT))
    QPL().decode(gzip.compress(TEXT[:50_000]) + gzip.compress(TEXT[50_000:]), out)
    assert out == TEXT


@pytest.mark.parametrize("flags", range(0, 32, 2))
@pytest.mark.parametrize("extra", [b"", b"XY\x03\x00abc"], ids=["", "another subfield"])
@pytest.mark.parametrize("indexed", [False, True])
def test_we_read_members_with_any_header_fields(flags: int, extra: bytes, indexed: bool) -> None:
    encoded = b"".join(member(part, flags, extra, indexed=indexed) for part in (TEXT[:5000], FAR, b"", TEXT[:99]))
    assert gzip.decompress(encoded) == TEXT[:5000] + FAR + TEXT[:99]
    check_decode(QPL(), encoded, TEXT[:5000] + FAR + TEXT[:99])


@pytest.mark.parametrize("zeros", [1, 7, 8, 9, 511, 5000])
@pytest.mark.parametrize("make", [gzip.compress, QPL().encode], ids=["gzip's", "ours"])
def test_zeros_after_the_last_member_are_padding(zeros: int, make: Callable[[bytes], bytes]) -> None:
    check_decode(QPL(), make(TEXT) + bytes(zeros), TEXT)


@pytest.mark.parametrize("first", ["ours", "gzip's"])
@pytest.mark.parametrize("second", ["ours", "gzip's"])
@pytest.mark.parametrize("part", [TEXT, TEXT[:100], b"\0"], ids=["text", "short", "zero"])
def test_members_of_the_same_content_are_all_read(first: str, second: str, part: bytes) -> None:
    make: dict[str, Callable[[bytes], bytes]] = {
        "ours": QPL(block_size=2**31 - 1).encode,
        "gzip's": lambda data: gzip.compress(data, mtime=0),
    }
    check_decode(QPL(), make[first](part) + make[second](part), part * 2)


def test_an_index_that_covers_two_members_of_the_same_content_loses_none() -> None:
    one = member(TEXT[:60_000], FEXTRA, indexed=True)
    both = bytearray(one + one)
    both[16:20] = struct.pack("<I", len(both))
    check_decode(QPL(), bytes(both), TEXT[:60_000] * 2)


@pytest.mark.parametrize("container", ["gzip", "zlib", "deflate"])
@pytest.mark.parametrize("after", [b"x", b"\x1f\x8b", b"\0x", b"more than a few bytes"])
def test_something_else_after_the_end_is_an_error_that_names_its_first_byte(
    container: ContainerName, after: bytes
) -> None:
    codec = QPL(container=container)
    for encoded in (codec.encode(TEXT), zlib.compress(TEXT, wbits=CONTAINERS[container])):
        where = len(encoded) + after.count(0)
        for out in (None, bytearray(len(TEXT))):
            with pytest.raises(CorruptDataError, match=rf"byte {where}\b"):
                codec.decode(encoded + after, out)


# ---- What a codec learns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_size_of_the_last_chunk_is_a_hint_that_changes_nothing(container: ContainerName) -> None:
    codec = QPL(container=container)
    chunks = [zlib.compress(data, wbits=CONTAINERS[container]) for data in (b"", TEXT, bytes(3_000_000), b"x", FAR)]
    for encoded in chunks * 2:
        assert codec.decode(encoded) == zlib.decompress(encoded, CONTAINERS[container])


def test_nothing_is_learned_from_damage() -> None:
    codec = QPL(container="zlib")
    encoded = codec.encode(TEXT)
    for at in range(100, len(encoded), 5000):
        with pytest.raises(CorruptDataError):
            codec.decode(encoded[:at])
    assert codec._reader.size_hint == 0
    assert codec.decode(encoded) == TEXT
    assert codec._reader.size_hint == len(TEXT)


# ---- Members side by side ---------------------------------------------------------------------------------------


def bgzf(parts: list[bytes]) -> bytes:
    """Members as bgzip writes them: each tells its size less one, and an empty one is the last."""
    members = []
    for part in [*parts, b""]:
        compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
        stream = compressor.compress(part) + compressor.flush()
        header = struct.pack("<4sIBBH2sHH", b"\x1f\x8b\x08\x04", 0, 0, 255, 6, b"BC", 2, 18 + len(stream) + 8 - 1)
        members.append(header + stream + struct.pack("<II", zlib.crc32(part), len(part)))
    return b"".join(members)


@pytest.mark.parametrize("producer", ["pgzip's", "BGZF"])
def test_members_that_tell_their_size_are_inflated_one_by_one_by_threads(producer: str) -> None:
    parts = [TEXT[at : at + 30_000] for at in range(0, len(TEXT), 30_000)]
    encoded = bgzf(parts) if producer == "BGZF" else b"".join(member(part, FEXTRA, indexed=True) for part in parts)
    with with_threads(2):
        numcodecs_qpl.reset_stats()
        assert QPL().decode(encoded) == TEXT
        assert numcodecs_qpl.stats()["software"]["decompressed"] == len(parts)
        check_decode(QPL(), encoded, TEXT)
        check_decode(QPL(), encoded + bytes(9), TEXT)


# ---- Sizes ------------------------------------------------------------------------------------------------------


def available_memory() -> int:
    """Bytes that are free for this machine's programs."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


@pytest.mark.skipif(available_memory() < 8 << 30, reason="the test needs 8 GiB of free memory")
@pytest.mark.parametrize("container", ["gzip", "zlib"])
def test_a_chunk_of_more_than_2_gib_is_read(container: ContainerName) -> None:
    piece = bytes(1 << 24)
    pieces = 130
    compressor = isal_zlib.compressobj(1, isal_zlib.DEFLATED, CONTAINERS[container])
    encoded = b"".join(compressor.compress(piece) for _ in range(pieces)) + compressor.compress(b"end")
    decoded = QPL(container=container).decode(encoded + compressor.flush())
    assert len(decoded) == pieces * len(piece) + 3
    assert decoded.endswith(bytes(9) + b"end")
    assert not np.frombuffer(decoded, "u8", count=len(decoded) // 8 - 1).any()


def test_a_chunk_of_more_than_2_gib_is_not_written_and_the_error_says_whose_limit_it_is() -> None:
    with pytest.raises(ValueError, match="buf has 2147483648 bytes; QPL writes chunks of up to 2147483647"):
        QPL().encode(np.zeros(2**31, "u1"))
