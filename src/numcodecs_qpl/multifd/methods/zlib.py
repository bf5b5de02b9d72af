"""The method ``zlib``: one zlib stream a channel, flushed at each packet's end and never ended."""

from __future__ import annotations

import zlib
from typing import Any

from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.hooks import RecvParams, SendParams
from numcodecs_qpl.multifd.methods.streaming import StreamMethods
from numcodecs_qpl.multifd.stream import wire


class ZlibMethods(StreamMethods):
    """Hooks of ``zlib``."""

    flag = wire.FLAG_ZLIB

    def compressor(self, params: SendParams) -> Any:
        """Return a stream with zlib's default window, at the migration's level."""
        return zlib.compressobj(params.parameters.multifd_zlib_level)

    def flush(self, compressor: Any) -> bytes:
        """End the deflate block on a byte (Z_SYNC_FLUSH)."""
        return bytes(compressor.flush(zlib.Z_SYNC_FLUSH))

    def decompressor(self, params: RecvParams) -> Any:
        """Return a stream of the same kind."""
        return zlib.decompressobj()

    def inflate(self, decompressor: Any, payload: memoryview, size: int) -> bytes:
        """Decompress the packet's pages with zlib."""
        try:
            plain = decompressor.decompress(payload, size + 1)
        except zlib.error as error:
            raise MultiFDError(f"zlib: {error}", field="payload") from error
        if decompressor.eof:
            raise MultiFDError("the zlib stream has an end; expected one that never ends", field="payload")
        return bytes(plain)
