"""What every container's reader needs: the limits, where the bytes go, and ISA-L's inflate for what libqpl can't read.

libqpl, hardware and software alike, follows distances up to 4096 bytes only, and its software path takes a truncated
stream for a whole one. ISA-L (PyPI's ``isal``) reads all of deflate and says where a stream ends; it is slower only
where an IAA would have done the work.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from isal import igzip_lib

from numcodecs_qpl._core import MAX_BLOCK, CorruptDataError, Counts

MAX_EXPANSION = 1032
"""No deflate stream inflates to more than this many times its size: 258 bytes from two bits (RFC 1951, 3.2.5)."""

_PIECE = 1 << 17

_counts = Counts()


class Reader:
    """What a codec remembers from one chunk to the next. It changes how fast a chunk is read, never what comes out.

    Attributes
    ----------
    needs_inflate : set of bytes
        Header signatures of producers whose streams libqpl could not read.
    size_hint : int
        Bytes that the chunk before this inflated to; 0 before the first.
    """

    def __init__(self) -> None:
        self.needs_inflate: set[bytes] = set()
        self.size_hint = 0


class Sink:
    """Where inflated bytes go, piece by piece: into `out`, or into memory that grows with what has really come."""

    def __init__(self, out: memoryview | None) -> None:
        self._out = out
        self._grown = io.BytesIO()
        self.size = 0

    def write(self, piece: bytes) -> None:
        """Append `piece`; ValueError where `out` ends, CorruptDataError where a chunk may end."""
        end = self.size + len(piece)
        if self._out is None:
            if end > MAX_BLOCK:
                raise CorruptDataError(
                    f"the data inflates to more than {MAX_BLOCK} bytes, the most that a chunk can have"
                )
            self._grown.write(piece)
        elif end > len(self._out):
            raise ValueError(f"out has {len(self._out)} bytes, but the data inflates to more")
        else:
            self._out[self.size : end] = piece
        self.size = end

    def finish(self) -> bytes | None:
        """All that was written, or None where it went into `out`; ValueError if that is not full."""
        if self._out is None:
            return self._grown.getvalue()
        if self.size != len(self._out):
            raise ValueError(f"out has {len(self._out)} bytes, but the data inflates to {self.size}")
        return None


class Stream:
    """One raw deflate stream of any producer, inflated by ISA-L from `src` at `start`.

    Attributes
    ----------
    end : int
        Offset in `src` of the first byte after the stream, once `pieces` has been used up.
    """

    def __init__(self, src: memoryview, start: int, what: str) -> None:
        self._src = src
        self._start = start
        self._what = what
        self.end = start

    def pieces(self) -> Iterator[bytes]:
        """Yield the inflated bytes, in pieces of bounded size."""
        inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
        at = self._start
        while not inflater.eof:
            piece = self._src[:0]
            if inflater.needs_input:
                piece = self._src[at : at + _PIECE]
                at += len(piece)
                if not piece:
                    raise CorruptDataError(f"{self._what} is truncated: the data ends before it does")
            try:
                inflated = inflater.decompress(piece, _PIECE)
            except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub declares an instance
                raise CorruptDataError(f"{self._what} is damaged: {error}") from error
            if inflated:
                yield inflated
        self.end = at - len(inflater.unused_data)


def note_inflate(reason: str) -> None:
    """Count a chunk that ISA-L read, and why."""
    _counts.add(reason)


def inflate_stats() -> dict[str, int]:
    """Chunks that ISA-L read in this process, by reason."""
    return _counts.seen()


def reset_inflate_stats() -> None:
    """Set the counts of `inflate_stats` to zero."""
    _counts.clear()
