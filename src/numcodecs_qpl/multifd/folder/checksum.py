"""CRC-32 of large data from the CRC-32s of its chunks, in any order and in several threads."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

import numpy as np

from numcodecs_qpl.multifd.stream.wire import Bytes


class ChunkedCRC32:
    """CRC-32 of data that comes in chunks, in any order. A missing chunk is all zeros.

    Parameters
    ----------
    size : int
        Bytes of the data, at least 1.
    chunk_size : int
        Bytes of a chunk. The last one may be smaller.
    """

    def __init__(self, size: int, chunk_size: int) -> None:
        self._chunk_size = chunk_size
        self._last_size = (size - 1) % chunk_size + 1
        self._checksums = np.full(-(-size // chunk_size), crc32(bytes(min(size, chunk_size))), np.uint32)
        self._checksums[-1] = crc32(bytes(self._last_size))

    def put(self, chunk: int, data: Bytes) -> None:
        """Set the content of a chunk; it replaces earlier content."""
        self._checksums[chunk] = crc32(data)

    def value(self) -> int:
        """Return the CRC-32 of all data."""
        *whole, last = self._checksums.tolist()
        return _join(_join(0, whole, self._chunk_size), [last], self._last_size)


def _join(first: int, others: Iterable[int], size: int) -> int:
    # Return the CRC-32 of a concatenation; each of `others` belongs to `size` bytes. Appending `size` bytes is a linear
    # function of a CRC, so its effect on each of the 32 bits determines it.
    zeros = bytes(size)
    of_zeros = crc32(zeros)
    moved = [crc32(zeros, 1 << bit) ^ of_zeros for bit in range(32)]
    whole = first
    for other in others:
        after = other
        for bit, term in enumerate(moved):
            if whole >> bit & 1:
                after ^= term
        whole = after
    return whole
