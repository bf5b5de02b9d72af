"""The method ``zstd``: one zstd frame a channel, flushed at each packet's end and never ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.hooks import RecvParams, SendParams
from numcodecs_qpl.multifd.methods.streaming import StreamMethods
from numcodecs_qpl.multifd.stream import wire

if TYPE_CHECKING:
    from types import ModuleType

MAX_WINDOW = 1 << 27
"""Upper limit of a frame's window in bytes: zstd's own limit. QEMU's highest level is 20."""


class ZstdMethods(StreamMethods):
    """The hooks of ``zstd``. PyPI's ``zstandard``, an extra, does the work; it is looked for by the setup hooks."""

    flag = wire.FLAG_ZSTD

    def compressor(self, params: SendParams) -> Any:
        """Return a frame at the migration's level."""
        return _zstandard().ZstdCompressor(level=params.parameters.multifd_zstd_level).compressobj()

    def flush(self, compressor: Any) -> bytes:
        """End the block (ZSTD_e_flush)."""
        return bytes(compressor.flush(_zstandard().COMPRESSOBJ_FLUSH_BLOCK))

    def decompressor(self, params: RecvParams) -> Any:
        """Return a decompressor of frames, whose pieces are larger than a valid packet."""
        zstandard = _zstandard()
        sink = _Sink()
        room = params.page_count * params.page_size + 1
        writer = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_writer(sink, write_size=room)
        return sink, writer

    def inflate(self, decompressor: Any, payload: memoryview, size: int) -> bytes:
        """Decompress the packet's pages with zstandard."""
        sink, writer = decompressor
        sink.plain = b""
        sink.room = size
        try:
            writer.write(payload)
        except _zstandard().ZstdError as error:
            raise MultiFDError(f"zstd: {error}", field="payload") from error
        return bytes(sink.plain)


class _Sink:
    """File that zstandard writes to; it raises an error if a stream exceeds its packet's pages."""

    def __init__(self) -> None:
        self.plain = b""
        self.room = 0

    def write(self, data: bytes) -> int:
        # A packet's pages fit into one piece, so there is only one.
        if len(self.plain) + len(data) > self.room:
            raise MultiFDError(f"inflates to more than the {self.room} bytes of its pages", field="payload")
        self.plain += data
        return len(data)


def _zstandard() -> ModuleType:
    try:
        import zstandard
    except ImportError as error:
        raise MultiFDError("the method zstd needs zstandard: pip install zstandard") from error
    return zstandard
