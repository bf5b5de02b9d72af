"""RAM blocks over several kinds of memory."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numcodecs_qpl.multifd import MultiFDError, RAMBlock, wire

PAGE = 4096
PAGES = 16
SIZE = PAGES * PAGE


def offsets(*pages: int) -> wire.Offsets:
    return np.array(pages, np.uint64) * np.uint64(PAGE)


def numbered() -> bytearray:
    """Pages that are full of their number."""
    return bytearray(np.repeat(np.arange(PAGES, dtype=np.uint8), PAGE).tobytes())


def content(block: RAMBlock) -> list[int]:
    """What each page is full of."""
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
    assert (len(block.view), block.pages.shape, block.received.shape) == (2 * PAGE, (2, PAGE), (2,))
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


def test_pages_that_come_again_are_counted() -> None:
    block = RAMBlock("r", SIZE, PAGE, numbered())
    assert block.note_received(offsets(1, 2)) == 0
    assert block.note_received(offsets(2, 3), zero=True) == 1
    assert block.note_received(offsets(1, 2, 3, 4)) == 3
    assert np.flatnonzero(block.received).tolist() == [1, 2, 3, 4]


def test_a_page_of_a_zeroed_block_is_not_written_before_it_was_something_else() -> None:
    memory = np.zeros(SIZE, np.uint8)
    block = RAMBlock("r", SIZE, PAGE, memory, zeroed=True)
    memory.flags.writeable = False
    block.put_zeros(offsets(1, 2))
    assert block.note_received(offsets(1, 2), zero=True) == 0


def test_a_page_of_a_zeroed_block_that_was_something_becomes_zeros_again() -> None:
    block = RAMBlock("r", SIZE, PAGE, bytearray(SIZE), zeroed=True)
    block.put(offsets(3), np.full((1, PAGE), 7, np.uint8))
    block.note_received(offsets(3))
    block.put_zeros(offsets(3, 4))
    assert content(block) == [0] * PAGES
