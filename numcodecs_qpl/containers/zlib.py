"""zlib (RFC 1950): one deflate stream with a two-byte header and an Adler-32."""

from __future__ import annotations

import numpy as np
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

HEADER = b"\x48\x0d"
"""Deflate, 4 KiB window, no dictionary; the low five bits of FLG make it a multiple of 31."""
_TRAILER_SIZE = 4
_FDICT = 0x20
_FIRST_GUESS = 1 << 16


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
    result = _decode_by_libqpl(src, out, reader.size_hint)
    if result is None:
        inflated = _decode_by_isal(src, out)
        reader.needs_inflate.add(signature)
        note_inflate("not readable by libqpl")
        return inflated
    reader.size_hint = len(result)
    return None if isinstance(result, memoryview) else result


def _check_header(src: memoryview) -> bytes:
    """Check the header and the least size; returns the header, which tells one producer from another."""
    header = bytes(src[:2])
    if len(header) < len(HEADER):
        raise CorruptDataError(f"the zlib header is truncated: the data has {len(src)} bytes")
    method, window = header[0] & 15, header[0] >> 4
    if method != 8 or window > 7 or int.from_bytes(header, "big") % 31:
        raise CorruptDataError(f"this is no zlib stream: it begins with {header.hex(' ')}")
    if header[1] & _FDICT:
        raise CorruptDataError("the zlib stream needs a preset dictionary, which is not supported")
    return header


def _decode_by_libqpl(src: memoryview, out: memoryview | None, size_hint: int) -> bytes | memoryview | None:
    """Inflate by libqpl, to bytes or into `out`; None unless size and Adler-32 prove that it is all and right."""
    stream = src[len(HEADER) : -_TRAILER_SIZE]
    stated = int.from_bytes(src[-_TRAILER_SIZE:], "big")
    if not len(stream):
        return None
    result: bytes | memoryview
    if out is not None:
        status, read, written, _ = decompress_blocks(
            stream,
            np.zeros(1, np.int64),
            np.array([len(stream)], np.int64),
            out,
            np.array([len(out)], np.int64),
        )
        if status[0] or read[0] != len(stream) or written[0] != len(out):
            return None
        result = out
    else:
        limit = min(MAX_BLOCK, MAX_EXPANSION * len(stream))
        guess = size_hint or max(_FIRST_GUESS, 4 * len(stream))
        try:
            result = decompress_stream(stream, guess, limit)
        except CorruptDataError:
            return None
    return result if isal_zlib.adler32(result) == stated else None


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
        raise CorruptDataError("the zlib stream is truncated: its Adler-32 ends with the data")
    if end < len(src):
        raise CorruptDataError(f"{len(src) - end} bytes follow the zlib stream")
    stated = int.from_bytes(src[stream.end :], "big")
    if adler != stated:
        raise CorruptDataError(f"the zlib stream is damaged: Adler-32 {adler:08x}, not {stated:08x}")
    return sink.finish()
