"""Blocks and pages, by the engine that the package was built with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numcodecs_qpl._core._built import WITH_LIBQPL
from numcodecs_qpl._core.arguments import as_bytes, check_page_size

# As in engine.py.
if TYPE_CHECKING or WITH_LIBQPL:
    from numcodecs_qpl._core import _batch as _engine
else:
    from numcodecs_qpl._core import _isal_batch as _engine

OUTPUT_SLACK = _engine.OUTPUT_SLACK
BytesWriter = _engine.BytesWriter
compress_blocks = _engine.compress_blocks
compress_pages_into = _engine.compress_pages_into
decompress_blocks = _engine.decompress_blocks
decompress_stream = _engine.decompress_stream


def compress_pages(buffer: Any, page_size: int = 4096, huffman: str = "fixed") -> tuple[NDArray[np.uint32], bytes]:
    """Compress pages, each on its own: the payload of QEMU's ``qpl`` multifd method.

    Parameters
    ----------
    buffer : buffer of bytes
        The pages, one after the other.
    page_size : int
        Bytes in a page.
    huffman : {"fixed", "dynamic"}
        deflate's fixed Huffman tables, as QEMU writes, or tables made for each page: smaller and slower, and as
        readable.

    Returns
    -------
    lengths : ndarray of uint32, shape (pages,)
        Bytes of each page in the payload; `page_size` for one that is there as it was: it does not get smaller, or
        libqpl failed on it (`stats` counts that).
    payload : bytes
        The pages' raw deflate streams (RFC 1951), one after the other. With fixed tables libqpl's software path may
        find a match more or less from one call to the next: the pages are always the same, their bytes in here may
        not be.

    Raises
    ------
    ValueError
        If `buffer` does not hold whole pages, or `huffman` is neither word.
    QplError
        If the path setting is "hardware" and the device fails.
    """
    check_page_size(page_size)
    pages = as_bytes(buffer)
    lengths = np.empty(len(pages) // page_size, np.uint32)
    writer = BytesWriter(len(pages))
    return lengths, writer.finish(compress_pages_into(pages, lengths, writer, page_size, huffman))


@overload
def decompress_pages(payload: Any, lengths: ArrayLike, page_size: int = 4096, out: None = None) -> bytes: ...
@overload
def decompress_pages(payload: Any, lengths: ArrayLike, page_size: int = 4096, *, out: Any) -> Any: ...
def decompress_pages(payload: Any, lengths: ArrayLike, page_size: int = 4096, out: Any = None) -> Any:
    """Inflate pages: the inverse of `compress_pages`.

    Parameters
    ----------
    payload : buffer of bytes
        The pages' streams, one after the other.
    lengths : array_like of int, shape (pages,)
        Bytes of each page in `payload`; `page_size` for one that is there as it is.
    page_size : int
        Bytes in a page.
    out : writable buffer of bytes, optional
        ``pages * page_size`` bytes to inflate into.

    Returns
    -------
    bytes, or `out` if given

    Raises
    ------
    ValueError
        If `out` is of another size, read-only, not contiguous, or overlaps `payload`.
    CorruptDataError
        If a length is 0 or larger than a page, the lengths are not those of the payload, or a stream does not inflate
        to exactly one page. The message names the page. What `out` holds then is undefined.
    QplError
        If the path setting is "hardware" and the device fails.
    """
    return _engine.decompress_pages(payload, lengths, page_size, out=out)
