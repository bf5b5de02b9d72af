"""Containers of raw deflate: gzip with an index, zlib, bare deflate.

A container is a pair of functions; adding one is writing the pair and naming it in `CONTAINERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from numcodecs_qpl.containers import deflate, gzip, zlib
from numcodecs_qpl.containers.streams import Reader

__all__ = ["CONTAINERS", "Container", "Reader"]


class Container(NamedTuple):
    """A container's two functions.

    Attributes
    ----------
    encode : callable
        ``encode(src, *, dynamic, block_size) -> bytes``; `src` is a memoryview of bytes.
    decode : callable
        ``decode(src, out, reader) -> bytes or None``; `out` is a writable memoryview of bytes that is filled exactly
        (and None comes back), or None.
    """

    encode: Callable[..., bytes]
    decode: Callable[[memoryview, memoryview | None, Reader], bytes | None]


CONTAINERS = {
    "gzip": Container(gzip.encode, gzip.decode),
    "zlib": Container(zlib.encode, zlib.decode),
    "deflate": Container(deflate.encode, deflate.decode),
}
