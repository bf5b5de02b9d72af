"""The method ``qpl``: each page is a raw deflate stream of its own.

A payload is the pages' lengths (u32 each, big-endian), then the pages. A page whose length is the page size is kept as
it is. The format was read in QEMU's ``migration/multifd-qpl.c`` (9.1 to 11.0), and checked on streams that QEMU 11.0.92
wrote.
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
    """What a channel keeps for ``qpl``. The jobs are those of the core's pool, which all channels share.

    Attributes
    ----------
    page_size, page_count : int
        Bytes in a page, and pages that a packet has room for.
    zbuf : ndarray of uint8, shape (page_count * page_size,)
        The compressed pages.
    pages : ndarray of uint8, shape (page_count, page_size)
        The pages as they are, where they do not lie together in guest memory.
    lengths : array of uint32
        The pages' lengths in `zbuf`, `page_count` of them.
    """

    page_size: int
    page_count: int
    zbuf: NDArray[np.uint8]
    pages: NDArray[np.uint8]
    lengths: array[int]

    @classmethod
    def make(cls, page_size: int, page_count: int) -> QplData:
        """Memory for packets of `page_count` pages."""
        return cls(
            page_size,
            page_count,
            np.empty(page_count * page_size, np.uint8),
            np.empty((page_count, page_size), np.uint8),
            array("I", bytes(4 * page_count)),
        )

    def swap_lengths(self) -> None:
        """Turn the lengths from this machine's order of bytes into that of the wire, or back."""
        # In place: a cast by NumPy takes 5 to 13 us in a relay, whose caches hold pages.
        if sys.byteorder == "little":
            self.lengths.byteswap()


class QplMethods(MultiFDMethods):
    """The hooks of ``qpl``, as QEMU 9.1 has them.

    A page that does not get smaller is sent as it is. Pages go to hardware if it can be used; a page that finds the
    queues busy is tried three times more and then done in software. The core does all that, and its process settings
    hold (`numcodecs_qpl.set_path`).
    """

    def send_setup(self, params: SendParams) -> None:
        """Take memory for a packet's pages."""
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
        except QplError as error:  # of hardware, where that is demanded
            raise DeviceError(str(error)) from error
        data.swap_lengths()
        params.iov = [lengths, data.zbuf.data[:size]]
        params.next_packet_size = 4 * count + size

    def recv_setup(self, params: RecvParams) -> None:
        """Take memory for a packet's payload."""
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
        """The lengths, and a buffer for each page, as in QEMU; here all pages are in one."""
        return page_count + 1
