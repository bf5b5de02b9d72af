"""Both ways with everybody else's gzip, zlib and inflate."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from typing import Any

import numcodecs
import numpy as np
import pytest
from engine import needs_libqpl
from isal import igzip, igzip_lib, isal_zlib

import numcodecs_qpl
from numcodecs_qpl import QPL, CorruptDataError, reset_stats, stats
from numcodecs_qpl.containers import gzip as gzip_container

RNG = np.random.default_rng(6)
TEXT = RNG.choice(np.frombuffer(b"abcd efgh", "u1"), 150_000).tobytes()
# Repetitions 20,000 bytes apart: farther than libqpl goes.
FAR = RNG.bytes(20_000) * 3
CONTENTS = {"text": TEXT, "far": FAR, "noise": RNG.bytes(140_000), "short": b"x", "nothing": b""}
CONTAINERS = {"gzip": 31, "zlib": 15, "deflate": -15}
"""Each container with the wbits that zlib has for it."""


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
@pytest.mark.parametrize("level", [1, 3])
@pytest.mark.parametrize("huffman", ["dynamic", "fixed"])
def test_others_read_what_we_write(container: str, level: int, huffman: str, data: bytes) -> None:
    encoded = QPL(level, container, None, huffman).encode(data)
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
    at = 0
    sizes = []
    while at < len(encoded):
        header = struct.unpack_from("<2s2B I 2B H 2sHI", encoded, at)
        assert header[:-1] == (b"\x1f\x8b", 8, 4, 0, 4, 255, 8, b"IG", 4)
        end = at + header[-1]
        crc, size = struct.unpack_from("<II", encoded, end - 8)
        block = zlib.decompress(encoded[at + 20 : end - 8], -15)
        assert (crc, size) == (zlib.crc32(block), len(block))
        sizes.append(size)
        at = end
    assert sizes == [60_000, 60_000, 30_000]
    assert at == len(encoded)
    assert QPL(level=3).encode(b"")[8] == 0
    zlib_encoded = QPL(container="zlib").encode(TEXT)
    assert (zlib_encoded[:2], zlib_encoded[-4:]) == (b"\x48\x0d", zlib.adler32(TEXT).to_bytes(4, "big"))


# ---- We read others' --------------------------------------------------------------------------------------------


def check_decode(codec: QPL, encoded: bytes, data: bytes) -> None:
    """Twice, as a codec learns; to bytes and into `out`."""
    for _ in range(2):
        assert codec.decode(encoded) == data
        out = bytearray(len(data))
        codec.decode(encoded, out)
        assert out == data


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("level", range(10))
def test_we_read_zlib_at_every_level(container: str, level: int, data: bytes) -> None:
    check_decode(QPL(container=container), zlib.compress(data, level, CONTAINERS[container]), data)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("window", range(9, 16))
@pytest.mark.parametrize(
    "strategy", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED]
)
@pytest.mark.parametrize("flush", [None, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH])
def test_we_read_zlib_of_every_window_strategy_and_flush(
    container: str, window: int, strategy: int, flush: int | None
) -> None:
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


def test_members_of_the_same_content_are_not_taken_for_one_even_before_inflating() -> None:
    """On hardware libqpl cannot say that it stopped at the end of the first."""
    for part in (TEXT, TEXT[:100], FAR):
        one = gzip.compress(part)
        assert gzip_container._plan(memoryview(one)) is not None
        assert gzip_container._plan(memoryview(one * 2)) is None
        assert gzip_container._plan(memoryview(one * 9)) is None


def test_an_index_that_covers_two_members_of_the_same_content_loses_none() -> None:
    one = bytearray(QPL().encode(TEXT[:60_000]))
    both = one + one
    both[16:20] = struct.pack("<I", len(both))
    check_decode(QPL(), bytes(both), TEXT[:60_000] * 2)


@pytest.mark.parametrize("container", ["gzip", "zlib", "deflate"])
@pytest.mark.parametrize("after", [b"x", b"\x1f\x8b", b"\0x", b"more than a few bytes"])
def test_something_else_after_the_end_is_an_error_that_says_where(container: str, after: bytes) -> None:
    codec = QPL(container=container)
    for encoded in (codec.encode(TEXT), zlib.compress(TEXT, wbits=CONTAINERS[container])):
        with pytest.raises(CorruptDataError, match=rf"at byte {len(encoded)}\b|{len(after)} bytes follow|Adler-32"):
            codec.decode(encoded + after)


# ---- What a codec learns ----------------------------------------------------------------------------------------


@needs_libqpl
@pytest.mark.parametrize("container", ["gzip", "zlib"])
def test_a_producer_that_needs_isal_is_remembered_and_ours_still_goes_through_libqpl(container: str) -> None:
    codec = QPL(container=container)
    theirs = zlib.compress(FAR, wbits=CONTAINERS[container])
    ours = codec.encode(FAR)
    reset_stats()
    assert codec.decode(theirs) == FAR
    assert stats()["software"]["decompressed"] == 1
    assert codec.decode(theirs) == FAR
    assert stats()["software"]["decompressed"] == 1
    assert stats()["inflate"] == {"not readable by libqpl": 1, "producer known to need it": 1}
    assert codec.decode(ours) == FAR
    assert stats()["software"]["decompressed"] >= 2
    assert sum(stats()["inflate"].values()) == 2


def test_nothing_is_learned_from_damage() -> None:
    codec = QPL()
    encoded = codec.encode(TEXT)
    for at in range(100, len(encoded), 5000):
        with pytest.raises(CorruptDataError):
            codec.decode(encoded[:at])
    reset_stats()
    assert codec.decode(encoded) == TEXT
    assert stats()["inflate"] == {}
    assert stats()["software"]["decompressed"] == -(-len(TEXT) // 65536)


@needs_libqpl
def test_a_codec_that_is_pickled_forgets_what_it_learned() -> None:
    codec = QPL()
    codec.decode(gzip.compress(FAR))
    assert codec._reader.needs_inflate
    assert not numcodecs.get_codec(codec.get_config())._reader.needs_inflate
    assert numcodecs_qpl.QPL.__reduce__(codec)[1] == (1, "gzip", 65536, "dynamic")
