"""RAM blocks: pieces of guest memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.stream.wire import Offsets


class _Block:
    """Base of all RAM blocks: a name, and a whole number of pages."""

    def __init__(self, name: str, used_length: int, page_size: int) -> None:
        if used_length < page_size or used_length % page_size:
            raise ValueError(
                f"RAM block {name!r} has {used_length} bytes; a whole number of pages of {page_size} is needed"
            )
        self.name = name
        self.used_length = used_length
        self.page_size = page_size

    def check(self, offsets: Offsets) -> None:
        """Check that the block has a page at each of `offsets`, given in bytes.

        Raises
        ------
        MultiFDError
            For an offset beyond the last page. `wire.unpack` has checked that they are multiples of the page size.
        """
        beyond = offsets > np.uint64(self.used_length - self.page_size)
        if beyond.any():
            raise MultiFDError(
                f"{offsets[beyond][0]} is beyond the last page of RAM block {self.name!r}, at "
                f"{self.used_length - self.page_size}",
                field="offset",
            )

    def _spans(self, offsets: Offsets) -> list[tuple[int, int]]:
        # Yield the offset and size of each contiguous run of pages.
        if not len(offsets):
            return []
        breaks = np.flatnonzero(offsets[1:] - offsets[:-1] != self.page_size) + 1
        starts = [0, *breaks.tolist()]
        ends = [*breaks.tolist(), len(offsets)]
        return [
            (offset, (end - start) * self.page_size)
            for start, end, offset in zip(starts, ends, offsets[starts].tolist(), strict=True)
        ]

    def _numbers(self, offsets: Offsets) -> NDArray[np.int64]:
        return (offsets // np.uint64(self.page_size)).astype(np.int64)


class RAMBlock(_Block):
    """A named piece of guest memory.

    Parameters
    ----------
    name : str
        Its name in QEMU (idstr).
    used_length : int
        Bytes of the block that the guest uses: a whole number of pages, at least one.
    page_size : int
        Bytes in a page.
    memory : buffer of bytes
        At least `used_length` bytes: a NumPy array, an mmap, or another contiguous buffer. Receiving needs a writable
        one.

    Raises
    ------
    ValueError
        If `used_length` is not a whole number of pages, or `memory` is smaller.
    """

    def __init__(self, name: str, used_length: int, page_size: int, memory: Any) -> None:
        super().__init__(name, used_length, page_size)
        view = memoryview(memory).cast("B")
        if len(view) < used_length:
            raise ValueError(f"RAM block {name!r} has {used_length} bytes, but its memory {len(view)}")
        self.view = view[:used_length]
        self.pages: NDArray[np.uint8] = np.frombuffer(self.view, np.uint8).reshape(-1, page_size)
        """Shape (pages, page_size): the memory itself, not a copy."""

    def runs(self, offsets: Offsets) -> list[memoryview]:
        """Return the memory of the pages at `offsets`, in this order; contiguous pages are one piece."""
        return [self.view[offset : offset + size] for offset, size in self._spans(offsets)]

    def take(self, offsets: Offsets, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Copy the pages at `offsets` into `out`, shape (len(offsets), page_size), and return it."""
        return self.pages.take(self._numbers(offsets), axis=0, out=out)

    def put(self, offsets: Offsets, pages: NDArray[np.uint8]) -> None:
        """Write `pages`, shape (len(offsets), page_size), to `offsets`."""
        self.pages[self._numbers(offsets)] = pages

    def put_zeros(self, offsets: Offsets) -> None:
        """Make the pages at `offsets` all zeros."""
        self.pages[self._numbers(offsets)] = 0


class RAMFile(_Block):
    """A RAM block in a file, to which pages are written as they come.

    The file is never mapped. So its memory does not count as this process's, and a full disk is an OSError. With a
    mapped file, a full disk ends the process with SIGBUS.

    Parameters
    ----------
    name, used_length, page_size
        As for `RAMBlock`.
    file : binary file
        Empty and unbuffered. It becomes `used_length` bytes of zeros, a hole that takes no space on the disk.
    changed : callable
        ``changed(numbers)`` is called when the content of the pages with these numbers has changed.

    Attributes
    ----------
    received : ndarray of bool, shape (pages,)
        True for each page that has come, zero pages included.
    filled : ndarray of bool, shape (pages,)
        False for each page that is known to be zeros.

    Raises
    ------
    ValueError
        If `used_length` is not a whole number of pages.
    OSError
        If the file cannot have that length.
    """

    def __init__(
        self,
        name: str,
        used_length: int,
        page_size: int,
        file: IO[bytes],
        changed: Callable[[NDArray[np.int64]], None] = lambda numbers: None,
    ) -> None:
        super().__init__(name, used_length, page_size)
        file.truncate(used_length)
        self._file = file
        self._changed = changed
        self.received = np.zeros(used_length // page_size, np.bool_)
        self.filled = np.zeros(used_length // page_size, np.bool_)

    def put(self, offsets: Offsets, pages: memoryview) -> int:
        """Write `pages`, one after the other, to `offsets`; return the number of pages that had come before.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        for offset, size in self._spans(offsets):
            self._write(offset, pages[:size])
            pages = pages[size:]
        numbers = self._numbers(offsets)
        self.filled[numbers] = True
        return self._note_received(numbers, numbers)

    def put_zeros(self, offsets: Offsets) -> int:
        """Make the pages at `offsets` all zeros; return the number of pages that had come before.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        numbers = self._numbers(offsets)
        filled = self.filled[numbers]
        for offset, size in self._spans(offsets[filled]):
            self._write(offset, memoryview(bytes(size)))
        self.filled[numbers] = False
        return self._note_received(numbers, numbers[filled])

    def read(self, start: int, out: NDArray[np.uint8]) -> None:
        """Copy the pages from number `start` on into `out`, an array of zeros, up to the end of either.

        Pages that are known to be zeros are not read.

        Raises
        ------
        OSError
            If the file cannot be read.
        """
        numbers = np.flatnonzero(self.filled[start : start + len(out)])
        view = out.reshape(-1).data
        for at, size in self._spans(numbers.astype(np.uint64) * np.uint64(self.page_size)):
            if os.preadv(self._file.fileno(), [view[at : at + size]], start * self.page_size + at) < size:
                raise OSError(f"the file of RAM block {self.name!r} lacks bytes that were written")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, offset: int, data: memoryview) -> None:
        while data:  # a disk that is nearly full accepts a part
            size = os.pwrite(self._file.fileno(), data, offset)
            data, offset = data[size:], offset + size

    def _note_received(self, numbers: NDArray[np.int64], changed: NDArray[np.int64]) -> int:
        again = int(np.count_nonzero(self.received[numbers]))
        self.received[numbers] = True
        if len(changed):
            self._changed(changed)
        return again
