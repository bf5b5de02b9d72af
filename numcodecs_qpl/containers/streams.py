"""Streams of any producer: inflating one and checking what follows it, for every container."""

from __future__ import annotations

import zlib

import numpy as np

from numcodecs_qpl._core import CorruptDataError, decompress_stream

MAX_EXPANSION = 1032
"""No deflate stream inflates to more than this many times its size: 258 bytes from two bits (RFC 1951, 3.2.5)."""

_TOO_SMALL = -1
_SMALLEST = 1 << 16
_USUAL_EXPANSION = 4
_PIECE = 1 << 20


class Reader:
    """What a codec remembers from one chunk to the next. It changes how fast a chunk is read, never what comes out.

    Attributes
    ----------
    size_hint : int
        Bytes that the last chunk inflated to; 0 before the first.
    """

    def __init__(self) -> None:
        self.size_hint = 0


def inflate(
    src: memoryview, start: int, out: memoryview | None, at: int, guess: int, checksum: str, what: str, *place: int
) -> tuple[int, int, int, bytes | None]:
    """Inflate the stream at `start` of `src`; the rest is as for `decompress_stream`.

    Raises
    ------
    CorruptDataError
        If the stream is damaged or truncated. ``what.format(*place)`` names it.
    ValueError
        If it does not fit into `out`.
    """
    result = decompress_stream(src, start, out, at, guess, checksum)
    if result[0] < 0:
        # Behind the end of a cut stream libdeflate reads zeros, and may run out of room before it notices.
        room = len(out) - at if out is not None and result[0] == _TOO_SMALL else None
        if fault := _fault(src[start:], room):
            raise CorruptDataError(f"{what.format(*place)} {fault}")
        raise ValueError(f"out has {len(out or b'')} bytes, but the data inflates to more")
    return result


def check_filled(out: memoryview | None, size: int) -> None:
    """Raise a ValueError if there is an `out` of another size than `size`."""
    if out is not None and len(out) != size:
        raise ValueError(f"out has {len(out)} bytes, but the data inflates to {size}")


def first_guess(src: memoryview, reader: Reader) -> int:
    """Bytes to reserve for a stream of unknown size."""
    return reader.size_hint or max(_SMALLEST, _USUAL_EXPANSION * len(src))


def skip_padding(src: memoryview, at: int) -> int:
    """Offset of the first byte from `at` on that is not zero; the size of `src` if there is none."""
    if at < len(src) and not src[at]:
        rest = np.frombuffer(src, np.uint8, offset=at)
        found = int(np.argmax(rest != 0))
        return at + found if rest[found] else len(src)
    return at


def check_nothing_follows(src: memoryview, end: int, what: str) -> None:
    """Raise a CorruptDataError unless only zeros, which are padding, follow a stream that ends at `end`."""
    if end < len(src) and (at := skip_padding(src, end)) < len(src):
        raise CorruptDataError(
            f"{what} ends at byte {end} of {len(src)}, but byte {at} is {src[at]:#04x}; only zeros may follow"
        )


def _fault(stream: memoryview, room: int | None) -> str:
    """Fault of a stream that cannot be inflated, found by zlib, which tells more.

    It is empty for a stream that inflates to more than `room` bytes, if a room is given.
    """
    inflater = zlib.decompressobj(-15)
    piece: bytes | memoryview = stream
    size = 0
    try:
        while not inflater.eof:
            inflated = len(inflater.decompress(piece, _PIECE))
            piece = inflater.unconsumed_tail
            size += inflated
            if room is not None and size > room:
                return ""
            if not inflated and not piece:
                break
    except zlib.error as error:
        return f"is damaged: {error}"
    return "is damaged" if inflater.eof else f"is truncated: the data ends after {len(stream)} bytes of it"
