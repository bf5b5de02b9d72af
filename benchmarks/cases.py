"""Codecs measured side by side: ways to compress a chunk and to get it back, of this package and of its peers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numcodecs
from isal import isal_zlib
from raw import Engine, RawDeflate, RawInflate
from zlib_ng import zlib_ng

from numcodecs_qpl import QPL, demo
from numcodecs_qpl.bench.data import DATA_SETS

KIB = 1 << 10
MIB = 1 << 20

ATLAS = "the demo's atlas"
EVERY_DATA_SET = (*DATA_SETS, ATLAS)
"""Names that `chunk` knows."""


class Contender(NamedTuple):
    """One chunk, ready to be encoded and decoded again and again.

    Attributes
    ----------
    encode, decode : callable
        Each does the whole chunk once; its result is ignored.
    encoded_size : int
        Bytes of the encoded chunk.
    """

    encode: Callable[[], object]
    decode: Callable[[], object]
    encoded_size: int


def size_name(size: int) -> str:
    """Return a size in bytes as "4 KiB" or "1 MiB"."""
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"


@cache
def chunk(data_set: str, size: int) -> bytes:
    """The first `size` bytes of a data set."""
    return atlas()[:size] if data_set == ATLAS else DATA_SETS[data_set](size)


@cache
def atlas() -> bytes:
    """The demo's chunks, one after the other."""
    data = demo.load(quick=False)
    return b"".join(data[region].tobytes() for _, region in demo.chunks_of(data))


def raw(data: bytes, engine: Engine, *, block_size: int = 64 * KIB) -> Contender:
    """A library in a loop in C: dynamic tables, blocks of `block_size` bytes, each a stream of its own."""
    deflate = RawDeflate(engine, data, block_size)
    return Contender(deflate, RawInflate.of(engine, deflate, data, block_size), deflate.size)


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
    "libqpl in C": partial(raw, engine="libqpl"),
    "ISA-L in C": partial(raw, engine="ISA-L"),
    "QPL()": lambda data: codec(QPL(), data),
    "Zlib(1)": lambda data: codec(numcodecs.Zlib(1), data),
    "GZip(1)": lambda data: codec(numcodecs.GZip(1), data),
    "Zstd(1)": lambda data: codec(numcodecs.Zstd(1), data),
    "LZ4()": lambda data: codec(numcodecs.LZ4(), data),
    "Blosc()": lambda data: codec(numcodecs.Blosc(), data),
    "isal_zlib, 1": lambda data: functions(partial(isal_zlib.compress, level=1), isal_zlib.decompress, data),
    "zlib_ng, 1": lambda data: functions(partial(zlib_ng.compress, level=1), zlib_ng.decompress, data),
}
"""Codecs measured at every size, by their names in the tables."""

OTHER_CONTAINERS: dict[str, Callable[[bytes], Contender]] = {
    'QPL(container="zlib")': lambda data: codec(QPL(container="zlib"), data),
    'QPL(container="deflate")': lambda data: codec(QPL(container="deflate"), data),
}
"""Measured at 1 MiB only."""
