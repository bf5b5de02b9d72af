"""Fuzz targets: each takes any bytes and raises an AssertionError where a reader's verdict is not the oracle's.

`TARGETS` names them. ``tests/fuzz/run.py`` feeds them by atheris, ``tests/fuzz/test_fuzz.py`` from the corpus.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable
from typing import Final

import damage
import model
import oracle

from numcodecs_qpl import QPL, CorruptDataError, compress_pages, decompress_pages, set_threads
from numcodecs_qpl._core.types import Huffman
from numcodecs_qpl.containers import ContainerName

LIMIT: Final = 4 << 20
"""Bytes that an input may inflate to; larger ones are not tried."""

THREADS: Final = (1, 2)
PAGE_SIZES: Final = (16, 64, 256, 4096)
BLOCK_SIZES: Final = (1, 7, 64, 300, 4096, 65536)
CONTAINERS: Final[tuple[ContainerName, ...]] = ("gzip", "zlib", "deflate")


class SkipError(Exception):
    """The input is not one for this target: atheris does not keep it."""


def _read(container: ContainerName, data: bytes) -> None:
    try:
        oracle.READERS[container](data, LIMIT)
    except oracle.TooLargeError:
        raise SkipError from None
    except oracle.RefusedError:
        pass
    checker = damage.Checker(container)
    for threads in THREADS:
        set_threads(threads)
        # An out of 300 bytes where the oracle knows no size.
        checker.check(f"{container}, {threads} threads", data, damage.TEXT)


def gzip(data: bytes) -> None:
    """Read gzip."""
    _read("gzip", data)


def zlib_(data: bytes) -> None:
    """Read zlib."""
    _read("zlib", data)


def deflate(data: bytes) -> None:
    """Read raw deflate."""
    _read("deflate", data)


def pack_pages(page_size: int, lengths: list[int], payload: bytes) -> bytes:
    """Input of the target `pages`: a byte for the page size, one for the count, the lengths, the payload."""
    number = PAGE_SIZES.index(page_size)
    return struct.pack(f"<BB{len(lengths)}H", number, len(lengths), *lengths) + payload


def pages(data: bytes) -> None:
    """Read pages."""
    if len(data) < 2 or len(data) < 2 + 2 * (data[1] % 16):
        raise SkipError
    page_size, count = PAGE_SIZES[data[0] % len(PAGE_SIZES)], data[1] % 16
    lengths = list(struct.unpack_from(f"<{count}H", data, 2))
    payload = data[2 + 2 * count :]
    right: bytes | None = None
    fault: oracle.RefusedError | None = None
    try:
        right = oracle.read_pages(payload, lengths, page_size)
    except oracle.RefusedError as error:
        fault = error
    for threads in THREADS:
        set_threads(threads)
        memory = bytearray(count * page_size) + damage.CANARY
        for out in (None, memoryview(memory)[: count * page_size]):
            got: bytes | None = None
            with contextlib.suppress(CorruptDataError):
                got = bytes(decompress_pages(payload, lengths, page_size, out=out))
            if fault and fault.ill_formed:
                # Inflaters differ here. The first verdict holds for all threads and every out.
                right, fault = got, None
            assert got == right, f"pages, {threads} threads: {got!r} instead of {fault or right!r}"
        assert memory[count * page_size :] == damage.CANARY, "bytes behind out were written"


def encode(data: bytes) -> None:
    """Write by all encoders, and read by the oracle: the result is what the format says."""
    if len(data) < 1:
        raise SkipError
    choice, content = data[0], data[1:]
    container = CONTAINERS[choice % 3]
    huffman: Huffman = ("dynamic", "fixed")[choice // 3 % 2]
    block_size = BLOCK_SIZES[choice // 6 % len(BLOCK_SIZES)]
    chunks = set()
    for threads in THREADS:
        set_threads(threads)
        chunks.add(bytes(QPL(container=container, block_size=block_size, huffman=huffman).encode(content)))
    (chunk,) = chunks  # the bytes do not depend on the threads
    assert oracle.READERS[container](chunk) == content
    if container == "gzip":
        layout = model.Layout(chunk)
        for piece, part in zip(layout.pieces, model.split(content, layout.block_size or 1), strict=True):
            assert model.check_blocks(piece + model.END, part, layout.block_size) == [piece]
    else:
        stream = chunk[2:-4] if container == "zlib" else chunk
        model.check_blocks(stream, content, block_size)
    assert QPL(container=container).decode(chunk) == content
    page_size = PAGE_SIZES[choice // 36 % len(PAGE_SIZES)]
    whole = content[: len(content) // page_size * page_size]
    lengths, payload = compress_pages(whole, page_size, huffman)
    assert oracle.read_pages(payload, lengths.tolist(), page_size) == whole


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "gzip": gzip,
    "zlib": zlib_,
    "deflate": deflate,
    "pages": pages,
    "encode": encode,
}
"""Targets by name: that of the folder of its corpus."""


def repair(target: str, data: bytes) -> bytes:
    """The input with right checksums and lengths as far as it can be read, so that a mutation does not end at them."""
    changed = bytearray(data)
    try:
        if target == "zlib":
            inflated, end = oracle.inflate(data, 2, LIMIT)
            changed[end : end + 4] = struct.pack(">I", zlib.adler32(inflated))
            changed[:2] = b"\x78\x9c" if data[0] % 2 else b"\x48\x0d"
        elif target == "gzip":
            at = 0
            while at < len(data):
                inflated, end = oracle.inflate(bytes(changed), oracle.gzip_header(bytes(changed), at), LIMIT)
                changed[end : end + 8] = struct.pack("<II", zlib.crc32(inflated), len(inflated))
                at = oracle.skip_padding(bytes(changed), end + 8)
        elif target == "pages" and len(data) > 2 and data[1] % 16 > 0 and len(data) > 2 + 2 * (data[1] % 16):
            count = data[1] % 16
            start = 2 + 2 * count
            rest = len(data) - start - sum(struct.unpack_from(f"<{count - 1}H", data, 2))
            if 0 < rest < 65536:
                changed[start - 2 : start] = struct.pack("<H", rest)
    except (oracle.RefusedError, oracle.TooLargeError, IndexError, struct.error):
        pass
    return bytes(changed)
