"""RAM blocks over several kinds of memory."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numcodecs_qpl.multifd import MultiFDError, RAMBlock
from numcodecs_qpl.multifd.ram import RAMFile
from numcodecs_qpl.multifd.stream import wire

PAGE = 4096
PAGES = 16
SIZE = PAGES * PAGE


def offsets(*pages: int) -> wire.Offsets:
    return np.array(pages, np.uint64) * np.uint64(PAGE)


def numbered() -> bytearray:
    """Pages that are full of their number."""
    return bytearray(np.repeat(np.arange(PAGES, dtype=np.uint8), PAGE).tobytes())


def content(block: RAMBlock) -> list[int]:
    """Return the byte that fills each page."""
    assert (block.pages == block.pages[:, :1]).all()
    return [int(page[0]) for page in block.pages]


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    path.write_bytes(numbered())
    with path.open("r+b") as file, mmap.mmap(file.fileno(), SIZE) as memory:
        yield memory


KINDS: dict[str, Callable[[], Any]] = {
    "bytearray": numbered,
    "memoryview": lambda: memoryview(numbered()),
    "array of bytes": lambda: np.frombuffer(numbered(), np.uint8),
    "array of pages": lambda: np.frombuffer(numbered(), np.uint8).reshape(PAGES, PAGE),
    "array of words": lambda: np.frombuffer(numbered(), np.uint64),
}


def use(block: RAMBlock) -> None:
    """Read and write in every way there is."""
    assert content(block) == list(range(PAGES))
    out = np.empty((3, PAGE), np.uint8)
    assert block.take(offsets(9, 2, 3), out) is out
    assert out[:, 0].tolist() == [9, 2, 3]
    block.put(offsets(1, 15), np.array([[91], [95]], np.uint8).repeat(PAGE, 1))
    block.put_zeros(offsets(4, 5))
    block.runs(offsets(7))[0][:] = b"\x63" * PAGE
    assert content(block) == [0, 91, 2, 3, 0, 0, 6, 99, 8, 9, 10, 11, 12, 13, 14, 95]


@pytest.mark.parametrize("kind", KINDS)
def test_any_writable_buffer_is_used_without_a_copy(kind: str) -> None:
    memory = KINDS[kind]()
    block = RAMBlock("r", SIZE, PAGE, memory)
    use(block)
    assert bytes(memory) == block.view.tobytes()


def test_a_mapped_file_is_written_to(tmp_path: Path) -> None:
    with mapped(tmp_path / "ram") as memory:
        block = RAMBlock("r", SIZE, PAGE, memory)
        use(block)
        expected = block.view.tobytes()
        block.view.release()
        del block
    assert (tmp_path / "ram").read_bytes() == expected


WRITES: dict[str, Callable[[RAMBlock], object]] = {
    "put": lambda block: block.put(offsets(1), np.zeros((1, PAGE), np.uint8)),
    "put_zeros": lambda block: block.put_zeros(offsets(1)),
    "runs": lambda block: block.runs(offsets(1))[0].__setitem__(0, 0),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_read_only_buffer_is_sent_from_and_never_written_to(write: str) -> None:
    memory = bytes(numbered())
    block = RAMBlock("r", SIZE, PAGE, memory)
    assert block.take(offsets(3), np.empty((1, PAGE), np.uint8))[0, 0] == 3
    assert block.runs(offsets(3)) == [memory[3 * PAGE : 4 * PAGE]]
    with pytest.raises((ValueError, TypeError), match="read-only"):
        WRITES[write](block)
    assert memory == numbered()


def test_memory_that_does_not_lie_together_is_refused() -> None:
    with pytest.raises((TypeError, ValueError), match="contiguous"):
        RAMBlock("r", SIZE // 2, PAGE, np.zeros(SIZE, np.uint8)[::2])


def test_memory_behind_the_used_length_is_never_touched() -> None:
    memory = numbered()
    block = RAMBlock("r", 2 * PAGE, PAGE, memory)
    assert (len(block.view), block.pages.shape) == (2 * PAGE, (2, PAGE))
    block.pages[:] = 7
    assert memory[2 * PAGE :] == numbered()[2 * PAGE :]
    with pytest.raises(IndexError):
        block.put(offsets(2), np.zeros((1, PAGE), np.uint8))


@pytest.mark.parametrize("used_length", [0, 1, PAGE - 1, PAGE + 1, SIZE - 1])
def test_a_length_that_is_no_whole_number_of_pages_is_refused(used_length: int) -> None:
    with pytest.raises(ValueError, match=f"'r' has {used_length} bytes; a whole number of pages of 4096 is needed"):
        RAMBlock("r", used_length, PAGE, numbered())


@pytest.mark.parametrize("used_length", [SIZE + PAGE, 1 << 40])
def test_memory_that_is_smaller_than_the_block_is_refused(used_length: int) -> None:
    with pytest.raises(ValueError, match=f"'r' has {used_length} bytes, but its memory {SIZE}"):
        RAMBlock("r", used_length, PAGE, numbered())


def test_a_block_of_one_page_has_room_at_0_only() -> None:
    block = RAMBlock("r", PAGE, PAGE, numbered())
    block.check(offsets(0))
    with pytest.raises(MultiFDError):
        block.check(offsets(1))


@pytest.mark.parametrize("pages", [(), (0,), (15,), (15, 0, 7)])
def test_offsets_within_the_block_pass(pages: tuple[int, ...]) -> None:
    RAMBlock("r", SIZE, PAGE, numbered()).check(offsets(*pages))


@pytest.mark.parametrize("beyond", [SIZE - PAGE + 1, SIZE - 1, SIZE, SIZE + PAGE, 2**63, 2**64 - PAGE])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_offset_beyond_the_block_is_an_error(beyond: int, place: int) -> None:
    given_offsets = [0, PAGE]
    given_offsets.insert(place, beyond)
    with pytest.raises(MultiFDError, match=f"^offset: {beyond} is beyond the last page of RAM block 'r'") as caught:
        RAMBlock("r", SIZE, PAGE, numbered()).check(np.array(given_offsets, np.uint64))
    assert caught.value.field == "offset"


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ((), []),
        ((3,), [(3, 1)]),
        ((3, 4, 5), [(3, 3)]),
        ((5, 4, 3), [(5, 1), (4, 1), (3, 1)]),
        ((0, 1, 3, 4, 9, 2), [(0, 2), (3, 2), (9, 1), (2, 1)]),
        (tuple(range(PAGES)), [(0, PAGES)]),
    ],
)
def test_neighbours_are_one_run(pages: tuple[int, ...], expected: list[tuple[int, int]]) -> None:
    runs = RAMBlock("r", SIZE, PAGE, numbered()).runs(offsets(*pages))
    assert [(run[0], len(run) // PAGE) for run in runs] == expected


@given(st.lists(st.integers(0, PAGES - 1), unique=True))
def test_runs_are_the_pages_in_their_order(pages: list[int]) -> None:
    block = RAMBlock("r", SIZE, PAGE, numbered())
    joined = b"".join(block.runs(offsets(*pages)))
    assert joined == b"".join(bytes([page]) * PAGE for page in pages)
    assert joined == block.take(offsets(*pages), np.empty((len(pages), PAGE), np.uint8)).tobytes()


# ---- RAM blocks in files ----------------------------------------------------------------------------------------


class InFile:
    """A RAM block in a file of its own, and the pages that it said have changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changed: list[list[int]] = []
        file = path.open("x+b", buffering=0)
        self.block = RAMFile("r", SIZE, PAGE, file, lambda numbers: self.changed.append(numbers.tolist()))

    def put(self, *pages: int, byte: int) -> int:
        return self.block.put(offsets(*pages), memoryview(bytes([byte]) * (len(pages) * PAGE)))

    def content(self) -> list[int]:
        """Return the byte that fills each page."""
        data = self.path.read_bytes()
        assert all(data[at : at + PAGE] == data[at : at + 1] * PAGE for at in range(0, SIZE, PAGE))
        return list(data[::PAGE])


@pytest.fixture
def in_file(tmp_path: Path) -> Iterator[InFile]:
    made = InFile(tmp_path / "ram")
    yield made
    made.block.close()


def test_pages_come_to_their_places_in_the_file(in_file: InFile) -> None:
    in_file.block.put(offsets(3, 4, 9, 2), memoryview(b"".join(bytes([page]) * PAGE for page in (3, 4, 9, 2))))
    in_file.put(4, byte=7)
    in_file.block.put_zeros(offsets(9))
    assert in_file.content() == [0, 0, 2, 3, 7, *[0] * 11]


def test_pages_that_come_again_are_counted(in_file: InFile) -> None:
    assert in_file.put(1, 2, byte=1) == 0
    assert in_file.block.put_zeros(offsets(2, 3)) == 1
    assert in_file.put(1, 2, 3, 4, byte=2) == 3
    assert np.flatnonzero(in_file.block.received).tolist() == [1, 2, 3, 4]


def test_a_page_of_zeros_takes_no_room_unless_it_was_something_else(in_file: InFile) -> None:
    in_file.put(5, byte=1)
    room = in_file.path.stat().st_blocks
    in_file.block.put_zeros(offsets(5, 6))
    assert in_file.content() == [0] * PAGES
    assert in_file.path.stat().st_blocks == room
    assert not in_file.block.filled.any()


def test_only_pages_whose_content_is_another_are_told_of(in_file: InFile) -> None:
    in_file.put(1, 2, byte=1)
    in_file.block.put_zeros(offsets(2, 3))
    in_file.block.put_zeros(offsets(2, 3))
    in_file.put(2, byte=1)
    assert in_file.changed == [[1, 2], [2], [2]]


@pytest.mark.parametrize("start", [0, 4, 8, 12])
def test_pages_are_read_and_those_of_zeros_are_not(
    in_file: InFile, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    in_file.put(3, 4, 9, 15, byte=7)
    in_file.block.put_zeros(offsets(4, 5))
    read: list[int] = []
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        size = real(fd, buffers, offset)
        read.extend(range(offset // PAGE, (offset + size) // PAGE))
        return size

    monkeypatch.setattr(os, "preadv", preadv)
    out = np.zeros((6, PAGE), np.uint8)
    in_file.block.read(start, out)
    assert (out == out[:, :1]).all()
    assert out[:, 0].tolist() == (in_file.content() + [0] * 6)[start : start + 6]
    assert read == [page for page in (3, 9, 15) if start <= page < start + 6]


def test_a_write_that_takes_a_part_is_gone_on_with(in_file: InFile, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:1000], offset))
    in_file.put(1, 2, 7, byte=5)
    assert in_file.content() == [0, 5, 5, 0, 0, 0, 0, 5, *[0] * 8]


def test_a_file_that_was_cut_short_is_an_error(in_file: InFile) -> None:
    in_file.put(1, 2, byte=5)
    os.truncate(in_file.path, 2 * PAGE + 7)
    with pytest.raises(OSError, match="the file of RAM block 'r' lacks bytes that were written"):
        in_file.block.read(0, np.zeros((4, PAGE), np.uint8))


def test_a_file_has_a_whole_number_of_pages(tmp_path: Path) -> None:
    with (tmp_path / "ram").open("x+b", buffering=0) as file, pytest.raises(ValueError, match="a whole number of pag"):
        RAMFile("r", PAGE + 1, PAGE, file)
