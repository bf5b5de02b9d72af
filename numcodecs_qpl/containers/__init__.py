"""What stands around raw deflate: gzip members with an index, zlib, bare deflate.

A container is a pair of functions; adding one is writing the pair and naming it in `CONTAINERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from numcodecs_qpl.containers import deflate, gzip, zlib
from numcodecs_qpl.containers._inflate import Reader, inflate_stats, reset_inflate_stats

__all__ = ["CONTAINERS", "Container", "Reader", "inflate_stats", "reset_inflate_stats"]


class Container(NamedTuple):
    """A container's two functions.

    Attributes
    ----------
    encode : callable
        ``encode(src, *, level, dynamic, block_size) -> bytes``; `src` is a memoryview of bytes.
    decode : callable
        ``decode(src, out, reader) -> bytes or None``; `out` is a writable memoryview of bytes that is filled exactly
        (and None comes back), or None.
    blocks : bool
        Whether `block_size` means anything: a container of one stream has no blocks.
    """

    encode: Callable[..., bytes]
    decode: Callable[[memoryview, memoryview | None, Reader], bytes | None]
    blocks: bool


CONTAINERS = {
    "gzip": Container(gzip.encode, gzip.decode, blocks=True),
    "zlib": Container(zlib.encode, zlib.decode, blocks=False),
    "deflate": Container(deflate.encode, deflate.decode, blocks=False),
}
