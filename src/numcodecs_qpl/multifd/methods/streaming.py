"""Shared code of ``zlib`` and ``zstd``: a channel is one compressed stream, and each packet its next piece.

The format was read in QEMU's ``migration/multifd-zlib.c`` and ``multifd-zstd.c`` (7.2 to 11.0), and checked on streams
of QEMU.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.hooks import MultiFDMethods, RecvParams, SendParams, check_method


class StreamMethods(MultiFDMethods):
    """Hooks of a method with one stream over a channel's packets; subclasses provide the stream."""

    flag: int
    """The method's bit in a packet's flags."""

    @abstractmethod
    def compressor(self, params: SendParams) -> Any:
        """Return a new stream to write, with ``compress(data) -> bytes``."""

    @abstractmethod
    def flush(self, compressor: Any) -> bytes:
        """Flush the stream: return the bytes after which everything written so far can be read."""

    @abstractmethod
    def decompressor(self, params: RecvParams) -> Any:
        """Return a new stream to read."""

    @abstractmethod
    def inflate(self, decompressor: Any, payload: memoryview, size: int) -> bytes:
        """Decompress `payload`, the stream's next piece: `size` bytes if it is valid, at most one more if not.

        Raises
        ------
        MultiFDError
            If the stream is damaged.
        """

    def send_setup(self, params: SendParams) -> None:
        """Begin the stream."""
        params.data = self.compressor(params)

    def send_cleanup(self, params: SendParams) -> None:
        """Release the stream."""
        params.data = None

    def send_prepare(self, params: SendParams) -> None:
        """Write the pages to the stream, and flush it."""
        params.flags |= self.flag
        params.iov = []
        params.next_packet_size = 0
        pages = params.pages
        if not len(pages.normal) or pages.block is None:
            return
        pieces = [params.data.compress(run) for run in pages.block.runs(pages.normal)]
        params.iov = [b"".join([*pieces, self.flush(params.data)])]
        params.next_packet_size = len(params.iov[0])

    def recv_setup(self, params: RecvParams) -> None:
        """Begin the stream."""
        params.data = self.decompressor(params)

    def recv_cleanup(self, params: RecvParams) -> None:
        """Release the stream."""
        params.data = None

    def recv_pages(self, params: RecvParams) -> None:
        """Read the packet's piece of the stream."""
        check_method(params, self.flag)
        pages = params.pages
        if not len(pages.normal) or pages.block is None:
            return
        payload = memoryview(bytearray(params.next_packet_size))
        params.read_into([payload])
        size = len(pages.normal) * params.page_size
        plain = self.inflate(params.data, payload, size)
        if len(plain) != size:
            found = "more" if len(plain) > size else len(plain)
            raise MultiFDError(f"inflates to {found} bytes; {len(pages.normal)} pages have {size}", field="payload")
        pages.block.put(pages.normal, np.frombuffer(plain, np.uint8).reshape(-1, params.page_size))

    def get_iov_count(self, page_count: int) -> int:
        """Return 1: a packet has one piece of the stream."""
        return 1
