"""Pages: the payload of QEMU's ``qpl`` multifd method."""

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uint8_t, uint32_t

from numcodecs_qpl._core.batch cimport Batch
from numcodecs_qpl._core.block cimport COMPRESS, DECOMPRESS, DONE, FULL, Block
from numcodecs_qpl._core.memory cimport Memory, new_bytes, resize_bytes

from numcodecs_qpl._core.arguments import as_lengths, as_lengths_to_fill, check_page_size, is_dynamic
from numcodecs_qpl._core.errors import CorruptDataError


def compress_pages(buffer, page_size=4096, huffman="fixed"):
    """Compress pages independently: the payload of QEMU's ``qpl`` multifd method.

    Parameters
    ----------
    buffer : buffer of bytes
        The pages, one after the other.
    page_size : int
        Bytes in a page, 2 to 2**31 - 1.
    huffman : {"fixed", "dynamic"}
        Deflate's fixed Huffman tables, as in QEMU, or tables made for each page. Dynamic tables make smaller pages
        and take longer. Every receiver reads both.

    Returns
    -------
    lengths : ndarray of uint32, shape (pages,)
        Bytes of each page in the payload. A page that does not get smaller is copied; its length is `page_size`.
    payload : bytes
        The pages' raw deflate streams (RFC 1951), one after the other.

    Raises
    ------
    TypeError, ValueError
        If `buffer` does not hold whole pages, or an argument is wrong. The message names it.
    QplError
        If the path setting is "hardware" and the device fails.
    """
    cdef Py_ssize_t size = check_page_size(page_size)
    cdef Memory pages = Memory(buffer, "buffer")
    cdef bytes payload = new_bytes(pages.size)
    lengths = np.empty(pages.size // size, np.uint32)
    cdef Memory row = Memory(lengths, "lengths")
    resize_bytes(payload, compress(pages, row, <uint8_t *>PyBytes_AS_STRING(payload), size, huffman))
    return lengths, payload


def compress_pages_into(buffer, lengths, payload, page_size=4096, huffman="fixed") -> int:
    """Compress pages into the caller's memory, and return the size of the payload; see `compress_pages`.

    `lengths`, an array of uint32, receives the bytes of each page. `payload` receives the pages' streams; it is a
    writable buffer of at least as many bytes as `buffer`.
    """
    cdef Memory pages = Memory(buffer, "buffer")
    cdef Memory dst = Memory(payload, "payload", True)
    cdef Memory row = Memory(as_lengths_to_fill(lengths), "lengths", True)
    cdef Py_ssize_t size = check_page_size(page_size)
    if dst.size < pages.size:
        raise ValueError(f"payload has room for {dst.size} bytes; up to {pages.size} may be needed")
    dst.check_apart(pages)
    return compress(pages, row, dst.start, size, huffman)


cdef Py_ssize_t compress(Memory pages, Memory row, uint8_t *dst, Py_ssize_t size, huffman) except -1:
    # `row` holds a uint32 for each page. `dst` has room for `pages`, and the caller keeps its owner alive.
    cdef Py_ssize_t count = pages.size // size
    cdef uint32_t *lengths = <uint32_t *>row.start
    cdef Batch batch = Batch(count, (pages,))
    cdef Py_ssize_t i
    cdef Block *block
    batch.task.operation = COMPRESS
    batch.task.keep = True
    batch.task.dynamic = is_dynamic(huffman)
    if pages.size % size:
        raise ValueError(f"buffer has {pages.size} bytes; it must have whole pages of {size} bytes")
    if row.size != 4 * count:
        raise ValueError(f"lengths has room for {row.size // 4} pages; there are {count}")
    for i in range(count):
        block = &batch.blocks[i]
        block.src = pages.start + i * size
        block.size = size
        block.dst = dst + i * size
        block.room = size - 1
    batch.run("page")
    cdef Py_ssize_t total = 0
    for i in range(count):
        lengths[i] = batch.blocks[i].written
        total += batch.blocks[i].written
    return total


ctypedef fused Length:
    uint32_t
    int64_t


cdef int take_apart(Batch batch, Memory payload, const Length *lengths, Py_ssize_t size) except -1:
    # Set the blocks of `batch` to the streams in `payload`, of pages of `size` bytes.
    cdef Py_ssize_t i
    cdef Py_ssize_t at = 0
    for i in range(batch.count):
        if not 0 < lengths[i] <= size:
            raise CorruptDataError(f"page {i} has length {lengths[i]}; it must be 1 to {size}")
        batch.blocks[i].src = payload.start + at
        batch.blocks[i].size = lengths[i]
        at += lengths[i]
    if at != payload.size:
        raise CorruptDataError(f"the lengths add up to {at} bytes, but the payload has {payload.size}")
    return 0


def decompress_pages(payload, lengths, page_size=4096, out=None):
    """Inflate pages: the inverse of `compress_pages`.

    Parameters
    ----------
    payload : buffer of bytes
        The pages' streams, one after the other.
    lengths : array_like of int, shape (pages,)
        Bytes of each page in `payload`; `page_size` for an uncompressed page.
    page_size : int
        Bytes in a page, 2 to 2**31 - 1.
    out : writable buffer of bytes, optional
        ``pages * page_size`` bytes to inflate into.

    Returns
    -------
    bytes, or `out` if given

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or `out` is of another size, read-only, not contiguous, or overlaps
        `payload`.
    CorruptDataError
        If a length is 0 or larger than a page, the lengths do not add up to the payload, or a stream does not inflate
        to exactly one page. The message names the page, and the content of `out` is undefined. As in QEMU, bytes
        between a stream's end and its length are ignored.
    QplError
        If the path setting is "hardware" and the device fails.
    """
    cdef Memory src = Memory(payload, "payload")
    cdef Py_ssize_t size = check_page_size(page_size)
    checked = as_lengths(lengths)
    cdef Memory row = Memory(checked, "lengths")
    cdef Py_ssize_t count = len(checked)
    cdef Batch batch = Batch(count, (src,))
    if isinstance(checked, memoryview):
        take_apart[uint32_t](batch, src, <const uint32_t *>row.start, size)
    else:
        take_apart[int64_t](batch, src, <const int64_t *>row.start, size)
    cdef Memory dst
    if out is None:
        out = new_bytes(count * size)
        dst = Memory(out, "out")
    else:
        dst = Memory(out, "out", True)
        if dst.size != count * size:
            raise ValueError(f"out has {dst.size} bytes; {count} pages of {size} have {count * size}")
        dst.check_apart(src)
    batch.buffers = (src, dst)
    cdef Block *block
    cdef Py_ssize_t i
    for i in range(count):
        batch.blocks[i].dst = dst.start + i * size
        batch.blocks[i].room = size
    batch.task.operation = DECOMPRESS
    batch.task.keep = True
    batch.run("page")
    for i in range(count):
        block = &batch.blocks[i]
        if block.status == FULL:
            raise CorruptDataError(f"page {i} of {count} inflates to more than {size} bytes")
        if block.status != DONE:
            raise CorruptDataError(f"page {i} of {count} cannot be inflated: its {block.size} bytes are damaged")
        if <Py_ssize_t>block.written != size:
            raise CorruptDataError(f"page {i} of {count} inflates to {block.written} bytes, not {size}")
    return out
