"""RAM blocks: the guest memory that pages come from and go to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.wire import Offsets


class RAMBlock:
    """A piece of guest memory that has a name.

    Parameters
    ----------
    name : str
        QEMU's idstr of it.
    used_length : int
        Bytes of the block that the guest uses: a whole number of pages, at least one.
    page_size : int
        Bytes in a page.
    memory : buffer of bytes
        At least `used_length` bytes: a NumPy array, an mmap, anything with a contiguous buffer. Receiving needs a
        writable one.
    zeroed : bool
        `memory` is known to be all zeros. Zero pages that were never anything else are then not written, so that a
        sparse file stays sparse.
    reserve : callable, optional
        ``reserve(offset, size)`` makes sure that there is room for these bytes of `memory`, before they are first
        written.

    Raises
    ------
    ValueError
        If the lengths do not fit each other.
    """

    def __init__(
        self,
        name: str,
        used_length: int,
        page_size: int,
        memory: Any,
        *,
        zeroed: bool = False,
        reserve: Callable[[int, int], None] | None = None,
    ) -> None:
        view = memoryview(memory).cast("B")
        if used_length < page_size or used_length % page_size:
            raise ValueError(
                f"RAM block {name!r} has {used_length} bytes; a whole number of pages of {page_size} is needed"
            )
        if len(view) < used_length:
            raise ValueError(f"RAM block {name!r} has {used_length} bytes, but its memory {len(view)}")
        self.name = name
        self.used_length = used_length
        self.page_size = page_size
        self.view = view[:used_length]
        self.pages: NDArray[np.uint8] = np.frombuffer(self.view, np.uint8).reshape(-1, page_size)
        """Shape (pages, page_size): the memory itself, not a copy."""
        self.received = np.zeros(len(self.pages), np.bool_)
        """Shape (pages,): which pages have come, zero ones included."""
        self._clean = np.full(len(self.pages), zeroed)
        self._reserve = reserve

    def check(self, offsets: Offsets) -> None:
        """Make sure that there is a page at each of `offsets`, given in bytes.

        Raises
        ------
        MultiFDError
            For an offset beyond the last page. That they are multiples of the page size `wire.unpack` has seen to.
        """
        beyond = offsets > np.uint64(self.used_length - self.page_size)
        if beyond.any():
            raise MultiFDError(
                f"{offsets[beyond][0]} is beyond the last page of RAM block {self.name!r}, at "
                f"{self.used_length - self.page_size}",
                field="offset",
            )

    def runs(self, offsets: Offsets) -> list[memoryview]:
        """The memory of the pages at `offsets`, in their order; neighbours are one piece."""
        return [self.view[offset : offset + size] for offset, size in self._spans(offsets)]

    def reserve(self, offsets: Offsets) -> None:
        """Make sure that there is room for the pages at `offsets`, before bytes are put there.

        Raises
        ------
        MultiFDError
            If there is none.
        """
        if self._reserve is not None:
            for offset, size in self._spans(offsets[self._clean[self._numbers(offsets)]]):
                self._reserve(offset, size)

    def _spans(self, offsets: Offsets) -> list[tuple[int, int]]:
        # Offset and size of each run of neighbours.
        if not len(offsets):
            return []
        breaks = np.flatnonzero(offsets[1:] - offsets[:-1] != self.page_size) + 1
        starts = [0, *breaks.tolist()]
        ends = [*breaks.tolist(), len(offsets)]
        return [
            (offset, (end - start) * self.page_size)
            for start, end, offset in zip(starts, ends, offsets[starts].tolist(), strict=True)
        ]

    def take(self, offsets: Offsets, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Copy the pages at `offsets` into `out`, shape (len(offsets), page_size), and return it."""
        return self.pages.take(self._numbers(offsets), axis=0, out=out)

    def put(self, offsets: Offsets, pages: NDArray[np.uint8]) -> None:
        """Write `pages`, shape (len(offsets), page_size), to `offsets`."""
        self.pages[self._numbers(offsets)] = pages

    def put_zeros(self, offsets: Offsets) -> None:
        """Make the pages at `offsets` all zeros."""
        numbers = self._numbers(offsets)
        self.pages[numbers[~self._clean[numbers]]] = 0

    def note_received(self, offsets: Offsets, *, zero: bool = False) -> int:
        """Remember that the pages at `offsets` have come; returns how many of them had come before."""
        numbers = self._numbers(offsets)
        again = int(np.count_nonzero(self.received[numbers]))
        self.received[numbers] = True
        if not zero:
            self._clean[numbers] = False
        return again

    def _numbers(self, offsets: Offsets) -> NDArray[np.int64]:
        return (offsets // np.uint64(self.page_size)).astype(np.int64)
