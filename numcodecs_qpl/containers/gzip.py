"""gzip (RFC 1952): one or more members, with an index in their headers.

Each member that is written here tells its own size in an FEXTRA subfield "IG", as PyPI's ``pgzip`` writes it (read in
its version 0.4.0; ``docs/format.md`` has it byte by byte), and its trailer tells the uncompressed one. So a reader
finds every member by hopping, without inflating.
"""

from __future__ import annotations

import struct
from array import array
from typing import NamedTuple

import numpy as np
from isal import isal_zlib

from numcodecs_qpl._core import (
    MAX_BLOCK,
    OUTPUT_SLACK,
    BytesWriter,
    CorruptDataError,
    compress_blocks,
    compress_bound,
    decompress_blocks,
    path_in_force,
)
from numcodecs_qpl.containers._inflate import (
    MAX_EXPANSION,
    Reader,
    Sink,
    Stream,
    note_inflate,
)
from numcodecs_qpl.containers.beginnings import GZIP, looks_like

FHCRC, FEXTRA, FNAME, FCOMMENT = 2, 4, 8, 16
_RESERVED = 0xE0

_OS_UNKNOWN = 255
_XFL = {1: 4, 3: 0}
"""XFL of each level: 4 says that the fastest algorithm was used."""

INDEX_ID = b"IG"
HEADER = struct.Struct("<3sBIBBH2sHI")
"""Magic, FLG, MTIME, XFL, OS, XLEN, subfield ID, its length, the member's size in bytes."""

_INDEX_FIELD = (8, INDEX_ID, 4)
"""XLEN, subfield ID and length of a header that is laid out as HEADER."""
TRAILER = struct.Struct("<II")
"""CRC-32 and size modulo 2**32 of the uncompressed bytes."""

_FIXED = struct.Struct("<3sBIBB")
_SHORTEST_STREAM = 2
"""Bytes of the raw deflate stream of nothing."""

_WINDOW = 1 << 18
"""Bytes that are copied at once in a search."""


def encode(src: memoryview, *, level: int, dynamic: bool, block_size: int) -> bytes:
    """Compress `src` into members of `block_size` uncompressed bytes, independent of each other; MTIME is 0."""
    count = max(1, -(-len(src) // block_size))
    last = len(src) - (count - 1) * block_size
    around = HEADER.size + TRAILER.size
    bound = (count - 1) * (around + compress_bound(block_size)) + around + compress_bound(last)
    writer = BytesWriter(bound)
    offsets, lengths, crcs = compress_blocks(
        src, writer, block_size, level=level, dynamic=dynamic, head=HEADER.size, tail=TRAILER.size
    )
    end = 0
    with memoryview(writer) as view:
        members = zip(offsets.tolist(), lengths.tolist(), crcs.tolist(), strict=True)
        for number, (start, length, crc) in enumerate(members):
            end = start + length + TRAILER.size
            HEADER.pack_into(
                view,
                start - HEADER.size,
                GZIP,
                FEXTRA,
                0,
                _XFL[level],
                _OS_UNKNOWN,
                8,
                INDEX_ID,
                4,
                HEADER.size + length + TRAILER.size,
            )
            size = last if number == count - 1 else block_size
            TRAILER.pack_into(view, start + length, crc, size)
    return writer.finish(end)


def decode(src: memoryview, out: memoryview | None, reader: Reader) -> bytes | None:
    """Inflate every member of `src`, of any producer.

    Raises
    ------
    CorruptDataError
        If the data is not gzip, is damaged or truncated, or has something else than zeros after the last member.
    ValueError
        If `out` is of another size than the data inflates to.
    """
    signature = _signature(_header(src, 0))
    if signature in reader.needs_inflate:
        note_inflate("producer known to need it")
        return _decode_serially(src, out)
    plan = _plan(src)
    if plan is not None and out is not None and len(out) != sum(plan.sizes):
        plan = None  # either is wrong, and only inflating tells which
    if plan is not None:
        size = sum(plan.sizes)
        if out is not None:
            if _decode_planned(src, plan, out):
                return None
        else:
            writer = BytesWriter(size + OUTPUT_SLACK)
            with memoryview(writer) as view:
                whole = _decode_planned(src, plan, view)
            if whole:
                return writer.finish(size)
    result = _decode_serially(src, out)
    # It was no damage, then, but a producer of streams that libqpl does not read, or of members without an index.
    if plan is None:
        note_inflate("no plan from headers and trailers")
    else:
        note_inflate("not readable by libqpl")
        reader.needs_inflate.add(signature)
    return result


class _Header(NamedTuple):
    flags: int
    extra_flags: int
    os: int
    end: int
    member_size: int | None


class _Plan(NamedTuple):
    """Where the members' streams are, and what their trailers say, before anything is inflated."""

    offsets: array[int]
    lengths: array[int]
    sizes: array[int]
    crcs: array[int]


def _signature(header: _Header) -> bytes:
    """What tells one producer from another: FLG, XFL, OS, and whether there is an index."""
    indexed = header.member_size is not None
    return bytes((header.flags, header.extra_flags, header.os, indexed))


def _header(src: memoryview, at: int) -> _Header:
    """Read the member header at `at`, whatever it has in it."""
    if len(src) - at >= HEADER.size:
        magic, flags, _mtime, extra_flags, os, *field, member_size = HEADER.unpack_from(src, at)
        if magic == GZIP and flags == FEXTRA and tuple(field) == _INDEX_FIELD:
            return _Header(flags, extra_flags, os, at + HEADER.size, member_size)
    return _any_header(src, at)


def _any_header(src: memoryview, at: int) -> _Header:
    """Read a header of any layout."""
    beginning = bytes(src[at : at + len(GZIP)])
    if not GZIP.startswith(beginning):
        what = f"; {len(src) - at} bytes follow the last member" if at else looks_like(src)
        raise CorruptDataError(
            f"no gzip member begins at byte {at}: {beginning.hex(' ')} instead of {GZIP.hex(' ')}{what}"
        )
    try:
        _, flags, _mtime, extra_flags, os, *_ = _FIXED.unpack_from(src, at)
    except struct.error:
        raise CorruptDataError(f"the gzip header at byte {at} is truncated: the data has {len(src)} bytes") from None
    if flags & _RESERVED:
        raise CorruptDataError(f"the gzip header at byte {at} has reserved flags: {flags:#04x}")
    end = at + _FIXED.size
    member_size = None
    if flags & FEXTRA:
        start = end + 2
        end = start + int.from_bytes(src[end:start], "little")
        member_size = _indexed_size(bytes(src[start:end]))
    for flag in (FNAME, FCOMMENT):
        if flags & flag:
            end = _after_zero(src, end, at)
    if flags & FHCRC:
        stated = int.from_bytes(src[end : end + 2], "little")
        if end + 2 <= len(src) and isal_zlib.crc32(src[at:end]) & 0xFFFF != stated:
            raise CorruptDataError(f"the gzip header at byte {at} does not have its own CRC-16")
        end += 2
    if end > len(src):
        raise CorruptDataError(f"the gzip header at byte {at} is truncated: the data ends before it does")
    return _Header(flags, extra_flags, os, end, member_size)


def _after_zero(src: memoryview, start: int, at: int) -> int:
    """Offset after the zero byte that ends the string at `start`."""
    while start < len(src):
        piece = bytes(src[start : start + 4096])
        zero = piece.find(0)
        if zero >= 0:
            return start + zero + 1
        start += len(piece)
    raise CorruptDataError(f"the gzip header at byte {at} is truncated: a name does not end")


def _indexed_size(extra: bytes) -> int | None:
    """Member size that an FEXTRA field tells, or None if it has no such subfield."""
    at = 0
    while at + 4 <= len(extra):
        length = int.from_bytes(extra[at + 2 : at + 4], "little")
        if extra[at : at + 2] == INDEX_ID and length == 4:
            return int.from_bytes(extra[at + 4 : at + 8], "little")
        at += 4 + length
    return None


def _plan(src: memoryview) -> _Plan | None:
    """Find the members by their index; None where that, or what they claim, cannot be right.

    A member without an index is taken to be the last one.
    """
    on_hardware = path_in_force() == "hardware"
    plan = _Plan(*(array("q") for _ in _Plan._fields))
    at = 0
    while at < len(src):
        try:
            header = _header(src, at)
        except CorruptDataError:
            return None
        end = len(src) if header.member_size is None else at + header.member_size
        length = end - TRAILER.size - header.end
        if length < _SHORTEST_STREAM or end > len(src):
            return None
        crc, size = TRAILER.unpack_from(src, end - TRAILER.size)
        # Never take memory for more than such a stream can hold. A CRC and a size of 0 prove nothing: the end of a
        # truncated stream may be zeros, and libqpl takes it for a whole one.
        if not 0 < size <= min(MAX_EXPANSION * length, MAX_BLOCK):
            return None
        if (on_hardware or header.member_size is None) and _ends_early(src[header.end : end]):
            return None
        plan.offsets.append(header.end)
        plan.lengths.append(length)
        plan.sizes.append(size)
        plan.crcs.append(crc)
        at = end
        if _is_padding(src, at):
            break
    return plan if sum(plan.sizes) <= MAX_BLOCK else None


def _is_padding(src: memoryview, at: int) -> bool:
    """Whether nothing but zeros follows."""
    return at < len(src) and src[at] == 0 and not np.frombuffer(src, np.uint8, offset=at).any()


def _ends_early(rest: memoryview) -> bool:
    """Return True if the trailer also occurs earlier, so that the member may end there.

    libqpl stops at the end of the first stream. On hardware it does not say where that is, and it would find all as the
    last trailer says.
    """
    trailer = bytes(rest[-TRAILER.size :])
    earlier = rest[:-1]
    starts = range(0, len(earlier), _WINDOW)
    return any(trailer in bytes(earlier[start : start + _WINDOW + TRAILER.size - 1]) for start in starts)


def _decode_planned(src: memoryview, plan: _Plan, dst: memoryview) -> bool:
    """Inflate by libqpl, and say whether every member came out as its trailer says."""
    statuses, read, written, crcs = decompress_blocks(src, plan.offsets, plan.lengths, dst, plan.sizes)
    if any(statuses) or read != plan.lengths.tolist() or written != plan.sizes.tolist():
        return False
    start = 0
    for number, size in enumerate(written):
        if crcs[number] < 0:
            crcs[number] = isal_zlib.crc32(dst[start : start + size])
        start += size
    return crcs == plan.crcs.tolist()


def _decode_serially(src: memoryview, out: memoryview | None) -> bytes | None:
    """Inflate by ISA-L, member after member. What it finds wrong is wrong."""
    sink = Sink(out)
    at = 0
    number = 0
    while at < len(src):
        if number and _is_padding(src, at):
            break
        what = f"gzip member {number} at byte {at}"
        stream = Stream(src, _header(src, at).end, what)
        crc = 0
        before = sink.size
        for piece in stream.pieces():
            crc = isal_zlib.crc32(piece, crc)
            sink.write(piece)
        at = stream.end + TRAILER.size
        if at > len(src):
            raise CorruptDataError(f"{what} is truncated: the data ends before its trailer does")
        stated_crc, stated_size = TRAILER.unpack_from(src, stream.end)
        size = sink.size - before
        if stated_crc != crc:
            raise CorruptDataError(
                f"{what} is damaged: its bytes have CRC-32 {crc:08x}, its trailer says {stated_crc:08x}"
            )
        if stated_size != size & 0xFFFFFFFF:
            raise CorruptDataError(f"{what} is damaged: it inflates to {size} bytes, its trailer says {stated_size}")
        number += 1
    return sink.finish()
