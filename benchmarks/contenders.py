"""What is measured side by side: a way to compress a chunk and to get it back, of this package and of its peers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numcodecs
from isal import isal_zlib
from raw_qpl import RawQpl
from zlib_ng import zlib_ng

from numcodecs_qpl import QPL
from numcodecs_qpl.bench.data import DATA_SETS

KIB = 1 << 10
MIB = 1 << 20


class Contender(NamedTuple):
    """One chunk, ready to be encoded and decoded again and again.

    Attributes
    ----------
    encode, decode : callable
        Each does the whole chunk once; what it returns is not looked at.
    encoded_size : int
        Bytes of the encoded chunk.
    """

    encode: Callable[[], object]
    decode: Callable[[], object]
    encoded_size: int


def size_name(size: int) -> str:
    """A size in bytes as people say it."""
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"


@cache
def chunk(data_set: str, size: int) -> bytes:
    """The first `size` bytes of a data set."""
    return DATA_SETS[data_set](size)


def raw(data: bytes, *, block_size: int = 64 * KIB) -> Contender:
    """libqpl in a loop in C: level 1, dynamic tables, blocks of `block_size` bytes."""
    loop = RawQpl(data, block_size)
    return Contender(loop.encode, loop.decode, loop.encoded_size)


def functions(encode: Callable[[bytes], Any], decode: Callable[[Any], Any], data: bytes) -> Contender:
    """A pair of Python functions, as a user would call them."""
    encoded = encode(data)
    if bytes(decode(encoded)) != data:
        raise RuntimeError(f"{decode} does not give back what was put in")
    return Contender(partial(encode, data), partial(decode, encoded), len(encoded))


def codec(codec: Any, data: bytes) -> Contender:
    """A codec with numcodecs' interface, without `out`."""
    return functions(codec.encode, codec.decode, data)


EVERY_SIZE: dict[str, Callable[[bytes], Contender]] = {
    "libqpl in C": raw,
    "QPL()": lambda data: codec(QPL(), data),
    "Zlib(1)": lambda data: codec(numcodecs.Zlib(1), data),
    "GZip(1)": lambda data: codec(numcodecs.GZip(1), data),
    "Zstd(1)": lambda data: codec(numcodecs.Zstd(1), data),
    "LZ4()": lambda data: codec(numcodecs.LZ4(), data),
    "Blosc()": lambda data: codec(numcodecs.Blosc(), data),
    "isal_zlib, 1": lambda data: functions(partial(isal_zlib.compress, level=1), isal_zlib.decompress, data),
    "zlib_ng, 1": lambda data: functions(partial(zlib_ng.compress, level=1), zlib_ng.decompress, data),
}
"""By the name in the tables: who is measured at every size."""

ONE_STREAM: dict[str, Callable[[bytes], Contender]] = {
    "libqpl in C, one block": lambda data: raw(data, block_size=len(data)),
    'QPL(container="zlib")': lambda data: codec(QPL(container="zlib"), data),
    'QPL(container="deflate")': lambda data: codec(QPL(container="deflate"), data),
}
"""Those that make one stream of a chunk, measured at 1 MiB besides."""
