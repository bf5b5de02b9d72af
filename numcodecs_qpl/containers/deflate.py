"""Bare deflate (RFC 1951): one stream, with neither size nor checksum.

Damage goes unseen if it leaves a valid stream; take gzip or zlib unless something else needs this.
"""

from __future__ import annotations

from numcodecs_qpl._core import compress_blocks
from numcodecs_qpl.containers.streams import Reader, check_filled, check_nothing_follows, first_guess, inflate

_WHAT = "the deflate stream"


def encode(src: memoryview, *, dynamic: bool, block_size: int) -> bytes:
    """Compress `src` as one stream of blocks of `block_size` uncompressed bytes."""
    writer, end, _ = compress_blocks(src, block_size, dynamic=dynamic)
    return writer.finish(end)


def decode(src: memoryview, out: memoryview | None, reader: Reader) -> bytes | None:
    """Inflate one raw stream of any producer.

    Raises
    ------
    CorruptDataError
        If the stream is damaged, as far as that can be seen, or truncated, or if other bytes than zeros follow it.
    ValueError
        If `out` is of another size than the data inflates to.
    """
    end, size, _, data = inflate(src, 0, out, 0, first_guess(src, reader), "", _WHAT)
    check_nothing_follows(src, end, _WHAT)
    check_filled(out, size)
    reader.size_hint = size
    return data
