"""The method ``qpl``: each page is a separate raw deflate stream.

A payload is the pages' lengths (u32 each, big-endian), then the pages. A page whose length is the page size is
uncompressed. The format was read in QEMU's ``migration/multifd-qpl.c`` (9.1 to 11.0), and checked on streams of QEMU
11.0.92.
"""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from numcodecs_qpl._core import CorruptDataError, QplError, compress_pages_into, decompress_pages
from numcodecs_qpl.multifd.errors import DeviceError, MultiFDError
from numcodecs_qpl.multifd.hooks import MultiFDMethods, RecvParams, SendParams, check_method
from numcodecs_qpl.multifd.stream import wire


@dataclass
class QplData:
    """State of a channel for ``qpl``. The jobs belong to the core's pool, which all channels share.

    Attributes
    ----------
    page_size, page_count : int
        Bytes in a page, and pages that a packet has room for.
    zbuf : ndarray of uint8, shape (page_count * page_size,)
        The compressed pages.
    pages : ndarray of uint8, shape (page_count, page_size)
        Copies of uncompressed pages that are not contiguous in guest memory.
    lengths : array of uint32
        The `page_count` lengths of the pages in `zbuf`.
    """

    page_size: int
    page_count: int
    zbuf: NDArray[np.uint8]
    pages: NDArray[np.uint8]
    lengths: array[int]

    @classmethod
    def make(cls, page_size: int, page_count: int) -> QplData:
        """Allocate memory for packets of `page_count` pages."""
        return cls(
            page_size,
            page_count,
            np.empty(page_count * page_size, np.uint8),
            np.empty((page_count, page_size), np.uint8),
            array("I", bytes(4 * page_count)),
        )

    def swap_lengths(self) -> None:
        """Convert the lengths from this machine's byte order to that of the wire, or back."""
        # In place, because a cast by NumPy takes 5 to 13 us in a relay, whose caches hold pages.
        if sys.byteorder == "little":
            self.lengths.byteswap()


class QplMethods(MultiFDMethods):
    """Hooks of ``qpl``, as in QEMU 9.1.

    A page that does not get smaller is sent uncompressed. Pages go to hardware if it can be used. If the queues are
    busy, a page is tried three more times and then done in software. The core does this, and its process settings
    apply (`numcodecs_qpl.set_path`).
    """

    def send_setup(self, params: SendParams) -> None:
        """Allocate memory for a packet's pages."""
        params.data = QplData.make(params.page_size, params.page_count)

    def send_cleanup(self, params: SendParams) -> None:
        """Release the memory."""
        params.data = None

    def send_prepare(self, params: SendParams) -> None:
        """Compress the pages."""
        params.flags |= wire.FLAG_QPL
        params.iov = []
        params.next_packet_size = 0
        pages, data = params.pages, params.data
        count = len(pages.normal)
        if not count or pages.block is None:
            return
        runs = pages.block.runs(pages.normal)
        plain = runs[0] if len(runs) == 1 else pages.block.take(pages.normal, data.pages[:count])
        lengths = memoryview(data.lengths)[:count]
        try:
            size = compress_pages_into(plain, lengths, data.zbuf, data.page_size, params.parameters.huffman)
        except QplError as error:  # hardware failed, and the path setting is "hardware"
            raise DeviceError(str(error)) from error
        data.swap_lengths()
        params.iov = [lengths, data.zbuf.data[:size]]
        params.next_packet_size = 4 * count + size

    def recv_setup(self, params: RecvParams) -> None:
        """Allocate memory for a packet's payload."""
        params.data = QplData.make(params.page_size, params.page_count)

    def recv_cleanup(self, params: RecvParams) -> None:
        """Release the memory."""
        params.data = None

    def recv_pages(self, params: RecvParams) -> None:
        """Inflate the pages."""
        check_method(params, wire.FLAG_QPL)
        pages, data = params.pages, params.data
        count = len(pages.normal)
        if not count or pages.block is None:
            return
        lengths = memoryview(data.lengths)[:count]
        zbuf = data.zbuf.data[: params.next_packet_size - 4 * count]
        params.read_into([lengths.cast("B"), zbuf])
        data.swap_lengths()
        runs = pages.block.runs(pages.normal)
        out = runs[0] if len(runs) == 1 else data.pages[:count]
        try:
            decompress_pages(zbuf, lengths, data.page_size, out=out)
        except CorruptDataError as error:
            raise MultiFDError(str(error), field="payload") from error
        except QplError as error:
            raise DeviceError(str(error)) from error
        if len(runs) > 1:
            pages.block.put(pages.normal, data.pages[:count])

    def get_iov_count(self, page_count: int) -> int:
        """Return the number for the lengths and each page, as in QEMU. This method puts all pages into one buffer."""
        return page_count + 1
