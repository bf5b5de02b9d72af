"""Bare deflate (RFC 1951): one stream, with neither size nor checksum.

Damage goes unseen here where it leaves a valid stream; take gzip or zlib unless something else needs this.
"""

from __future__ import annotations

from array import array

from numcodecs_qpl._core import (
    BytesWriter,
    CorruptDataError,
    compress_blocks,
    compress_bound,
    decompress_blocks,
)
from numcodecs_qpl.containers._inflate import Reader, Sink, Stream, note_inflate

_SIGNATURE = b""
"""There is nothing that would tell one producer from another."""


def encode(src: memoryview, *, level: int, dynamic: bool, block_size: int) -> bytes:
    """Compress `src` as one stream; `block_size` is not used."""
    writer = BytesWriter(compress_bound(len(src)))
    _, lengths, _ = compress_blocks(src, writer, max(1, len(src)), level=level, dynamic=dynamic)
    return writer.finish(int(lengths[0]))


def decode(src: memoryview, out: memoryview | None, reader: Reader) -> bytes | None:
    """Inflate one raw stream of any producer.

    Where `out` tells the size, libqpl does it. Where nothing does, only ISA-L can tell a whole stream from a
    truncated one.

    Raises
    ------
    CorruptDataError
        If the stream is damaged or truncated, as far as that can be seen, or goes on after its end.
    ValueError
        If `out` is of another size than the data inflates to.
    """
    if out is None:
        note_inflate("bare deflate of unknown size")
    elif _SIGNATURE in reader.needs_inflate:
        note_inflate("producer known to need it")
    elif _decode_by_libqpl(src, out):
        return None
    sink = Sink(out)
    stream = Stream(src, 0, "the deflate stream")
    for piece in stream.pieces():
        sink.write(piece)
    if stream.end < len(src):
        raise CorruptDataError(f"{len(src) - stream.end} bytes follow the deflate stream")
    result = sink.finish()
    if out is not None and len(out) and _SIGNATURE not in reader.needs_inflate:
        reader.needs_inflate.add(_SIGNATURE)
        note_inflate("not readable by libqpl")
    return result


def _decode_by_libqpl(src: memoryview, out: memoryview) -> bool:
    if not len(src) or not len(out):
        return False
    status, read, written, _ = decompress_blocks(
        src, array("q", [0]), array("q", [len(src)]), out, array("q", [len(out)])
    )
    return bool(not status[0] and read[0] == len(src) and written[0] == len(out))
