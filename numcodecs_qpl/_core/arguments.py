"""What both engines have in common: the limits, and the checks of what a caller gives them."""

from __future__ import annotations

from typing import Any

import numpy as np

MAX_BLOCK = 2**31 - 1
"""Bytes of the largest block: libqpl counts in 32 bits, and half of that is what callers handle in a signed int."""

HUFFMAN = {"fixed": False, "dynamic": True}
"""Whether the tables are made for each block, by the word of it."""


def compress_bound(size: int) -> int:
    """Largest raw deflate stream that an engine makes of `size` bytes.

    Incompressible data comes out as stored blocks of 65,535 bytes with 5 bytes each; of libqpl sometimes as one block
    more than needed (measured). The 16 are what libqpl wants to have free beyond what it writes.
    """
    return size + 5 * (size // 65535 + 2) + 16


def count_blocks(size: int, block_size: int, around: int, room: int) -> int:
    """Number of blocks of `block_size` that `size` bytes make, with `around` bytes about each stream.

    Raises
    ------
    ValueError
        If `block_size` is out of range, or the streams may not fit into `room` bytes.
    """
    if not 1 <= block_size <= MAX_BLOCK:
        raise ValueError(f"block_size is {block_size}; it must be 1 to {MAX_BLOCK}")
    count = max(1, -(-size // block_size))
    last = size - (count - 1) * block_size
    needed = count * around + (count - 1) * compress_bound(block_size) + compress_bound(last)
    if room < needed:
        raise ValueError(f"the output buffer has {room} bytes; up to {needed} may be needed")
    return count


def count_pages(size: int, page_size: int, huffman: str, lengths: int, room: int) -> int:
    """Number of pages in `size` bytes.

    Raises
    ------
    ValueError
        If these are no whole number of pages, there is no place for so many `lengths`, the payload has less `room` than
        the pages, or `huffman` or `page_size` is out of range.
    """
    if huffman not in HUFFMAN:
        raise ValueError(f"huffman is {huffman!r}; it must be one of {', '.join(HUFFMAN)}")
    check_page_size(page_size)
    if size % page_size:
        raise ValueError(f"{size} bytes are no whole number of pages of {page_size} bytes")
    count = size // page_size
    if lengths != count:
        raise ValueError(f"lengths has room for {lengths} pages; there are {count}")
    if room < size:
        raise ValueError(f"the payload has room for {room} bytes; up to {size} may be needed")
    return count


def check_page_size(page_size: int) -> None:
    """Raise a ValueError for a page of less than 2 bytes, or of more than a block may have."""
    if not 2 <= page_size <= MAX_BLOCK:
        raise ValueError(f"page_size is {page_size}; it must be 2 to {MAX_BLOCK}")


def as_bytes(buffer: Any) -> memoryview:
    """The bytes of a contiguous buffer, without a copy; ValueError for one that is not."""
    view = memoryview(buffer)
    if not view.c_contiguous:
        raise ValueError("a contiguous buffer is required")
    return view.cast("B")


def as_writable_bytes(buffer: Any) -> memoryview:
    """The same of a buffer to be written to; ValueError for one that is read-only."""
    view = as_bytes(buffer)
    if view.readonly:
        raise ValueError("the output is read-only")
    return view


def overlap_error(target: str, source: str) -> ValueError:
    """Error for an output that shares memory with the input, by the names of the two arguments."""
    return ValueError(f"{target} overlaps {source}: pass memory that {source} does not use")


def check_apart(written: memoryview, read: memoryview, target: str, source: str) -> None:
    """Raise a ValueError if an output shares memory with the input."""
    if np.may_share_memory(written, read):
        raise overlap_error(target, source)
