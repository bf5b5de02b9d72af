"""The core: settings, errors, batches and pages."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from blocks import raw_deflate
from engine import HAS_LIBQPL, needs_libqpl, without_libqpl
from programs import run_python

import numcodecs_qpl
from numcodecs_qpl import QPL, CorruptDataError, QplError, _core, compress_pages, decompress_pages
from numcodecs_qpl._core import Memory
from numcodecs_qpl._core import blocks as core_blocks
from numcodecs_qpl._core.types import Huffman

RNG = np.random.default_rng(2)
TEXT = bytes(RNG.choice(np.frombuffer(b"abcd efgh", np.uint8), 40 * 4096))
NOISE = RNG.bytes(8 * 4096)
PAGES = TEXT[: 3 * 4096] + NOISE + bytes(5 * 4096) + TEXT[3 * 4096 :]


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Leave the process's settings as they were."""
    path, count = numcodecs_qpl.get_path(), numcodecs_qpl.get_threads()
    numcodecs_qpl.reset_stats()
    yield
    numcodecs_qpl.set_path(path)
    numcodecs_qpl.set_threads(count)


# ---- Path -------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_device() -> None:
    if _core.hardware_init_status() == 0:
        pytest.skip("this machine has an IAA that can be used; the test is about one that has none")


def test_auto_is_software_without_a_device(no_device: None) -> None:
    numcodecs_qpl.set_path("auto")
    assert _core.path_in_force() == "software"


@needs_libqpl
@pytest.mark.usefixtures("no_device")
def test_hardware_without_a_device_says_the_status_and_what_to_do_and_changes_nothing() -> None:
    numcodecs_qpl.set_path("software")
    with pytest.raises(QplError, match=r"cannot be used: .+ \(libqpl status 50[0-3], QPL_STS_INIT_") as caught:
        numcodecs_qpl.set_path("hardware")
    status = _core.hardware_init_status()
    assert status is not None
    assert (caught.value.status, caught.value.name) == (status, _core.status_name(status))
    assert numcodecs_qpl.get_path() == "software"


@without_libqpl
def test_hardware_without_libqpl_says_that_this_build_has_none_and_changes_nothing() -> None:
    numcodecs_qpl.set_path("software")
    with pytest.raises(QplError, match=r"cannot be used: this build has no libqpl .* For an IAA, build it") as caught:
        numcodecs_qpl.set_path("hardware")
    assert (caught.value.status, caught.value.name) == (None, None)
    assert numcodecs_qpl.get_path() == "software"


def test_an_unknown_path_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="path is 'fast'; it must be one of auto, hardware, software"):
        numcodecs_qpl.set_path("fast")  # type: ignore[arg-type]


def test_the_path_comes_from_the_environment() -> None:
    done = run_python("import numcodecs_qpl as q; print(q.get_path())", NUMCODECS_QPL_PATH="software")
    assert (done.stdout, done.stderr) == ("software\n", "")


def test_the_environment_counts_as_it_is_when_a_setting_is_first_asked_for() -> None:
    code = """
import os, numcodecs_qpl as q
os.environ.update(NUMCODECS_QPL_PATH="software", NUMCODECS_QPL_THREADS="3", NUMCODECS_QPL_NUMA="any")
print(q.get_path(), q.get_threads(), q.get_numa())
os.environ.update(NUMCODECS_QPL_PATH="hardware", NUMCODECS_QPL_THREADS="4", NUMCODECS_QPL_NUMA="node")
print(q.get_path(), q.get_threads(), q.get_numa())
"""
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("software 3 any\nsoftware 3 any\n", "")


@pytest.mark.usefixtures("no_device")
def test_hardware_from_the_environment_fails_at_the_first_block_and_not_at_import() -> None:
    code = """
import numcodecs_qpl as q
print("imported")
for call in (lambda: q.QPL().encode(b"x"), lambda: q.compress_pages(bytes(4096))):
    try:
        call()
    except q.QplError as error:
        print(error)
"""
    done = run_python(code, NUMCODECS_QPL_PATH="hardware")
    lines = done.stdout.splitlines()
    assert lines[0] == "imported"
    assert len(lines) == 3
    assert all("the hardware path cannot be used" in line for line in lines[1:])


# In the order of check_settings: a process keeps the words that it has found right, and reads a wrong one again.
WRONG_WORDS = [
    ("NUMCODECS_QPL_THREADS", "many"),
    ("NUMCODECS_QPL_THREADS", "0"),
    ("NUMCODECS_QPL_THREADS", "-1"),
    ("NUMCODECS_QPL_THREADS", "1.5"),
    ("NUMCODECS_QPL_THREADS", "4097"),
    ("NUMCODECS_QPL_THREADS", "\u00b2"),
    ("NUMCODECS_QPL_THREADS", "9" * 5000),
    ("NUMCODECS_QPL_NUMA", "here"),
    ("NUMCODECS_QPL_NUMA", "-1"),
    ("NUMCODECS_QPL_NUMA", "2147483648"),
    ("NUMCODECS_QPL_NUMA", "\u00b2"),
    ("NUMCODECS_QPL_NUMA", "9" * 5000),
    ("NUMCODECS_QPL_PATH", "fast"),
    ("NUMCODECS_QPL_PATH", " "),
]


def test_a_wrong_word_in_the_environment_is_named_with_its_variable() -> None:
    code = """
import json, os, sys
import numcodecs_qpl as q
for variable, word in json.loads(sys.argv[1]):
    os.environ[variable] = word
    try:
        q._core.check_settings()
    except ValueError as error:
        print(type(error) is ValueError, error)
    del os.environ[variable]
"""
    said = run_python(code, json.dumps(WRONG_WORDS)).stdout.splitlines()
    for (variable, word), line in zip(WRONG_WORDS, said, strict=True):
        assert line.startswith(f"True {variable} is ")
        assert word[:30] in line
        assert "; it must be " in line


@pytest.mark.parametrize(("variable", "word"), [("NUMCODECS_QPL_PATH", "fast"), ("NUMCODECS_QPL_THREADS", "many")])
def test_a_wrong_word_in_the_environment_fails_the_first_block(variable: str, word: str) -> None:
    code = "import numcodecs_qpl as q; print('imported'); q.QPL().encode(b'x')"
    done = run_python(code, check=False, **{variable: word})
    assert done.stdout == "imported\n"
    assert f"ValueError: {variable} is '{word}'; it must be" in done.stderr


def test_a_variable_that_is_set_but_empty_counts_as_unset() -> None:
    code = "import numcodecs_qpl as q; q._core.check_settings(); print(q.get_path(), q.get_threads(), q.get_numa())"
    done = run_python(code, NUMCODECS_QPL_PATH="", NUMCODECS_QPL_THREADS="", NUMCODECS_QPL_NUMA="")
    assert (done.stdout, done.stderr) == ("auto 1 socket\n", "")


@pytest.mark.usefixtures("no_device")
def test_check_settings_fails_where_the_path_asks_for_hardware_that_is_not_there() -> None:
    _core.check_settings()
    code = "import numcodecs_qpl as q; q._core.check_settings()"
    done = run_python(code, check=False, NUMCODECS_QPL_PATH="hardware")
    assert "QplError: the hardware path cannot be used" in done.stderr


# ---- Threads ----------------------------------------------------------------------------------------------------


def test_threads_come_from_the_environment_and_are_1_without() -> None:
    code = "import numcodecs_qpl as q; print(q.get_threads())"
    assert run_python(code, NUMCODECS_QPL_THREADS="3").stdout == "3\n"
    os.environ.pop("NUMCODECS_QPL_THREADS", None)
    assert run_python(code).stdout == "1\n"


def blocked_signals(thread: int) -> int:
    """Mask of the signals that a thread of this process blocks."""
    status = Path(f"/proc/self/task/{thread}/status").read_text()
    return int(status.partition("SigBlk:")[2].split()[0], 16)


def test_as_many_threads_as_are_set_share_a_batch_and_the_helpers_block_signals() -> None:
    """A signal is for the thread that waits for it, which it has to interrupt."""
    numcodecs_qpl.set_threads(3)
    noise = RNG.bytes(48 << 20)
    caller = threading.Thread(target=lambda: compress_pages(noise, huffman="dynamic"))
    tasks = Path("/proc/self/task")
    before = {task.name for task in tasks.iterdir()}
    masks: defaultdict[str, Counter[int]] = defaultdict(Counter)
    caller.start()
    while caller.is_alive():
        for thread in {task.name for task in tasks.iterdir()} - before - {str(caller.native_id)}:
            with contextlib.suppress(OSError):
                masks[thread][blocked_signals(int(thread))] += 1
    assert len(masks) == 2
    for counts in masks.values():
        ((mask, _),) = counts.most_common(1)  # Linux shows an empty mask for a thread that ends
        assert all(mask >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM))


def test_a_batch_comes_out_the_same_with_any_number_of_threads() -> None:
    results = []
    for count in (1, 2, 7):
        numcodecs_qpl.set_threads(count)
        lengths, payload = compress_pages(PAGES, huffman="dynamic")
        results.append((lengths.tolist(), payload, compress(PAGES, 10_000)[0]))
    assert results[0] == results[1] == results[2]


# ---- Errors and counts ------------------------------------------------------------------------------------------


def test_the_errors_are_what_callers_catch() -> None:
    assert issubclass(QplError, RuntimeError)
    assert issubclass(CorruptDataError, QplError)
    assert issubclass(CorruptDataError, ValueError)
    error = QplError("it failed", 5, "QPL_STS_QUEUES_ARE_BUSY_ERR")
    assert str(error) == "it failed (libqpl status 5, QPL_STS_QUEUES_ARE_BUSY_ERR)"
    assert (error.status, error.name) == (5, "QPL_STS_QUEUES_ARE_BUSY_ERR")
    assert str(CorruptDataError("no magic")) == "no magic"


def test_stats_count_the_blocks_of_each_path() -> None:
    numcodecs_qpl.set_path("software")
    lengths, payload = compress_pages(TEXT)
    decompress_pages(payload, lengths)
    counted = numcodecs_qpl.stats()
    assert counted["software"] == {"compressed": 40, "decompressed": 40}
    assert counted["hardware"] == {"compressed": 0, "decompressed": 0}
    assert counted["fallback"] == {}
    numcodecs_qpl.reset_stats()
    assert numcodecs_qpl.stats()["software"] == {"compressed": 0, "decompressed": 0}


# ---- Blocks -----------------------------------------------------------------------------------------------------

CHECKSUMS: dict[str, Callable[[bytes], int]] = {"": lambda data: 0, "crc32": zlib.crc32, "adler32": zlib.adler32}
CLOSE = b"\x03\x00"


class Stream(NamedTuple):
    """Result of `compress_blocks`: the stream, the places of its blocks, and the checksum."""

    stream: bytes
    offsets: list[int]
    lengths: list[int]
    checksum: int


def compress(data: bytes, block_size: int, *, dynamic: bool = True, checksum: str = "crc32") -> Stream:
    written, value = core_blocks.compress_blocks(Memory(data, "data"), block_size, dynamic, checksum, 0, True, 0)
    count = -(-len(data) // block_size)
    lengths = np.frombuffer(written[: 4 * count], "<u4").tolist()
    return Stream(written[4 * count :], starts(lengths), lengths, value)


def starts(lengths: list[int]) -> list[int]:
    """Offsets of pieces that lie one after the other."""
    return [sum(lengths[:number]) for number in range(len(lengths))]


def decompress(
    stream: Stream, sizes: list[int], dst: Any, *, final: bool = False, checksum: str = "crc32"
) -> list[int] | None:
    places = list(zip(stream.offsets, stream.lengths, sizes, strict=True))
    return core_blocks.decompress_blocks(
        Memory(stream.stream, "stream"), places, Memory(dst, "dst", True), final, checksum
    )


def block_sizes(size: int, block_size: int) -> list[int]:
    return [min(block_size, size - at) for at in range(0, size, block_size)]


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("block_size", [1, 7, 4096, 65536, 50_000, 10**6])
def test_each_block_can_be_inflated_apart_and_all_of_them_are_one_stream(block_size: int, dynamic: bool) -> None:
    data = PAGES if block_size > 100 else PAGES[12_000:12_600]
    stream = compress(data, block_size, dynamic=dynamic)
    assert zlib.decompress(stream.stream, -12) == data
    assert stream.checksum == zlib.crc32(data)
    for at, length, start in zip(stream.offsets, stream.lengths, range(0, len(data), block_size), strict=True):
        block = stream.stream[at : at + length]
        is_stored = not block[0] & 6
        assert is_stored or block.endswith(b"\0\0\xff\xff")
        assert zlib.decompress(block + CLOSE, -12) == data[start : start + block_size]
    assert stream.stream[sum(stream.lengths) :] == CLOSE
    out = bytearray(len(data))
    assert decompress(stream, block_sizes(len(data), block_size), out) == [zlib.crc32(data)]
    assert out == data


def test_the_head_and_the_index_are_before_the_stream_and_the_tail_is_after_it() -> None:
    text, plain = Memory(TEXT, "text"), compress(TEXT, 50_000)
    written, crc = core_blocks.compress_blocks(text, 50_000, True, "crc32", 6, True, 3)
    assert written[6:-3] == np.array(plain.lengths, "<u4").tobytes() + plain.stream
    assert crc == zlib.crc32(TEXT)
    written, none = core_blocks.compress_blocks(text, 50_000, True, "", 6, False, 0)
    assert (written[6:], none) == (plain.stream, 0)


def test_no_byte_is_no_block() -> None:
    for checksum, of_nothing in (("", 0), ("crc32", 0), ("adler32", 1)):
        written, value = core_blocks.compress_blocks(Memory(b"", "nothing"), 1, True, checksum, 4, True, 8)
        assert (written[4:-8], value) == (CLOSE, of_nothing)


@pytest.mark.parametrize("checksum", ["crc32", "adler32"])
def test_the_checksums_of_blocks_are_joined_to_those_of_zlib(checksum: str) -> None:
    rng = np.random.default_rng(11)
    extremes = [b"\xff" * 70_000, bytes(70_000), b"\xff" * 5552 * 3, b"\0\xff" * 40_000]
    for number in range(120):
        size = int(rng.integers(1, 200_000))
        data = extremes[number] if number < len(extremes) else rng.bytes(size) if number % 2 else TEXT[:size] + b"\xff"
        block_size = int(rng.integers(max(1, len(data) // 400), len(data) + 2))
        numcodecs_qpl.set_threads(1 + number % 3)
        stream = compress(data, block_size, checksum=checksum, dynamic=number % 5 != 0)
        assert stream.checksum == CHECKSUMS[checksum](data)
        sizes = block_sizes(len(data), block_size)
        assert decompress(stream, sizes, bytearray(len(data)), checksum=checksum) == [CHECKSUMS[checksum](data)]


@pytest.mark.parametrize("checksum", CHECKSUMS)
@pytest.mark.parametrize("count", [1, 3])
def test_final_blocks_are_inflated_with_a_checksum_each(checksum: str, count: int) -> None:
    numcodecs_qpl.set_threads(count)
    rng = np.random.default_rng(12)
    parts = [rng.bytes(100), TEXT[:70_000], (rng.bytes(20_000) * 3), b"x", bytes(9000)]
    streams = [raw_deflate(part) for part in parts]
    lengths = [len(stream) for stream in streams]
    all_of_them = Stream(b"".join(streams), starts(lengths), lengths, 0)
    out = bytearray(sum(map(len, parts)))
    checksums = decompress(all_of_them, [len(part) for part in parts], out, final=True, checksum=checksum)
    assert checksums == [CHECKSUMS[checksum](part) for part in parts]
    assert out == b"".join(parts)


@pytest.mark.parametrize("size", [0, -1, 2**31])
def test_a_block_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"block_size is {size}; it must be 1 to 2147483647"):
        compress(TEXT, size)


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize(
    "places",
    [
        [],
        [(-1, 5, 50)],
        [(0, 11, 50)],
        [(10, 0, 50)],
        [(11, 0, 50)],
        [(5, 6, 50)],
        [(0, -1, 50)],
        [(0, 0, 50)],
        [(2**62, 2**62, 50)],
        [(1, 2**63 - 1, 50)],
        [(0, 10, 51)],
        [(0, 10, 49)],
        [(0, 10, 0)],
        [(0, 10, -1)],
        [(0, 10, 2**31)],
        [(0, 10, 30), (0, 10, 30)],
        [(0, 10, 50), (0, 10, 0)],
        [(0, 10, 2**62), (0, 10, 2**62)],
    ],
)
def test_blocks_outside_of_the_buffers_are_not_inflated(places: list[tuple[int, int, int]], final: bool) -> None:
    guard = bytearray(b"\xaa" * 50)
    target = Memory(guard, "guard", True)
    assert core_blocks.decompress_blocks(Memory(bytes(10), "bytes"), places, target, final, "crc32") is None
    assert guard == b"\xaa" * 50


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_that_are_not_as_long_as_their_numbers_say_are_not_inflated(threads: int) -> None:
    numcodecs_qpl.set_threads(threads)
    stream = compress(TEXT, 50_000)
    sizes = block_sizes(len(TEXT), 50_000)
    for change in (-1, 1, 4):
        for which in range(3):
            lengths = list(stream.lengths)
            lengths[which] += change
            assert decompress(stream._replace(lengths=lengths), sizes, bytearray(len(TEXT))) is None
            other = list(sizes)
            other[which] += change
            other[which + 1] -= change
            assert decompress(stream, other, bytearray(len(TEXT))) is None
    for damaged in (stream.stream[:-100] + CLOSE * 50, b"\xff" + stream.stream[1:]):
        assert decompress(stream._replace(stream=damaged), sizes, bytearray(len(TEXT))) is None


def test_an_open_block_is_not_a_final_one_nor_the_other_way_round() -> None:
    stream = compress(TEXT, len(TEXT))
    assert decompress(stream, [len(TEXT)], bytearray(len(TEXT)), final=True) is None
    closed = raw_deflate(TEXT)
    whole = Stream(closed, [0], [len(closed)], 0)
    assert decompress(whole, [len(TEXT)], bytearray(len(TEXT)), final=True) == [zlib.crc32(TEXT)]
    assert decompress(whole, [len(TEXT)], bytearray(len(TEXT))) is None


def test_a_block_has_no_history_of_the_one_before_it() -> None:
    compressor = zlib.compressobj(9, wbits=-12)
    first = compressor.compress(NOISE[:3000]) + compressor.flush(zlib.Z_SYNC_FLUSH)
    second = compressor.compress(NOISE[:3000]) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(second) < 100
    stream = Stream(first + second, [0, len(first)], [len(first), len(second)], 0)
    assert decompress(stream, [3000, 3000], bytearray(6000)) is None


# ---- Streams ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guess", [0, 1, 160_000, 2**40, 2**62])
def test_a_stream_is_inflated_whatever_size_it_was_taken_for(guess: int) -> None:
    codec = QPL("deflate")
    for data in (TEXT, NOISE, b"", b"x", NOISE[:20_000] * 3):
        codec._reader.size_hint = guess
        assert codec.decode(raw_deflate(data)) == data
        assert codec._reader.size_hint == len(data)


def test_a_stream_that_has_no_room_is_told_from_one_that_is_damaged() -> None:
    codec, stream = QPL("deflate"), raw_deflate(bytes(100_000))
    out = bytearray(b"\xaa" * 100_000)
    assert codec.decode(stream, out) == bytes(100_000)
    for small in (bytearray(99_999), bytearray()):
        with pytest.raises(ValueError, match=f"^out has {len(small)} bytes, but the data inflates to more$"):
            codec.decode(stream, small)
    for damaged in (b"", b"\xff", stream[:-1], b"\xff" + stream[1:]):
        for out_or_none in (bytearray(200_000), None):
            with pytest.raises(CorruptDataError, match=r"^the deflate stream is (damaged|truncated)"):
                codec.decode(damaged, out_or_none)


@pytest.mark.parametrize("level", [-1, 10])
def test_a_level_out_of_range_is_refused(level: int) -> None:
    with pytest.raises(ValueError, match=f"level is {level}; it must be 0 to 9"):
        core_blocks.compress_stream(Memory(TEXT, "text"), level, "crc32", 0, 0)


def test_the_head_and_the_tail_are_around_a_stream_that_is_compressed_at_a_level() -> None:
    for data in (TEXT, b""):
        written, crc = core_blocks.compress_stream(Memory(data, "data"), 6, "crc32", 3, 5)
        assert zlib.decompress(written[3:-5], -15) == data
        assert crc == zlib.crc32(data)


def test_the_versions_of_the_software_engine_are_those_of_its_libraries() -> None:
    versions = _core.software_versions()
    assert list(versions) == ["ISA-L", "libdeflate"]
    assert all(re.fullmatch(r"\d+\.\d+(\.\d+)?", version) for version in versions.values())
    assert all(f"{name} {version}" in _core.engine_versions() for name, version in versions.items())
    assert ("libqpl" in _core.engine_versions()) == HAS_LIBQPL


# ---- Pages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("huffman", ["fixed", "dynamic"])
def test_each_page_is_a_raw_deflate_stream_or_itself(huffman: Huffman) -> None:
    lengths, payload = compress_pages(PAGES, huffman=huffman)
    assert lengths.dtype == np.uint32
    assert lengths.sum() == len(payload)
    ends = np.cumsum(lengths)
    kept = 0
    for number, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        stored = payload[end - length : end]
        page = PAGES[number * 4096 : (number + 1) * 4096]
        kept += length == 4096
        assert (stored if length == 4096 else zlib.decompress(stored, -15)) == page
    assert kept == len(NOISE) // 4096
    assert decompress_pages(payload, lengths) == PAGES


def test_dynamic_tables_make_smaller_pages_than_fixed_ones() -> None:
    assert len(compress_pages(TEXT, huffman="dynamic")[1]) < len(compress_pages(TEXT)[1])


def test_pages_are_inflated_into_the_callers_memory() -> None:
    lengths, payload = compress_pages(PAGES)
    guard = np.full(len(PAGES) + 200, 0xAA, np.uint8)
    out = guard[100:-100]
    assert decompress_pages(payload, lengths, out=out) is out
    assert out.tobytes() == PAGES
    assert (guard[:100] == 0xAA).all()
    assert (guard[-100:] == 0xAA).all()


def test_pages_are_compressed_into_the_callers_memory_and_no_byte_further() -> None:
    guard = np.full(len(PAGES) + 200, 0xAA, np.uint8)
    lengths = np.empty(len(PAGES) // 4096, np.uint32)
    size = _core.compress_pages_into(PAGES, lengths, guard[100:-100])
    assert size == lengths.sum() < len(PAGES)
    assert decompress_pages(guard[100 : 100 + size], lengths) == PAGES
    assert (guard[:100] == 0xAA).all()
    assert (guard[-100:] == 0xAA).all()


@pytest.mark.parametrize(
    ("lengths", "payload", "message"),
    [
        (np.empty(39, np.uint32), bytearray(len(TEXT)), "lengths has room for 39 pages; there are 40"),
        (np.empty(40, np.uint32), bytearray(len(TEXT) - 1), f"room for {len(TEXT) - 1} bytes; up to {len(TEXT)} may"),
        (np.empty(40, np.uint32), bytes(len(TEXT)), "payload is read-only"),
    ],
)
def test_memory_that_cannot_take_the_pages_is_refused(
    lengths: np.ndarray[tuple[int], np.dtype[np.uint32]], payload: bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _core.compress_pages_into(TEXT, lengths, payload)


def test_no_pages_are_no_bytes() -> None:
    lengths, payload = compress_pages(b"")
    assert lengths.shape == (0,)
    assert payload == b""
    assert decompress_pages(payload, lengths) == b""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, p: (n, p[:-1]), "lengths add up to"),
        (lambda n, p: (n, p + b"x"), "lengths add up to"),
        (lambda n, p: ([0, *n[1:]], p), "page 0 has length 0; it must be 1 to 4096"),
        (lambda n, p: ([*n[:-1], 4097], p), r"page \d+ has length 4097"),
        (lambda n, p: ([*n[:-1], -5], p), r"page \d+ has length -5"),
        (lambda n, p: ([n[0] - 1, n[1] + 1, *n[2:]], p), "page [01] of .* (inflates to|cannot be inflated)"),
        (lambda n, p: (n, b"\xff" * len(p)), "page 0 of .* cannot be inflated"),
    ],
)
def test_a_lie_in_a_payload_is_an_error_that_names_the_page(change: object, message: str) -> None:
    lengths, payload = compress_pages(TEXT)
    with pytest.raises(CorruptDataError, match=message):
        decompress_pages(*reversed(change(lengths.tolist(), payload)))  # type: ignore[operator]


def test_lengths_may_be_a_memoryview_of_uint32() -> None:
    lengths, payload = compress_pages(PAGES)
    assert decompress_pages(payload, lengths.data) == PAGES
    assert decompress_pages(b"", lengths.data[:0]) == b""
    spread = np.repeat(lengths, 2).data[::2]
    assert decompress_pages(payload, spread) == PAGES


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (0, "page 1 has length 0; it must be 1 to 4096"),
        (4097, "page 1 has length 4097; it must be 1 to 4096"),
        (2**32 - 1, "page 1 has length 4294967295; it must be 1 to 4096"),
        (1, "the lengths add up to"),
    ],
)
def test_a_wrong_length_in_a_memoryview_is_an_error(number: int, message: str) -> None:
    lengths, payload = compress_pages(TEXT)
    lengths[1] = number
    with pytest.raises(CorruptDataError, match=message):
        decompress_pages(payload, lengths.data)


def test_a_page_stream_that_holds_more_or_less_than_a_page_is_an_error() -> None:
    for size, message in ((0, "0 bytes, not 4096"), (4095, "4095 bytes, not 4096"), (4097, "more than 4096 bytes")):
        stream = zlib.compress(bytes(size), wbits=-12)
        with pytest.raises(CorruptDataError, match=f"page 0 of 1 inflates to {message}"):
            decompress_pages(stream, [len(stream)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"buffer": bytes(4095)}, "buffer has 4095 bytes; it must have whole pages of 4096 bytes"),
        ({"buffer": bytes(4096), "huffman": "canned"}, "huffman is 'canned'; it must be one of fixed, dynamic"),
        ({"buffer": bytes(4096), "page_size": 1}, "page_size is 1; it must be 2"),
        ({"buffer": np.zeros((64, 128), np.uint8)[:, ::2]}, "contiguous"),
    ],
)
def test_bad_arguments_for_pages_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compress_pages(**arguments)  # type: ignore[arg-type]


def test_an_out_for_pages_that_cannot_be_used_is_refused_untouched() -> None:
    lengths, payload = compress_pages(TEXT)
    for size in (len(TEXT) - 1, len(TEXT) + 1):
        out = bytearray(size)
        with pytest.raises(ValueError, match=f"out has {size} bytes; 40 pages of 4096 have {len(TEXT)}"):
            decompress_pages(payload, lengths, out=out)
        assert out == bytes(size)
    with pytest.raises(ValueError, match="out is read-only"):
        decompress_pages(payload, lengths, out=bytes(len(TEXT)))
