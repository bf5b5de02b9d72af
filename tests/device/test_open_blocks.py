"""Open blocks of both engines in one stream, on the emulated IAA: exact bytes, and one verdict on damage everywhere."""

from __future__ import annotations

import ast
import zlib

import emulated_iaa
import pytest

PREAMBLE = """
import gzip, json, random, struct, sys, zlib
from collections import Counter
import numpy as np
from blocks import LAST_BLOCK, raw_deflate
from emulated_iaa import Device, Opcode
import numcodecs_qpl
from numcodecs_qpl import QPL, CorruptDataError, _core, set_path, set_threads, stats

STORED_NOTHING = bytes.fromhex("00 00 ff ff")

def pieces(rng, count):
    # Data of many kinds, each of its own size.
    for _ in range(count):
        size = 1 + int(20_000 * rng.random() ** 3)
        kind = rng.randrange(5)
        if kind == 0:
            yield bytes(rng.choices(b"abcd efgh", k=size))
        elif kind == 1:
            yield rng.randbytes(size)
        elif kind == 2:
            yield bytes(rng.choices(range(16), k=size))
        elif kind == 3:
            yield (rng.randbytes(rng.randrange(1, 99)) * size)[:size]
        else:
            yield bytes(i * i >> 6 & 255 for i in range(size))

def header_size(encoded):
    # Of a gzip member with FEXTRA alone.
    return 12 + int.from_bytes(encoded[10:12], "little")

def index_of(encoded):
    # The block size and the sizes of the blocks, and where each of them is.
    name, size = encoded[12:14], int.from_bytes(encoded[14:16], "little")
    assert name == b"QB" and size % 4 == 0 and header_size(encoded) == 16 + size
    block_size, *sizes = struct.unpack_from(f"<{size // 4}I", encoded, 16)
    ends = np.cumsum([header_size(encoded), *sizes]).tolist()
    return block_size, [encoded[a:b] for a, b in zip(ends, ends[1:])]

def verdict(read, *arguments):
    # Bytes, or None for an error of the data.
    try:
        return bytes(read(*arguments))
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile):
        return None

def ours(encoded, path, threads, size=None):
    set_path(path)
    set_threads(threads)
    if size is None:
        return verdict(QPL().decode, encoded)
    out = bytearray(size)
    return None if verdict(QPL().decode, encoded, out) is None else bytes(out)

def assert_same_verdict(encoded, what):
    expected = verdict(gzip.decompress, encoded)
    for path in ("software", "hardware", "auto"):
        for threads in (1, 2):
            assert ours(encoded, path, threads) == expected, (what, path, threads, expected)
            if expected is not None:
                assert ours(encoded, path, threads, len(expected)) == expected, (what, path, threads)
    return expected
"""


def run(script: str, *arguments: str, **settings: int | str | list[str]) -> str:
    return emulated_iaa.run(PREAMBLE + script, *arguments, **settings)


# ---- What the IAA engine makes of libqpl's streams --------------------------------------------------------------

JOBS = """
from reference import Job, Path

job = Job(Path.HARDWARE)
done = [job.compress(data, dynamic) for data in pieces(random.Random(5), 120) for dynamic in (False, True)]
assert not any(each.status for each in done)
print([(each.output.hex(), each.last_bits) for each in done])
"""
BLOCKS = """
set_path("hardware")
blocks = []
for data in pieces(random.Random(5), 120):
    for huffman in ("fixed", "dynamic"):
        encoded = QPL(huffman=huffman).encode(data)
        assert gzip.decompress(encoded) == data
        [block] = index_of(encoded)[1]
        blocks.append(block.hex())
assert not any(stats()["software"].values())
print(blocks)
"""


def opened(stream: bytes, last_bits: int) -> bytes:
    """An open block made of libqpl's final stream, written down a second time: bit by bit."""
    bits = [byte >> bit & 1 for byte in stream for bit in range(8)]
    if last_bits:
        assert not any(bits[len(bits) - 8 + last_bits :]), "bits after the end of a stream"
        del bits[len(bits) - 8 + last_bits :]
    assert bits[0] == 1, "BFINAL"
    bits[0] = 0
    bits += [0, 0, 0]  # the header of a stored block
    bits += [0] * (-len(bits) % 8)
    whole = bytes(sum(bit << i for i, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))
    return whole + bytes.fromhex("00 00 ff ff")


def stored(data: bytes) -> bytes:
    """`data` as one open stored block."""
    size = len(data).to_bytes(2, "little")
    return b"\0" + size + bytes(byte ^ 255 for byte in size) + data


def test_an_open_block_is_libqpls_stream_without_bfinal_and_with_an_empty_stored_block_at_each_bit_offset() -> None:
    jobs = [(bytes.fromhex(text), last_bits) for text, last_bits in ast.literal_eval(run(JOBS))]
    blocks = [bytes.fromhex(text) for text in ast.literal_eval(run(BLOCKS))]
    met = {True: set[int](), False: set[int]()}
    given_up = 0
    for number, ((stream, last_bits), block) in enumerate(zip(jobs, blocks, strict=True)):
        by_software = stored(zlib.decompress(stream, -15))
        if not stream[0] >> 1 & 3:
            # libqpl gives up with stored blocks of its own, and software writes others.
            assert block == by_software, number
            given_up += 1
        elif block != by_software:
            assert block == opened(stream, last_bits), number
            met[number % 2 == 1].add(last_bits)
        else:
            assert len(block) < len(opened(stream, last_bits)), number
    assert met == {True: set(range(8)), False: set(range(8))}
    assert given_up > 10


def test_a_byte_that_no_table_makes_smaller_is_stored_and_so_is_noise_of_several_stored_blocks() -> None:
    run("""
set_path("hardware")
rng = random.Random(1)
for size in (1, 2, 3, 65535, 65536, 131070, 131071, 200_000):
    data = rng.randbytes(size)
    for huffman in ("fixed", "dynamic"):
        for container in ("gzip", "zlib", "deflate"):
            encoded = QPL(container, 1 << 20, huffman).encode(data)
            wbits = {"gzip": 31, "zlib": 15, "deflate": -15}[container]
            reader = zlib.decompressobj(wbits)
            assert reader.decompress(encoded) == data and reader.eof and not reader.unused_data
            # At the most five bytes for each 65,535, and what surrounds them: header, index, closing block, trailer.
            assert len(encoded) <= size + 5 * -(-size // 65535) + 50
    assert ours(QPL(block_size=1 << 20).encode(data), "hardware", 1) == data
""")


# ---- Blocks of both engines in one stream -----------------------------------------------------------------------


@pytest.mark.parametrize("huffman", ["fixed", "dynamic"])
def test_streams_of_blocks_of_both_engines_are_read_by_each_of_them_and_by_gzip_and_zlib(huffman: str) -> None:
    run(
        f"""
rng = random.Random(2)
set_path("auto")
mixed = 0
for number in range(60):
    block_size = rng.choice((1, 37, 1000, 4096, 5000))
    data = b"".join(pieces(rng, 4))[: 60 * block_size]
    blocks = -(-len(data) // block_size)
    set_path("auto")
    set_threads(rng.choice((1, 2)))
    numcodecs_qpl.reset_stats()
    container = ("gzip", "gzip", "zlib", "deflate")[number % 4]
    encoded = QPL(container, block_size, "{huffman}").encode(data)
    seen = stats()
    by_device, by_software = (seen[path]["compressed"] for path in ("hardware", "software"))
    assert by_device + by_software == blocks
    mixed += by_device > 0 and by_software > 0
    reader = zlib.decompressobj({{"gzip": 31, "zlib": 15, "deflate": -15}}[container])
    assert reader.decompress(encoded) == data and reader.eof and not reader.unused_data
    if container != "gzip":
        assert bytes(QPL(container).decode(encoded)) == data
        continue
    assert assert_same_verdict(encoded, number) == data
    # Each block is whole by itself, and ends on a byte boundary.
    size, each = index_of(encoded)
    assert size == block_size and len(each) == blocks
    for at, block in zip(range(0, len(data), size), each):
        reader = zlib.decompressobj(-15)
        assert reader.decompress(block + LAST_BLOCK) == data[at : at + size]
        assert reader.eof and not reader.unused_data
assert mixed > 30, mixed
""",
        random=["compress:400000:3:status:16"],
    )


def test_a_device_that_refuses_blocks_at_random_while_reading_changes_nothing() -> None:
    run(
        """
rng = random.Random(3)
for number in range(60):
    data = b"".join(pieces(rng, 6))
    set_path("software")
    encoded = QPL(block_size=rng.choice((100, 1000, 5000))).encode(data)
    for path in ("auto", "hardware"):
        assert ours(encoded, path, 1) == data
seen = stats()
assert min(seen["hardware"]["decompressed"], seen["software"]["decompressed"]) > 100
assert set(seen["fallback"]) == {"QPL_STS_INVALID_BLOCK_TYPE", "QPL_STS_BAD_DIST_ERR"}
""",
        random=["decompress:200000:3:error:13", "decompress:200000:4:error:17"],
    )


# ---- One verdict ------------------------------------------------------------------------------------------------

SMALL = """
def incomplete(encoded):
    # zlib has one message for code lengths that are too many and for those that are not enough.
    try:
        gzip.decompress(encoded)
    except zlib.error as error:
        return str(error).endswith(("invalid literal/lengths set", "invalid distances set", "invalid code lengths set"))
    return False

rng = random.Random(7)
set_path(sys.argv[1])
text = bytes(rng.choices(b"abcd efgh", k=900))
data = text[:300] + rng.randbytes(150) + bytes(100) + text[300:]
encoded = QPL(block_size=150, huffman=sys.argv[2]).encode(data)
count = len(index_of(encoded)[1])
assert count == 8 and gzip.decompress(encoded) == data
"""

WRITERS = pytest.mark.parametrize(("path", "huffman"), [("software", "fixed"), ("hardware", "dynamic")])
"""Both engines and both kinds of tables. All engines read what each of these wrote."""


@WRITERS
def test_a_size_in_the_index_that_is_wrong_changes_nothing(path: str, huffman: str) -> None:
    out = run(
        SMALL
        + """
tried = 0
for word in range(count + 1):
    at = 16 + 4 * word
    right = int.from_bytes(encoded[at : at + 4], "little")
    for wrong in (right - 1, right + 1, 0, 1, right - 5, right + 5, 2 * right, 2**31, 2**32 - 1):
        lie = encoded[:at] + wrong.to_bytes(4, "little") + encoded[at + 4 :]
        assert assert_same_verdict(lie, (word, wrong)) == data
        tried += 1
# One block gives to its neighbour what the other takes: the sum is right.
for first in range(1, count):
    for shift in (-5, -2, -1, 1, 2, 5):
        lie = bytearray(encoded)
        for word, change in ((first, shift), (first + 1, -shift)):
            at = 16 + 4 * word
            lie[at : at + 4] = (int.from_bytes(lie[at : at + 4], "little") + change).to_bytes(4, "little")
        assert assert_same_verdict(bytes(lie), (first, shift)) == data
        tried += 1
print(tried)
""",
        path,
        huffman,
    )
    assert out == "123\n"


@WRITERS
def test_every_flipped_bit_after_the_header_has_the_verdict_of_gzip(path: str, huffman: str) -> None:
    run(
        SMALL
        + """
verdicts = Counter()
for at in range(header_size(encoded), len(encoded)):
    for bit in range(8):
        damaged = bytearray(encoded)
        damaged[at] ^= 1 << bit
        expected = verdict(gzip.decompress, bytes(damaged))
        assert expected in (None, data)
        for threads in (1, 2):
            assert ours(bytes(damaged), "software", threads) == expected, (at, bit, threads)
        by_device = ours(bytes(damaged), "hardware", 1)
        if by_device != expected:
            # An IAA takes a Huffman code that is not complete, which zlib and libdeflate refuse. The data is proven.
            assert by_device == data and expected is None and incomplete(bytes(damaged)), (at, bit)
            verdicts["incomplete"] += 1
        verdicts[expected == data] += 1
assert verdicts["incomplete"] < 30 and (sys.argv[2] == "dynamic" or not verdicts["incomplete"]), verdicts
# The bits before a stored block's length, and those after the end, are padding.
assert verdicts[True] > 8 and verdicts[False] > 1000, verdicts
""",
        path,
        huffman,
    )


@WRITERS
def test_a_bfinal_bit_in_the_middle_is_an_error_everywhere(path: str, huffman: str) -> None:
    run(
        SMALL
        + """
at = header_size(encoded)
for block in index_of(encoded)[1]:
    damaged = bytearray(encoded)
    assert not damaged[at] & 1
    damaged[at] |= 1
    assert assert_same_verdict(bytes(damaged), at) is None
    at += len(block)
assert encoded[at : at + 2] == LAST_BLOCK
""",
        path,
        huffman,
    )


@WRITERS
def test_a_chunk_that_is_cut_is_an_error_wherever_it_is_cut(path: str, huffman: str) -> None:
    run(
        SMALL
        + """
for cut in range(1, len(encoded)):
    for reader, threads in (("software", 1), ("software", 2), ("hardware", 1)):
        assert ours(encoded[:cut], reader, threads) is None, (cut, reader, threads)
        assert ours(encoded[:cut], reader, threads, len(data)) is None, (cut, reader, threads)
""",
        path,
        huffman,
    )


@WRITERS
def test_zeros_after_a_chunk_are_padding_and_all_else_is_an_error(path: str, huffman: str) -> None:
    run(
        SMALL
        + """
for tail in (b"\\0", bytes(8), bytes(100)):
    assert assert_same_verdict(encoded + tail, tail) == data
ends = (encoded[-8:], encoded[-10:], b"junk" + encoded[-8:])
for tail in (b"\\1", LAST_BLOCK, b"\\0\\1", *ends, encoded[:20], b"\\x1f"):
    assert assert_same_verdict(encoded + tail, tail) is None
assert assert_same_verdict(encoded + encoded, "twice") == 2 * data
assert assert_same_verdict(encoded + bytes(7) + encoded + bytes(3), "twice and padded") == 2 * data
""",
        path,
        huffman,
    )


# ---- Blocks that reach for what follows them --------------------------------------------------------------------

CRAFTED = """
import gzip, struct, zlib
from numcodecs_qpl import QPL, CorruptDataError, set_path, set_threads

def stored(data, final):
    return bytes([final]) + struct.pack("<HH", len(data), len(data) ^ 0xFFFF) + data

def chunk(block_size, blocks, data):
    index = struct.pack(f"<{1 + len(blocks)}I", block_size, *map(len, blocks))
    extra = b"QB" + struct.pack("<H", len(index)) + index
    header = b"\\x1f\\x8b\\x08\\x04" + bytes(5) + b"\\xff" + struct.pack("<H", len(extra)) + extra
    return header + b"".join(blocks) + b"\\x03\\x00" + struct.pack("<II", zlib.crc32(data), len(data))

def verdict(decode, encoded):
    try:
        return decode(encoded)
    except (CorruptDataError, EOFError, OSError, zlib.error):
        return None

A, B = b"A" * 20, b"B"
tails = [
    b"\\x03\\x00",
    bytes.fromhex("010100feffa5"),
    bytes.fromhex("000800f7ff") + bytes(8) + bytes.fromhex("010100feff00"),
    bytes.fromhex("000000ffff") * 8 + b"\\x03\\x00",
]
crafted = [chunk(20, [stored(A, 0) + stored(b"\\xa5", 1) + b"junkjunk"], A), chunk(20, [stored(A, 1)], A)]
for tail in tails:
    # The block claims bytes that are not its own, as many as an engine might put behind it.
    block = stored(A + tail, 1)[: -len(tail)]
    for seen in range(len(tail) + 1):
        data = A + tail[:seen]
        after = B * len(data)
        crafted.append(chunk(len(data), [block, stored(after, 0)], data + after))
refused = 0
for encoded in crafted:
    wanted = verdict(gzip.decompress, encoded)
    refused += wanted is None
    for path in ("software", "auto", "hardware"):
        for threads in (1, 2):
            set_path(path)
            set_threads(threads)
            got = verdict(QPL().decode, encoded)
            assert got == wanted, (path, threads, encoded.hex())
print("all refused" if refused == len(crafted) else refused)
"""


def test_a_block_that_claims_bytes_behind_it_is_damage_for_every_engine() -> None:
    assert emulated_iaa.run(CRAFTED) == "all refused\n"
