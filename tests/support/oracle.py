"""Independent readers of gzip, zlib, raw deflate and pages: Python's zlib and the rules of the RFCs.

Tests compare every reader of the package with these. They share no code with the package and ignore the index.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Final

LIMIT: Final = 1 << 30
"""Bytes that one input may inflate to, unless the caller says less."""

FHCRC, FEXTRA, FNAME, FCOMMENT, RESERVED = 2, 4, 8, 16, 0xE0

ILL_FORMED: Final = (
    "invalid bit length repeat",
    "invalid distance code",
    "invalid distances set",
    "invalid literal/length code",
    "invalid literal/lengths set",
    "too many length or distance symbols",
)
"""zlib's reasons for streams that RFC 1951 does not define, and on which inflaters differ.

Measured against zlib 1.2.13: libdeflate 1.14 and 1.25 accept unused codes and the length symbols 286 and 287.
libdeflate 1.14 also accepts a repeat that exceeds the number of code lengths. ISA-L (in PyPI's isal 1.9.1) accepts
incomplete sets of codes. No known compressor writes such a stream. `RefusedError.ill_formed` marks these errors.
"""


class RefusedError(Exception):
    """The input is not what it should be.

    Attributes
    ----------
    reason : str
        What is wrong.
    follows : int or None
        Offset of the first byte that must not follow a stream, if that is the fault.
    """

    def __init__(self, reason: str, follows: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.follows = follows

    @property
    def ill_formed(self) -> bool:
        """True if inflaters differ on this kind of damage: one of ILL_FORMED."""
        return self.reason.endswith(ILL_FORMED)


class TooLargeError(Exception):
    """The input inflates to more than the caller's limit: no verdict."""


def inflate(data: bytes, start: int, limit: int = LIMIT) -> tuple[bytes, int]:
    """Bytes of the deflate stream that begins at `start`, and the offset of its end."""
    inflater = zlib.decompressobj(-15)
    try:
        inflated = inflater.decompress(memoryview(data)[start:], limit + 1)
    except zlib.error as error:
        raise RefusedError(str(error)) from error
    if len(inflated) > limit:
        raise TooLargeError
    if not inflater.eof:
        raise RefusedError("truncated: the deflate stream does not end")
    return inflated, len(data) - len(inflater.unused_data)


def skip_padding(data: bytes, at: int) -> int:
    """Offset of the first byte from `at` on that is not zero, or the end of the data."""
    match = re.compile(rb"\0*").match(data, at)
    assert match
    return match.end()


def _only_padding(data: bytes, at: int) -> None:
    end = skip_padding(data, at)
    if end < len(data):
        raise RefusedError("something follows the stream", end)


def read_deflate(data: bytes, limit: int = LIMIT) -> bytes:
    """Inflate one raw deflate stream (RFC 1951), with zeros after it at most."""
    inflated, end = inflate(data, 0, limit)
    _only_padding(data, end)
    return inflated


def read_zlib(data: bytes, limit: int = LIMIT) -> bytes:
    """Inflate one zlib stream (RFC 1950), with zeros after it at most."""
    if len(data) < 2:
        raise RefusedError("truncated: no zlib header")
    if data[0] & 15 != 8 or data[0] >> 4 > 7 or int.from_bytes(data[:2], "big") % 31:
        raise RefusedError("not a zlib header")
    if data[1] & 0x20:
        raise RefusedError("a preset dictionary is needed")
    inflated, end = inflate(data, 2, limit)
    if len(data) < end + 4:
        raise RefusedError("truncated: no Adler-32")
    if zlib.adler32(inflated) != int.from_bytes(data[end : end + 4], "big"):
        raise RefusedError("the Adler-32 differs")
    _only_padding(data, end + 4)
    return inflated


def gzip_header(data: bytes, at: int) -> int:
    """Offset of the deflate stream of the gzip member that begins at `at` (RFC 1952, 2.3)."""
    if not b"\x1f\x8b\x08".startswith(data[at : at + 3]):
        raise RefusedError("not a gzip member", at)
    if len(data) < at + 10:
        raise RefusedError("truncated: a gzip header")
    flags = data[at + 3]
    if flags & RESERVED:
        raise RefusedError("reserved flags")
    end = at + 10
    if flags & FEXTRA:
        if len(data) < end + 2:
            raise RefusedError("truncated: XLEN")
        end += 2 + int.from_bytes(data[end : end + 2], "little")
    for flag in (FNAME, FCOMMENT):
        if flags & flag:
            end = data.find(b"\0", end) + 1
            if not end:
                raise RefusedError("truncated: a name without an end")
    if flags & FHCRC:
        if len(data) < end + 2:
            raise RefusedError("truncated: CRC-16")
        if zlib.crc32(data[at:end]) & 0xFFFF != int.from_bytes(data[end : end + 2], "little"):
            raise RefusedError("the CRC-16 differs")
        end += 2
    if len(data) < end:
        raise RefusedError("truncated: a gzip header")
    return end


def read_gzip(data: bytes, limit: int = LIMIT) -> bytes:
    """Inflate all gzip members (RFC 1952), with zeros after each at most."""
    at = 0
    pieces: list[bytes] = []
    while not pieces or at < len(data):
        inflated, end = inflate(data, gzip_header(data, at), limit)
        if len(data) < end + 8:
            raise RefusedError("truncated: a gzip trailer")
        if struct.unpack_from("<II", data, end) != (zlib.crc32(inflated), len(inflated) & 0xFFFFFFFF):
            raise RefusedError("the CRC-32 or ISIZE differs")
        limit -= len(inflated)
        pieces.append(inflated)
        at = skip_padding(data, end + 8)
    return b"".join(pieces)


def read_pages(payload: bytes, lengths: Sequence[int], page_size: int) -> bytes:
    """Inflate pages: raw deflate streams. A page of full length is stored as it is.

    Bytes after a stream that its length still covers are ignored, as QEMU ignores them: no device could tell.
    """
    if sum(lengths) != len(payload) or not all(0 < length <= page_size for length in lengths):
        raise RefusedError("the lengths do not fit the payload")
    pages, at = [], 0
    for length in lengths:
        piece = payload[at : at + length]
        at += length
        if length < page_size:
            try:
                piece, _ = inflate(piece, 0, page_size)
            except TooLargeError:
                raise RefusedError("a page is too long") from None
            if len(piece) < page_size:
                raise RefusedError("a page is too short")
        pages.append(piece)
    return b"".join(pages)


READERS: Final[dict[str, Callable[..., bytes]]] = {"gzip": read_gzip, "zlib": read_zlib, "deflate": read_deflate}
"""Reader of each container."""
