"""zlib (RFC 1950): one deflate stream with a two-byte header and an Adler-32."""

from __future__ import annotations

from numcodecs_qpl._core import CorruptDataError, compress_blocks
from numcodecs_qpl.containers.beginnings import is_zlib, looks_like
from numcodecs_qpl.containers.streams import Reader, check_filled, check_nothing_follows, first_guess, inflate

HEADER = b"\x48\x0d"
"""Deflate, 4 KiB window, no dictionary; the low five bits of FLG make it a multiple of 31."""
_TRAILER_SIZE = 4
_FDICT = 0x20
_WHAT = "the zlib stream"


def encode(src: memoryview, *, dynamic: bool, block_size: int) -> bytes:
    """Compress `src` as one stream of blocks of `block_size` uncompressed bytes."""
    writer, end, adler = compress_blocks(src, block_size, dynamic=dynamic, checksum="adler32", head=HEADER)
    return writer.finish(end, adler.to_bytes(_TRAILER_SIZE, "big"))


def decode(src: memoryview, out: memoryview | None, reader: Reader) -> bytes | None:
    """Inflate one zlib stream of any producer.

    Raises
    ------
    CorruptDataError
        If the data is not zlib, is damaged or truncated, needs a preset dictionary, or if other bytes than zeros
        follow.
    ValueError
        If `out` is of another size than the data inflates to.
    """
    _check_header(src)
    stream_end, size, adler, data = inflate(src, len(HEADER), out, 0, first_guess(src, reader), "adler32", _WHAT)
    end = stream_end + _TRAILER_SIZE
    if end > len(src):
        raise CorruptDataError(f"the zlib stream is truncated: its Adler-32 would end at byte {end} of {len(src)}")
    stated = int.from_bytes(src[stream_end:end], "big")
    if adler != stated:
        raise CorruptDataError(
            f"the zlib stream is damaged: its bytes have Adler-32 {adler:08x}, its end (byte {stream_end}) says "
            f"{stated:08x}"
        )
    check_nothing_follows(src, end, _WHAT)
    check_filled(out, size)
    reader.size_hint = size
    return data


def _check_header(src: memoryview) -> None:
    header = bytes(src[: len(HEADER)])
    if len(header) < len(HEADER):
        raise CorruptDataError(f"the zlib header is truncated: the data has {len(src)} bytes")
    if not is_zlib(header):
        raise CorruptDataError(f"this is not a zlib stream: it begins with {header.hex(' ')}{looks_like(src)}")
    if header[1] & _FDICT:
        raise CorruptDataError("the zlib stream needs a preset dictionary, which is not supported")
