"""Batches of blocks on ISA-L: what `_batch` does with libqpl, with the same arguments, results and errors.

No bytes after an output are spoiled, and a truncated stream is never taken for a whole one. What is wrong with a stream
ISA-L says in words, so that errors have no libqpl status.

Views of the caller's buffers are released before a function returns: a thread that helped may keep what it was given
for a moment longer, and a buffer that is still viewed cannot be resized.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import ArrayLike, NDArray

from numcodecs_qpl._core._isal import deflate, inflate, note_blocks
from numcodecs_qpl._core.arguments import (
    HUFFMAN,
    MAX_BLOCK,
    as_bytes,
    as_writable_bytes,
    check_apart,
    check_page_size,
    count_blocks,
    count_pages,
)
from numcodecs_qpl._core.errors import CorruptDataError
from numcodecs_qpl._core.path import path_in_force
from numcodecs_qpl._core.threads import get_threads, spread

OUTPUT_SLACK = 0
"""Bytes after an output that are best left free: none."""

_OK, _FAILED = 0, 1


class BytesWriter(bytearray):
    """A bytes object while it is being written, as `_batch` has it; here the bytes are copied in the end.

    Parameters
    ----------
    capacity : int
        Bytes to reserve.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._finished = False

    def resize(self, capacity: int) -> None:
        """Change the capacity, keeping what was written up to it.

        Raises
        ------
        BufferError
            If a view of the memory is still held.
        """
        if self._finished:
            raise ValueError("this writer has handed over its bytes")
        try:
            if capacity < len(self):
                del self[capacity:]
            else:
                self.extend(bytes(capacity - len(self)))
        except BufferError:
            raise BufferError("a view of the bytes is still held") from None

    def finish(self, size: int) -> bytes:
        """The first `size` bytes, as a bytes object; the writer is of no more use, and empty."""
        self.resize(size)
        done = bytes(self)
        self.resize(0)
        self._finished = True
        return done


def compress_blocks(
    src: Any, dst: Any, block_size: int, *, level: int, dynamic: bool, head: int = 0, tail: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.uint32]]:
    """Compress `src` in blocks of `block_size` bytes, each a raw deflate stream of its own.

    Parameters and results are those of `_batch.compress_blocks`, but `level` changes nothing.
    """
    with as_bytes(src) as plain, as_writable_bytes(dst) as out:
        count = count_blocks(len(plain), block_size, head + tail, len(out))
        streams = [b""] * count
        crcs = np.empty(count, np.uint32)

        def compress(i: int) -> None:
            block = plain[i * block_size : (i + 1) * block_size]
            streams[i] = deflate(block, dynamic)
            crcs[i] = isal_zlib.crc32(block)

        _for_each(count, compress)
        note_blocks("compressed", count if len(plain) else 0)
        lengths = np.array([len(stream) for stream in streams], np.uint32)
        ends = np.cumsum(lengths, dtype=np.int64) + np.arange(1, count + 1) * head + np.arange(count) * tail
        offsets = ends - lengths
        for start, stream in zip(offsets.tolist(), streams, strict=True):
            out[start : start + len(stream)] = stream
    return offsets, lengths, crcs


def decompress_blocks(
    src: Any, offsets: Any, lengths: Any, dst: Any, sizes: Any
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Inflate raw deflate streams, one after the other into `dst`.

    Parameters and results are those of `_batch.decompress_blocks`, but for the statuses: 0 where a stream is whole and
    fits, else 1. The bytes of input used are exact.
    """
    offsets, lengths, sizes = (np.asarray(given, np.int64).tolist() for given in (offsets, lengths, sizes))
    count = len(offsets)
    if len(lengths) != count or len(sizes) != count:
        raise ValueError("offsets, lengths and sizes must be of one length")
    statuses, read, written, crcs = ([fill] * count for fill in (_FAILED, 0, 0, -1))
    with as_bytes(src) as streams, as_writable_bytes(dst) as out:
        places = []
        at = 0
        for i, (offset, length, size) in enumerate(zip(offsets, lengths, sizes, strict=True)):
            if not (0 <= offset <= len(streams) and 0 <= length <= len(streams) - offset):
                raise ValueError(
                    f"stream {i} ({length} bytes at {offset}) is not within the {len(streams)} bytes of input"
                )
            if not 0 <= size <= len(out) - at or size > MAX_BLOCK or length > MAX_BLOCK:
                raise ValueError(f"stream {i} ({size} bytes, inflated) does not fit into the output")
            places.append(at)
            at += size

        def decompress(i: int) -> None:
            if not lengths[i] or not sizes[i]:
                return  # as in `_batch`: such a stream is never OK
            inflated, read[i], fault = inflate(streams[offsets[i] : offsets[i] + lengths[i]], sizes[i])
            written[i] = min(len(inflated), sizes[i])
            out[places[i] : places[i] + written[i]] = memoryview(inflated)[: written[i]]
            statuses[i] = _FAILED if fault or len(inflated) > sizes[i] else _OK
            crcs[i] = isal_zlib.crc32(inflated)

        _for_each(count, decompress)
    note_blocks("decompressed", sum(1 for length, size in zip(lengths, sizes, strict=True) if length and size))
    return statuses, read, written, crcs


def decompress_stream(src: Any, guess: int, limit: int) -> bytes:
    """Inflate one raw deflate stream of unknown size, to `limit` bytes at the most; `guess` changes nothing.

    Raises
    ------
    CorruptDataError
        If the stream is damaged or truncated, or inflates to more than `limit` bytes.
    """
    stream = as_bytes(src)
    size = len(stream)
    if not 0 < size <= MAX_BLOCK or limit > MAX_BLOCK:
        raise CorruptDataError(f"a stream of {size} bytes; 1 to {MAX_BLOCK} can be inflated")
    path_in_force()
    inflated, _, fault = inflate(stream, limit)
    note_blocks("decompressed", 1)
    if len(inflated) > limit:
        raise CorruptDataError(f"the stream of {size} bytes inflates to more than {limit} bytes")
    if fault:
        raise CorruptDataError(f"the stream of {size} bytes cannot be inflated: {fault}")
    return inflated


def compress_pages_into(
    buffer: Any, lengths: NDArray[np.uint32], payload: Any, page_size: int = 4096, huffman: str = "fixed"
) -> int:
    """Compress pages into the caller's memory; `compress_pages` tells the rest.

    Parameters and results are those of `_batch.compress_pages_into`.
    """
    with as_bytes(buffer) as pages, as_writable_bytes(payload) as out:
        count = count_pages(len(pages), page_size, huffman, len(lengths), len(out))
        if count == 0:
            return 0
        check_apart(out, pages, "payload", "buffer")
        streams = [b""] * count

        def compress(i: int) -> None:
            streams[i] = deflate(pages[i * page_size : (i + 1) * page_size], HUFFMAN[huffman])

        _for_each(count, compress)
        note_blocks("compressed", count)
        at = 0
        for i, stream in enumerate(streams):
            kept = stream if len(stream) < page_size else pages[i * page_size : (i + 1) * page_size]
            lengths[i] = len(kept)
            out[at : at + len(kept)] = kept
            at += len(kept)
    return at


def decompress_pages(payload: Any, lengths: ArrayLike, page_size: int = 4096, out: Any = None) -> Any:
    """Inflate pages, as `blocks.decompress_pages` tells."""
    check_page_size(page_size)
    sizes = np.asarray(lengths, np.int64).tolist()
    count = len(sizes)
    for i, size in enumerate(sizes):
        if not 0 < size <= page_size:
            raise CorruptDataError(f"page {i} has length {size}; it must be 1 to {page_size}")
    target = bytearray(count * page_size) if out is None else out
    starts = [0, *accumulate(sizes)]
    faults = [""] * count
    with as_bytes(payload) as streams, as_writable_bytes(target) as pages:
        if starts[-1] != len(streams):
            raise CorruptDataError(f"the lengths add up to {starts[-1]} bytes, but the payload has {len(streams)}")
        if len(pages) != count * page_size:
            raise ValueError(f"out has {len(pages)} bytes; {count} pages of {page_size} have {count * page_size}")
        check_apart(pages, streams, "out", "payload")

        def decompress(i: int) -> None:
            stream = streams[starts[i] : starts[i + 1]]
            page, fault = (stream, "") if len(stream) == page_size else _inflate_page(stream, page_size)
            faults[i] = fault
            if not fault:
                pages[i * page_size : (i + 1) * page_size] = page

        _for_each(count, decompress)
    note_blocks("decompressed", sum(1 for size in sizes if size < page_size))
    for i, fault in enumerate(faults):
        if fault:
            raise CorruptDataError(f"page {i} of {count} {fault}")
    return bytes(target) if out is None else out


def _inflate_page(stream: memoryview, page_size: int) -> tuple[bytes, str]:
    """The page, and what is wrong with it."""
    page, _, fault = inflate(stream, page_size)
    if len(page) > page_size:
        return page, f"inflates to more than {page_size} bytes"
    if len(page) < page_size and (page or not fault):
        return page, f"inflates to {len(page)} bytes, not {page_size}"
    return page, fault and f"cannot be inflated: {fault}"


def _for_each(count: int, work: Callable[[int], None]) -> None:
    """Call ``work(i)`` for each block, in as many threads as are set. ISA-L works without Python's lock."""
    path_in_force()
    numbers = iter(range(count))

    def work_on() -> None:
        for i in numbers:
            work(i)

    threads = min(get_threads(), count)
    if threads > 1:
        spread(work_on, threads)
    else:
        work_on()
