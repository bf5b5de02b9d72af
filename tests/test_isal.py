"""ISA-L as the engine, which every build has in it; and both engines on each other's streams, where there are both."""

from __future__ import annotations

import re
import subprocess
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree
from typing import Any

import emulated_iaa
import numpy as np
import pytest
from engine import needs_libqpl
from matches import blocks, farthest
from test_multifd_methods import PAGE, PAGES, Link, Target, block_of, numbers, some_memory

from numcodecs_qpl import CorruptDataError, _core, get_threads, set_threads
from numcodecs_qpl._core import _isal, _isal_batch
from numcodecs_qpl.multifd import qpl

RNG = np.random.default_rng(3)
TEXT = bytes(RNG.choice(np.frombuffer(b"abcd efgh", np.uint8), 50_000))
NOISE = RNG.bytes(200_000)
DATA = {
    "text": TEXT,
    "noise": NOISE[:70_000],
    "zeros": bytes(70_000),
    "one byte": b"x",
    "few bytes": b"hello hello hello hello",
    "steps": np.cumsum(RNG.integers(-5, 6, 15_000)).astype("<i4").tobytes(),
    # What repeats just within the window, just outside of it, and within that of other compressors.
    **{f"every {period}": NOISE[:period] * (4 if period < 20_000 else 3) for period in (3000, 4096, 4097, 5000, 32768)},
    # Words from up to 32 KiB ago, in no order.
    "far words": b"".join(NOISE[start : start + 32] for start in RNG.integers(0, 32_000, 1500).tolist()),
}
KINDS = [(1, True), (3, True), (1, False), (3, False)]
"""Level, and whether the Huffman tables are dynamic."""


def compress(engine: Any, data: bytes, level: int, dynamic: bool) -> bytes:
    """One block, whose CRC-32 is checked."""
    out = engine.BytesWriter(_core.compress_bound(len(data)))
    _, lengths, crcs = engine.compress_blocks(data, out, max(1, len(data)), level=level, dynamic=dynamic)
    assert int(crcs[0]) == zlib.crc32(data)
    stream: bytes = out.finish(int(lengths[0]))
    return stream


def inflate(engine: Any, stream: bytes, room: int) -> tuple[int, int, bytes, int]:
    """Status, bytes read, what was written, and its CRC-32; no byte after the room is touched."""
    out = bytearray(b"\xaa" * (room + 100))
    view = memoryview(out)[: room + engine.OUTPUT_SLACK]
    status, read, written, crc = engine.decompress_blocks(
        stream, np.zeros(1, np.int64), np.array([len(stream)]), view, np.array([room])
    )
    assert out[len(view) :] == b"\xaa" * (len(out) - len(view))
    return status[0], read[0], bytes(out[: written[0]]), crc[0]


# ---- What it writes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "dynamic"), KINDS)
@pytest.mark.parametrize("name", DATA)
def test_no_match_reaches_farther_back_than_an_iaa_can(name: str, level: int, dynamic: bool) -> None:
    stream = compress(_isal_batch, DATA[name], level, dynamic)
    assert zlib.decompress(stream, -15) == DATA[name]
    assert farthest(stream) <= 4096
    if name == "every 3000":
        assert farthest(stream) == 3000, "what repeats within the window is found"
    if not dynamic:
        assert {kind for kind, _ in blocks(stream)} <= {0, 1}


@pytest.mark.parametrize(("level", "dynamic"), KINDS)
def test_pages_have_no_match_that_an_iaa_cannot_follow_either(level: int, dynamic: bool) -> None:
    page_size = 16384
    pages = NOISE[: page_size // 2] * 8
    lengths, payload = compress_pages(_isal_batch, pages, page_size, ["fixed", "dynamic"][dynamic])
    for end, length in zip(np.cumsum(lengths), lengths, strict=True):
        assert length == page_size or farthest(payload[end - length : end]) <= 4096


@needs_libqpl
@pytest.mark.parametrize("dynamic", [True, False])
def test_it_writes_no_more_than_libqpl_at_level_1_and_one_per_cent(dynamic: bool) -> None:
    for name, data in DATA.items():
        size = len(compress(_isal_batch, data, 1, dynamic))
        assert size <= 1.01 * len(compress(_core, data, 1, dynamic)) + 16, name


@pytest.mark.parametrize(("level", "dynamic"), KINDS)
def test_noise_of_every_awkward_size_fits_into_the_bound(level: int, dynamic: bool) -> None:
    for size in [*range(40), *(k * 65535 + d for k in (1, 2, 3) for d in (-1, 0, 1, 300))]:
        stream = compress(_isal_batch, NOISE[:size], level, dynamic)
        assert len(stream) <= _core.compress_bound(size)
        assert zlib.decompress(stream, -15) == NOISE[:size]


def compress_pages(engine: Any, pages: bytes, page_size: int, huffman: str) -> tuple[np.ndarray[Any, Any], bytes]:
    lengths, payload = np.empty(len(pages) // page_size, np.uint32), bytearray(len(pages))
    size = engine.compress_pages_into(pages, lengths, payload, page_size, huffman)
    return lengths, bytes(payload[:size])


@pytest.mark.parametrize("huffman", ["fixed", "dynamic"])
def test_a_page_is_kept_as_it_is_only_where_it_does_not_get_smaller(huffman: str) -> None:
    # Pages that lose from many bytes to one, and to none.
    seen = set()
    for noise in range(3700, 4097):
        page = (NOISE[:noise] + bytes(4096))[:4096]
        (length,), payload = compress_pages(_isal_batch, page, 4096, huffman)
        stream = _isal.deflate(memoryview(page), _core.HUFFMAN[huffman])
        assert payload == (stream if len(stream) < 4096 else page)
        assert length == len(payload)
        assert _isal_batch.decompress_pages(payload, [length]) == page
        seen.add(int(length))
    assert {4094, 4095, 4096} <= seen


# ---- What it reads ----------------------------------------------------------------------------------------------


def foreign(data: bytes) -> bytes:
    """A stream with all of deflate's window."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(data) + compressor.flush()


def test_it_reads_all_of_deflate_and_says_how_much_of_the_input_it_used() -> None:
    for data in DATA.values():
        stream = foreign(data)
        for junk in (b"", b"\0", b"junk" * 1000):
            assert inflate(_isal_batch, stream + junk, len(data)) == (0, len(stream), data, zlib.crc32(data))


def test_a_truncated_stream_is_never_taken_for_a_whole_one() -> None:
    for data in (TEXT[:500], bytes(5000), b"x", NOISE[:300]):
        stream = foreign(data)
        for cut in range(len(stream)):
            status, _, written, _ = inflate(_isal_batch, stream[:cut], len(data))
            assert status
            assert data.startswith(written)
            with pytest.raises(CorruptDataError, match=r"cannot be inflated|1 to 2147483647 can be"):
                _isal_batch.decompress_stream(stream[:cut], 10, 10_000)


def test_no_more_is_written_than_there_is_room_for() -> None:
    for data in (TEXT, NOISE[:70_000], bytes(70_000)):
        for room in (1, len(data) // 2, len(data) - 1):
            status, _, written, _ = inflate(_isal_batch, foreign(data), room)
            assert status
            assert written == data[:room]
        assert inflate(_isal_batch, foreign(data), len(data) + 1)[2] == data


@pytest.mark.parametrize("damage", [b"\x07", b"\x01\x01\x00\xff\xff\x00", b"\x03\x02\x00", b"\xff" * 9])
def test_damage_is_told_in_words_and_has_no_number_of_libqpls(damage: bytes) -> None:
    assert inflate(_isal_batch, damage, 4096)[0]
    with pytest.raises(CorruptDataError, match=r"the stream of .* bytes cannot be inflated: .+") as of_stream:
        _isal_batch.decompress_stream(damage, 10, 4096)
    with pytest.raises(CorruptDataError, match=r"page 0 of 1 cannot be inflated: .+") as of_page:
        _isal_batch.decompress_pages(damage, [len(damage)])
    for error in (of_stream.value, of_page.value):
        assert (error.status, error.name) == (None, None)
        assert "libqpl" not in str(error)


def test_a_page_that_is_whole_but_for_its_end_is_an_error() -> None:
    page = TEXT[:4096]
    stream = compress(_isal_batch, page, 1, True)
    with pytest.raises(CorruptDataError, match="page 0 of 1 cannot be inflated: it is truncated"):
        _isal_batch.decompress_pages(stream[:-1], [len(stream) - 1])


def test_a_stream_that_is_too_long_or_too_short_is_told_with_the_limit() -> None:
    stream = foreign(bytes(4097))
    with pytest.raises(CorruptDataError, match="page 0 of 1 inflates to more than 4096 bytes"):
        _isal_batch.decompress_pages(stream, [len(stream)])
    for size in (0, 4095):
        stream = foreign(bytes(size))
        with pytest.raises(CorruptDataError, match=f"page 0 of 1 inflates to {size} bytes, not 4096"):
            _isal_batch.decompress_pages(stream, [len(stream)])
    stream = foreign(bytes(4097))
    with pytest.raises(CorruptDataError, match="bytes inflates to more than 4096 bytes"):
        _isal_batch.decompress_stream(stream, 10, 4096)


def test_no_thread_keeps_a_view_of_the_callers_memory() -> None:
    before = get_threads()
    set_threads(3)
    try:
        for _ in range(300):
            src, out = bytearray(TEXT), _isal_batch.BytesWriter(2 * len(TEXT))
            _, lengths, _ = _isal_batch.compress_blocks(src, out, 20_000, level=1, dynamic=True)
            src.clear()  # a BufferError where a view is left
            payload = bytearray(out.finish(int(lengths[0])))
            target = bytearray(20_000 + 10)
            zeros = np.zeros(3, np.int64)
            sizes = np.array([20_000, 5, 5])
            _isal_batch.decompress_blocks(payload, zeros, np.full(3, len(payload)), target, sizes)
            assert target[:20_000] == TEXT[:20_000]
            for buffer in (payload, target):
                buffer.clear()
    finally:
        set_threads(before)


def test_threads_change_nothing_of_what_it_writes_and_reads() -> None:
    before = get_threads()
    results = []
    try:
        for count in (1, 2, 7):
            set_threads(count)
            lengths, payload = compress_pages(_isal_batch, TEXT[: 12 * 4096], 4096, "dynamic")
            assert _isal_batch.decompress_pages(payload, lengths) == TEXT[: 12 * 4096]
            out = _isal_batch.BytesWriter(2 * len(TEXT))
            offsets, sizes, _ = _isal_batch.compress_blocks(TEXT, out, 3000, level=1, dynamic=True, head=9, tail=3)
            assert offsets[0] == 9
            assert (offsets[1:] == offsets[:-1] + sizes[:-1] + 12).all()
            results.append((payload, offsets.tolist(), sizes.tolist(), bytes(out)))
    finally:
        set_threads(before)
    assert results[0] == results[1] == results[2]


# ---- Both engines -----------------------------------------------------------------------------------------------


@needs_libqpl
@pytest.mark.parametrize(("level", "dynamic"), KINDS)
def test_each_engine_reads_the_others_blocks(level: int, dynamic: bool) -> None:
    for data in DATA.values():
        for writer, reader in ((_isal_batch, _core), (_core, _isal_batch)):
            status, _, written, crc = inflate(reader, compress(writer, data, level, dynamic), len(data))
            assert (status, written) == (0, data)
            assert crc in (zlib.crc32(data), -1)


@needs_libqpl
@pytest.mark.parametrize("huffman", ["fixed", "dynamic"])
def test_each_engine_reads_the_others_pages(huffman: str) -> None:
    pages = TEXT[: 8 * 4096] + NOISE[: 4 * 4096] + bytes(2 * 4096)
    for writer, reader in ((_isal_batch, _core), (_core, _isal_batch)):
        lengths, payload = compress_pages(writer, pages, 4096, huffman)
        assert (lengths == 4096).sum() == 4
        assert reader.decompress_pages(payload, lengths) == pages


@needs_libqpl
@pytest.mark.parametrize("huffman", ["fixed", "dynamic"])
@pytest.mark.parametrize("by", [("isal", "libqpl"), ("libqpl", "isal")], ids=lambda by: "-to-".join(by))
def test_a_host_without_libqpl_migrates_to_one_with_it_and_back(
    by: tuple[str, str], huffman: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines: dict[str, Any] = {"isal": _isal_batch, "libqpl": _core}
    monkeypatch.setattr(qpl, "compress_pages_into", engines[by[0]].compress_pages_into)
    monkeypatch.setattr(qpl, "decompress_pages", engines[by[1]].decompress_pages)
    memory, target, link = some_memory(), Target(), Link("qpl", huffman)
    for start in range(0, PAGES, 100):
        normal = numbers(*range(start, start + 100))
        link.receive(target.block, link.prepare(block_of(memory), normal), normal)
    assert target.page(0) == memory[:PAGE]
    assert target.block.view == memory


@needs_libqpl
def test_an_iaa_reads_what_isal_writes() -> None:
    """On the emulated IAA, whose history is 4 KiB as an IAA's is."""
    emulated_iaa.run("""
import numpy as np
import test_isal
from numcodecs_qpl import _core, set_path, stats
from numcodecs_qpl._core import _isal_batch

set_path("hardware")
seen = 0
for data in test_isal.DATA.values():
    for level, dynamic in test_isal.KINDS:
        set_path("software")  # ISA-L is asked as in a build without libqpl, where there is no other path
        stream = test_isal.compress(_isal_batch, data, level, dynamic)
        set_path("hardware")
        status, _, written, _ = test_isal.inflate(_core, stream, len(data))
        assert (status, written) == (0, data)
        seen += 1
assert stats()["hardware"]["decompressed"] == seen
pages = test_isal.TEXT[: 8 * 4096] + test_isal.NOISE[: 4 * 4096]
for huffman in ("fixed", "dynamic"):
    set_path("software")
    lengths, payload = test_isal.compress_pages(_isal_batch, pages, 4096, huffman)
    set_path("hardware")
    assert _core.decompress_pages(payload, lengths) == pages
""")


# ---- Which of them it is ----------------------------------------------------------------------------------------


def test_the_engine_is_the_one_that_was_built() -> None:
    assert (_core.ENGINE == "libqpl") == (find_spec("numcodecs_qpl._core._jobs") is not None)


@needs_libqpl
@pytest.mark.parametrize("content", [b"no extension", None], ids=["damaged", "missing"])
def test_an_extension_that_does_not_load_is_an_error_and_no_reason_to_take_isal(
    tmp_path: Path, content: bytes | None
) -> None:
    package = tmp_path / "numcodecs_qpl"
    copytree(Path(_core.__file__).parents[1], package)
    (extension,) = (package / "_core").glob("_jobs.*.so")
    extension.unlink()
    if content is not None:
        extension.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import numcodecs_qpl"],
        capture_output=True,
        text=True,
    )
    assert done.returncode
    assert re.search(r"^(ImportError|ModuleNotFoundError): .*_jobs", done.stderr, re.MULTILINE)
