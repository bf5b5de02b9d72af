"""The core: settings, errors, batches and pages."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from engine import needs_libqpl, without_libqpl

import numcodecs_qpl
from numcodecs_qpl import CorruptDataError, QplError, _core, compress_pages, decompress_pages
from numcodecs_qpl._core import threads

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


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


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
    with pytest.raises(QplError, match=r"cannot be used: this build has no libqpl .* an IAA needs one with") as caught:
        numcodecs_qpl.set_path("hardware")
    assert (caught.value.status, caught.value.name) == (None, None)
    assert numcodecs_qpl.get_path() == "software"


def test_an_unknown_path_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="path is 'fast'; it must be one of auto, hardware, software"):
        numcodecs_qpl.set_path("fast")


@pytest.mark.parametrize("path", ["auto", "software"])
def test_the_path_comes_from_the_environment(path: str) -> None:
    done = run_python("import numcodecs_qpl as q; print(q.get_path())", NUMCODECS_QPL_PATH=path)
    assert (done.stdout.strip(), done.stderr) == (path, "")


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


def test_a_wrong_word_in_the_environment_is_named_with_its_variable() -> None:
    for variable, word in (("NUMCODECS_QPL_PATH", "fast"), ("NUMCODECS_QPL_THREADS", "many")):
        done = run_python("import numcodecs_qpl as q; print('imported'); q.QPL().encode(b'x')", **{variable: word})
        assert done.stdout == "imported\n"
        assert f"ValueError: {variable} is '{word}'; it must be" in done.stderr


# ---- Threads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True, None])
def test_threads_must_be_a_whole_number_of_at_least_1(count: object) -> None:
    with pytest.raises(ValueError, match=r"threads is .*; it must be a whole number of at least 1"):
        numcodecs_qpl.set_threads(count)  # type: ignore[arg-type]


def test_threads_come_from_the_environment_and_are_1_without() -> None:
    code = "import numcodecs_qpl as q; print(q.get_threads())"
    assert run_python(code, NUMCODECS_QPL_THREADS="3").stdout == "3\n"
    os.environ.pop("NUMCODECS_QPL_THREADS", None)
    assert run_python(code).stdout == "1\n"


def test_a_spread_runs_in_this_thread_and_in_others_at_once() -> None:
    seen = set()
    together = threading.Barrier(3, timeout=20)

    def work() -> None:
        together.wait()
        seen.add(threading.get_ident())

    threads.spread(work, 3)
    assert len(seen) == 3
    assert threading.get_ident() in seen


def test_a_spread_waits_for_its_helpers_and_passes_on_their_error() -> None:
    here = threading.get_ident()
    together = threading.Barrier(2, timeout=20)

    def work() -> None:
        together.wait()
        if threading.get_ident() != here:
            raise OSError("from a helper")

    with pytest.raises(OSError, match="from a helper"):
        threads.spread(work, 2)


def test_a_batch_comes_out_the_same_with_any_number_of_threads() -> None:
    results = []
    for count in (1, 2, 7):
        numcodecs_qpl.set_threads(count)
        lengths, payload = compress_pages(PAGES, huffman="dynamic")
        writer = _core.BytesWriter(2 * len(PAGES))
        offsets, block_lengths, crcs = _core.compress_blocks(
            PAGES, writer, 10_000, level=1, dynamic=True, head=9, tail=3
        )
        view = bytes(writer)
        streams = [view[at : at + n] for at, n in zip(offsets, block_lengths, strict=True)]
        results.append((lengths.tolist(), payload, offsets.tolist(), crcs.tolist(), streams))
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


@needs_libqpl
def test_a_job_is_made_once_and_not_for_each_call() -> None:
    compress_pages(TEXT)
    numcodecs_qpl.reset_stats()
    for _ in range(50):
        lengths, payload = compress_pages(TEXT)
        decompress_pages(payload, lengths)
    assert numcodecs_qpl.stats()["pool"]["made"] == 0


@needs_libqpl
def test_no_more_jobs_stay_in_the_pool_than_there_are_processors() -> None:
    together = threading.Barrier(16, timeout=20)

    def work() -> None:
        together.wait()
        for _ in range(20):
            compress_pages(TEXT)

    workers = [threading.Thread(target=work) for _ in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert 1 <= numcodecs_qpl.stats()["pool"]["idle"] <= (os.cpu_count() or 1)


# ---- BytesWriter ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("capacity", "size"), [(0, 0), (1, 0), (10, 10), (10, 3), (100_000, 5), (1 << 20, 1 << 19)])
def test_a_writer_becomes_the_bytes_that_were_written(capacity: int, size: int) -> None:
    writer = _core.BytesWriter(capacity)
    assert len(writer) == capacity
    with memoryview(writer) as view:
        view[:] = bytes(i % 251 for i in range(capacity))
    assert writer.finish(size) == bytes(i % 251 for i in range(size))


def test_a_writer_grows_and_keeps_what_it_has() -> None:
    writer = _core.BytesWriter(0)
    for capacity in (3, 5000, 1 << 20):
        writer.resize(capacity)
    with memoryview(writer) as view:
        view[:4] = b"kept"
    writer.resize(1 << 22)
    assert writer.finish(4) == b"kept"


def test_a_writer_with_a_view_held_neither_moves_nor_finishes() -> None:
    writer = _core.BytesWriter(10)
    with memoryview(writer):
        for call in (writer.resize, writer.finish):
            with pytest.raises(BufferError, match="a view of the bytes is still held"):
                call(5)
    writer.finish(5)


def test_a_finished_writer_gives_no_more_access_to_its_bytes() -> None:
    writer = _core.BytesWriter(10)
    writer.finish(10)
    if _core.ENGINE == "libqpl":
        with pytest.raises(ValueError, match="handed over"):
            memoryview(writer)
    else:
        assert len(writer) == 0
    with pytest.raises(ValueError, match="handed over"):
        writer.finish(10)


def test_the_one_empty_bytes_object_stays_empty() -> None:
    _core.BytesWriter(0).resize(100)
    assert len(b"") == 0
    assert _core.BytesWriter(5).finish(0) == b""


# ---- Blocks -----------------------------------------------------------------------------------------------------


def test_blocks_leave_room_for_what_stands_around_them() -> None:
    writer = _core.BytesWriter(2 * len(TEXT))
    offsets, lengths, crcs = _core.compress_blocks(TEXT, writer, 50_000, level=1, dynamic=True, head=20, tail=8)
    assert offsets[0] == 20
    assert (offsets[1:] == offsets[:-1] + lengths[:-1] + 28).all()
    view = bytes(writer)
    for number, (at, length, crc) in enumerate(zip(offsets, lengths, crcs, strict=True)):
        block = TEXT[number * 50_000 : (number + 1) * 50_000]
        assert zlib.decompress(view[at : at + length], -15) == block
        assert zlib.crc32(block) == crc


def test_an_output_that_may_be_too_small_is_refused_before_anything_is_written() -> None:
    out = bytearray(b"\xaa" * 100)
    with pytest.raises(ValueError, match=r"the output buffer has 100 bytes; up to \d+ may be needed"):
        _core.compress_blocks(TEXT, out, 4096, level=1, dynamic=True)
    assert out == b"\xaa" * 100


@pytest.mark.parametrize("size", [0, -1, 2**31])
def test_a_block_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="block_size is"):
        _core.compress_blocks(TEXT, bytearray(len(TEXT)), size, level=1, dynamic=True)


@pytest.mark.parametrize(
    ("offsets", "lengths", "sizes"),
    [
        ([-1], [5], [5]),
        ([0], [11], [5]),
        ([11], [0], [5]),
        ([5], [6], [5]),
        ([0], [-1], [5]),
        ([0], [10], [51]),
        ([0], [10], [-1]),
        ([0, 0], [10, 10], [30, 30]),
        ([0, 0], [10], [30]),
    ],
)
def test_streams_outside_of_the_buffers_are_refused(offsets: list[int], lengths: list[int], sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"stream .* (not within|does not fit)|of one length"):
        _core.decompress_blocks(bytes(10), np.array(offsets), np.array(lengths), bytearray(50), np.array(sizes))


def test_no_stream_and_no_room_are_never_ok() -> None:
    for stream, room in ((b"\x03\x00", 0), (b"\x4b\x04\x00", 0), (b"", 5)):
        status, *_ = _core.decompress_blocks(
            stream, np.zeros(1, np.int64), np.array([len(stream)]), bytearray(room), np.array([room])
        )
        assert status[0] != 0
        if _core.ENGINE == "libqpl":
            assert _core.status_name(status[0]) == "QPL_STS_SIZE_ERR"


def test_a_stream_longer_than_its_limit_is_an_error_that_names_it() -> None:
    stream = zlib.compress(bytes(100_000), wbits=-12)
    with pytest.raises(CorruptDataError, match="inflates to more than 99999 bytes"):
        _core.decompress_stream(stream, 10, 99_999)
    assert _core.decompress_stream(stream, 10, 100_000) == bytes(100_000)


# ---- Pages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("huffman", ["fixed", "dynamic"])
def test_each_page_is_a_raw_deflate_stream_or_itself(huffman: str) -> None:
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
        (np.empty(40, np.uint32), bytes(len(TEXT)), "the output is read-only"),
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


def test_a_page_stream_that_holds_more_or_less_than_a_page_is_an_error() -> None:
    for size, message in ((0, "0 bytes, not 4096"), (4095, "4095 bytes, not 4096"), (4097, "more than 4096 bytes")):
        stream = zlib.compress(bytes(size), wbits=-12)
        with pytest.raises(CorruptDataError, match=f"page 0 of 1 inflates to {message}"):
            decompress_pages(stream, [len(stream)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"buffer": bytes(4095)}, "4095 bytes are no whole number of pages of 4096 bytes"),
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
    with pytest.raises(ValueError, match="the output is read-only"):
        decompress_pages(payload, lengths, out=bytes(len(TEXT)))
