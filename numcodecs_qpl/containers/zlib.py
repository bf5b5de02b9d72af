"""zlib (RFC 1950): one deflate stream with a two-byte header and an Adler-32."""

from __future__ import annotations

from array import array

from isal import isal_zlib

from numcodecs_qpl._core import (
    MAX_BLOCK,
    BytesWriter,
    CorruptDataError,
    compress_blocks,
    compress_bound,
    decompress_blocks,
    decompress_stream,
)
from numcodecs_qpl.containers._inflate import (
    MAX_EXPANSION,
    Reader,
    Sink,
    Stream,
    note_inflate,
)
from numcodecs_qpl.containers.beginnings import is_zlib, looks_like

HEADER = b"\x48\x0d"
"""Deflate, 4 KiB window, no dictionary; the low five bits of FLG make it a multiple of 31."""
_TRAILER_SIZE = 4
_FDICT = 0x20
_FIRST_GUESS = 1 << 16

_LEAST_PROVEN = 256
"""Bytes below which an Adler-32 proves too little: that of few bytes is mostly zero bits, as the end of a truncated
stream may be, and libqpl takes a truncated stream for a whole one."""


def encode(src: memoryview, *, level: int, dynamic: bool, block_size: int) -> bytes:
    """Compress `src` as one stream; `block_size` is not used."""
    writer = BytesWriter(len(HEADER) + compress_bound(len(src)) + _TRAILER_SIZE)
    offsets, lengths, _ = compress_blocks(
        src,
        writer,
        max(1, len(src)),
        level=level,
        dynamic=dynamic,
        head=len(HEADER),
        tail=_TRAILER_SIZE,
    )
    end = int(offsets[0] + lengths[0])
    with memoryview(writer) as view:
        view[: len(HEADER)] = HEADER
        view[end : end + _TRAILER_SIZE] = isal_zlib.adler32(src).to_bytes(_TRAILER_SIZE, "big")
    return writer.finish(end + _TRAILER_SIZE)


def decode(src: memoryview, out: memoryview | None, reader: Reader) -> bytes | None:
    """Inflate one zlib stream of any producer.

    Raises
    ------
    CorruptDataError
        If the data is not zlib, is damaged or truncated, needs a preset dictionary, or goes on after the stream.
    ValueError
        If `out` is of another size than the data inflates to.
    """
    signature = _check_header(src)
    if signature in reader.needs_inflate:
        note_inflate("producer known to need it")
        return _decode_by_isal(src, out)
    if out is not None:
        if _decode_into(src, out):
            return None
    else:
        result = _decode_to_bytes(src, reader.size_hint)
        if result is not None:
            reader.size_hint = len(result)
            return result
    inflated = _decode_by_isal(src, out)
    # It was no damage, then, but too few bytes for libqpl's word, or a producer of streams that libqpl does not read.
    size = len(out) if out is not None else len(inflated or b"")
    if size < _LEAST_PROVEN:
        note_inflate("too short for an Adler-32 to prove it")
    else:
        note_inflate("not readable by libqpl")
        reader.needs_inflate.add(signature)
    return inflated


def _check_header(src: memoryview) -> bytes:
    """Check the header and the least size; returns the header, which tells one producer from another."""
    header = bytes(src[:2])
    if len(header) < len(HEADER):
        raise CorruptDataError(f"the zlib header is truncated: the data has {len(src)} bytes")
    if not is_zlib(header):
        raise CorruptDataError(f"this is no zlib stream: it begins with {header.hex(' ')}{looks_like(src)}")
    if header[1] & _FDICT:
        raise CorruptDataError("the zlib stream needs a preset dictionary, which is not supported")
    return header


def _body(src: memoryview) -> memoryview:
    """The raw stream, if the data ends with the Adler-32 as it should."""
    return src[len(HEADER) : -_TRAILER_SIZE]


def _proves(src: memoryview, result: bytes | memoryview) -> bool:
    """Whether the Adler-32 at the end of `src` proves `result` to be all and right."""
    return len(result) >= _LEAST_PROVEN and isal_zlib.adler32(result) == int.from_bytes(src[-_TRAILER_SIZE:], "big")


def _decode_into(src: memoryview, out: memoryview) -> bool:
    """Inflate by libqpl into `out`, and say whether it is proven right."""
    stream = _body(src)
    if len(out) < _LEAST_PROVEN or not len(stream):
        return False
    status, read, written, _ = decompress_blocks(
        stream, array("q", [0]), array("q", [len(stream)]), out, array("q", [len(out)])
    )
    return bool(not status[0] and read[0] == len(stream) and written[0] == len(out) and _proves(src, out))


def _decode_to_bytes(src: memoryview, size_hint: int) -> bytes | None:
    """Inflate by libqpl; None unless the result is proven right."""
    stream = _body(src)
    if not len(stream):
        return None
    limit = min(MAX_BLOCK, MAX_EXPANSION * len(stream))
    try:
        result = decompress_stream(stream, size_hint or max(_FIRST_GUESS, 4 * len(stream)), limit)
    except CorruptDataError:
        return None
    return result if _proves(src, result) else None


def _decode_by_isal(src: memoryview, out: memoryview | None) -> bytes | None:
    """Inflate by ISA-L. What it finds wrong is wrong."""
    sink = Sink(out)
    stream = Stream(src, len(HEADER), "the zlib stream")
    adler = 1
    for piece in stream.pieces():
        adler = isal_zlib.adler32(piece, adler)
        sink.write(piece)
    end = stream.end + _TRAILER_SIZE
    if end > len(src):
        raise CorruptDataError("the zlib stream is truncated: the data ends before its Adler-32 does")
    if end < len(src):
        raise CorruptDataError(f"{len(src) - end} bytes follow the zlib stream")
    stated = int.from_bytes(src[stream.end :], "big")
    if adler != stated:
        raise CorruptDataError(
            f"the zlib stream is damaged: its bytes have Adler-32 {adler:08x}, its end says {stated:08x}"
        )
    return sink.finish()
