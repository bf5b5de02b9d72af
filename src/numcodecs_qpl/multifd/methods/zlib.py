"""The method ``zlib``: one zlib stream a channel, flushed at each packet's end and never ended."""

from __future__ import annotations

import zlib
from typing import Any

from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.hooks import RecvParams, SendParams
from numcodecs_qpl.multifd.methods.streaming import StreamMethods
from numcodecs_qpl.multifd.stream import wire


class ZlibMethods(StreamMethods):
    """The hooks of ``zlib``."""

    flag = wire.FLAG_ZLIB

    def compressor(self, params: SendParams) -> Any:
        """A stream with zlib's usual window, at the level that the migration is set to."""
        return zlib.compressobj(params.parameters.multifd_zlib_level)

    def flush(self, compressor: Any) -> bytes:
        """End the deflate block on a byte (Z_SYNC_FLUSH)."""
        return bytes(compressor.flush(zlib.Z_SYNC_FLUSH))

    def decompressor(self, params: RecvParams) -> Any:
        """A stream of the same kind."""
        return zlib.decompressobj()

    def inflate(self, decompressor: Any, payload: memoryview, size: int) -> bytes:
        """The packet's pages, by zlib."""
        try:
            plain = decompressor.decompress(payload, size + 1)
        except zlib.error as error:
            raise MultiFDError(f"zlib: {error}", field="payload") from error
        if decompressor.eof:
            raise MultiFDError("the zlib stream ends, which it never does", field="payload")
        return bytes(plain)
