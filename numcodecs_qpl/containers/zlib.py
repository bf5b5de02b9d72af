"""zlib (RFC 1950): one deflate stream with a two-byte header and an Adler-32."""

from __future__ import annotations

from numcodecs_qpl._core import CorruptDataError, compress_blocks, compress_stream
from numcodecs_qpl.containers.beginnings import is_zlib, looks_like
from numcodecs_qpl.containers.streams import Reader, check_filled, check_nothing_follows, first_guess, inflate

HEADER = b"\x48\x0d"
"""Deflate, 4 KiB window, no dictionary; the low five bits of FLG make it a multiple of 31."""
_HEADERS = ((1, b"\x78\x01"), (5, b"\x78\x5e"), (6, b"\x78\x9c"), (9, b"\x78\xda"))
"""Deflate, 32 KiB window, FLEVEL 0 to 3 (RFC 1950, 2.2), with the highest level that zlib gives each."""
_TRAILER_SIZE = 4
_FDICT = 0x20
_WHAT = "the zlib stream"


def encode(src: memoryview, *, dynamic: bool, block_size: int) -> bytes:
    """Compress `src` as one stream of blocks of `block_size` uncompressed bytes."""
    writer, end, adler = compress_blocks(src, block_size, dynamic=dynamic, checksum="adler32", head=HEADER)
    return writer.finish(end, adler.to_bytes(_TRAILER_SIZE, "big"))


def encode_at_level(src: memoryview, level: int) -> bytes:
    """Compress `src` as one stream at level 0 (stored) to 9, in software, with a window of 32 KiB."""
    header = next(header for highest, header in _HEADERS if level <= highest)
    writer, end, adler = compress_stream(src, level, checksum="adler32", head=header)
    return writer.finish(end, adler.to_bytes(_TRAILER_SIZE, "big"))


def decode(src: memoryview, out: memoryview | None, reader: Reader, *, lenient: bool = False) -> bytes | None:
    """Inflate one zlib stream of any producer. A lenient call ignores what follows it, as ``zlib.decompress`` does.

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
    if not lenient:
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
