"""Pages: the payload of QEMU's ``qpl`` multifd method."""

import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint32_t

from numcodecs_qpl._core.batch cimport Batch
from numcodecs_qpl._core.block cimport COMPRESS, DECOMPRESS, DONE, FULL, Block
from numcodecs_qpl._core.writer cimport BytesWriter

from numcodecs_qpl._core.arguments import (
    as_bytes, as_lengths, as_lengths_to_fill, as_writable_bytes, check_no_overlap, check_page_size, is_dynamic,
)
from numcodecs_qpl._core.errors import CorruptDataError


def compress_pages(buffer, page_size=4096, huffman="fixed"):
    """Compress pages, each on its own: the payload of QEMU's ``qpl`` multifd method.

    Parameters
    ----------
    buffer : buffer of bytes
        The pages, one after the other.
    page_size : int
        Bytes in a page, 2 to 2**31 - 1.
    huffman : {"fixed", "dynamic"}
        deflate's fixed Huffman tables, as QEMU writes, or tables made for each page. Dynamic tables make smaller pages
        and take longer. Any receiver reads both.

    Returns
    -------
    lengths : ndarray of uint32, shape (pages,)
        Bytes of each page in the payload. A page that does not get smaller is kept as it is; its length is `page_size`.
    payload : bytes
        The pages' raw deflate streams (RFC 1951), one after the other.

    Raises
    ------
    TypeError, ValueError
        If `buffer` does not hold whole pages, or an argument is wrong. The message names it.
    QplError
        If the path setting is "hardware" and the device fails.
    """
    page_size = check_page_size(page_size)
    pages = as_bytes(buffer, "buffer")
    lengths = np.empty(len(pages) // page_size, np.uint32)
    writer = BytesWriter(len(pages))
    return lengths, writer.finish(compress_pages_into(pages, lengths, writer, page_size, huffman))


def compress_pages_into(buffer, lengths, payload, page_size=4096, huffman="fixed") -> int:
    """Compress pages into the caller's memory; see `compress_pages`.

    Parameters
    ----------
    buffer : buffer of bytes
        The pages, one after the other.
    lengths : ndarray of uint32, shape (pages,)
        Receives the bytes of each page in the payload.
    payload : writable buffer of bytes
        Receives the payload; it has at least as many bytes as `buffer`.
    page_size, huffman
        As for `compress_pages`.

    Returns
    -------
    int
        Bytes of the payload.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong. The message names it.
    QplError
        If the path setting is "hardware" and the device fails.
    """
    cdef const uint8_t[::1] src = as_bytes(buffer, "buffer")
    cdef uint8_t[::1] dst = payload if isinstance(payload, BytesWriter) else as_writable_bytes(payload, "payload")
    cdef uint32_t[::1] lengths_view = as_lengths_to_fill(lengths)
    cdef bint dynamic = is_dynamic(huffman)
    cdef Py_ssize_t size = check_page_size(page_size)
    cdef Py_ssize_t count = src.shape[0] // size
    if src.shape[0] % size:
        raise ValueError(f"buffer has {src.shape[0]} bytes; it must have whole pages of {size} bytes")
    if lengths_view.shape[0] != count:
        raise ValueError(f"lengths has room for {lengths_view.shape[0]} pages; there are {count}")
    if dst.shape[0] < src.shape[0]:
        raise ValueError(f"payload has room for {dst.shape[0]} bytes; up to {src.shape[0]} may be needed")
    check_no_overlap(src, dst, "payload", "buffer")
    if count == 0:
        return 0
    cdef Batch batch = Batch(count, (src, dst))
    cdef Py_ssize_t i
    cdef Block *block
    batch.task.operation = COMPRESS
    batch.task.keep = True
    batch.task.dynamic = dynamic
    for i in range(count):
        block = &batch.blocks[i]
        block.src = &src[0] + i * size
        block.size = size
        block.dst = &dst[0] + i * size
        block.room = size - 1
    batch.run("page")
    for i in range(count):
        lengths_view[i] = batch.blocks[i].written
    block = &batch.blocks[count - 1]
    return block.dst + block.written - &dst[0]


def decompress_pages(payload, lengths, page_size=4096, out=None):
    """Inflate pages: the inverse of `compress_pages`.

    Parameters
    ----------
    payload : buffer of bytes
        The pages' streams, one after the other.
    lengths : array_like of int, shape (pages,)
        Bytes of each page in `payload`; `page_size` for a page that is kept as it is.
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
        If a length is 0 or larger than a page, the lengths are not those of the payload, or a stream does not inflate
        to exactly one page. The message names the page. What `out` holds then is undefined. As in QEMU, bytes after a
        stream's end that its length still covers are ignored.
    QplError
        If the path setting is "hardware" and the device fails.
    """
    cdef const uint8_t[::1] src = as_bytes(payload, "payload")
    cdef Py_ssize_t size = check_page_size(page_size)
    cdef const int64_t[::1] sizes = as_lengths(lengths)
    cdef Py_ssize_t count = sizes.shape[0]
    cdef Py_ssize_t i
    cdef Py_ssize_t at = 0
    for i in range(count):
        if not 0 < sizes[i] <= size:
            raise CorruptDataError(f"page {i} has length {sizes[i]}; it must be 1 to {size}")
        at += sizes[i]
    if at != src.shape[0]:
        raise CorruptDataError(f"the lengths add up to {at} bytes, but the payload has {src.shape[0]}")
    cdef BytesWriter writer = None
    cdef uint8_t[::1] dst = None
    cdef uint8_t *start
    if out is None:
        writer = BytesWriter(count * size)
        start = writer.start()
    else:
        dst = as_writable_bytes(out, "out")
        if dst.shape[0] != count * size:
            raise ValueError(f"out has {dst.shape[0]} bytes; {count} pages of {size} have {count * size}")
        check_no_overlap(src, dst, "out", "payload")
        start = &dst[0] if count else NULL
    cdef Batch batch = Batch(count, (src, dst, writer))
    cdef Block *block
    at = 0
    for i in range(count):
        block = &batch.blocks[i]
        block.src = &src[0] + at
        block.size = sizes[i]
        block.dst = start + i * size
        block.room = size
        at += sizes[i]
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
    if writer is None:
        return out
    return writer.finish(count * size)
