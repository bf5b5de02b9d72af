"""gzip (RFC 1952): one member per chunk, with an index of its blocks in the header.

The index is an FEXTRA subfield "QB"; ``docs/format.md`` has it byte by byte. With it, threads and devices inflate the
blocks side by side. It is a hint: if it is wrong or missing, the stream is inflated as any other, with the same result.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from numcodecs_qpl._core import (
    BytesWriter,
    CorruptDataError,
    compress_blocks,
    compress_stream,
    decompress_blocks,
    get_threads,
    works_side_by_side,
)
from numcodecs_qpl.containers.beginnings import GZIP, looks_like
from numcodecs_qpl.containers.streams import MAX_EXPANSION, Reader, check_filled, first_guess, inflate, skip_padding

FHCRC, FEXTRA, FNAME, FCOMMENT = 2, 4, 8, 16
_RESERVED = 0xE0
_OS_UNKNOWN = 255
_XFL = {1: 4, 9: 2}
"""XFL of the fastest and the best level (RFC 1952, 2.3.1); 0 of the others."""

_FIXED = struct.Struct("<3sBIBB")
"""Magic number, FLG, MTIME, XFL, OS."""
_INDEXED = struct.Struct("<3sBIBBH2sHI")
"""The same, XLEN, ID and size of our subfield, and the block size. The sizes of the blocks follow."""
_WITH_EXTRA = struct.Struct("<4s6xH")
"""Magic number and FLG, and XLEN."""
_EXTRA_ONLY = GZIP + bytes([FEXTRA])
_SUBFIELD = struct.Struct("<2sH")
"""ID and size of an FEXTRA subfield."""
TRAILER = struct.Struct("<II")
"""CRC-32 and size modulo 2**32 of the uncompressed bytes."""

BLOCKS = b"QB"
"""Subfield of ours: the block size, then the compressed size of each block, all u32."""
MEMBER = {b"IG": 0, b"BC": 1}
"""Subfields with the size of the member, and what to add to it: pgzip's (u32), and BGZF's (u16)."""

MAX_BLOCKS = (0xFFFF - _SUBFIELD.size - 4) // 4
"""Blocks that an index has room for: XLEN is a u16."""

_MEMBER = "gzip member {} at byte {}"
_EMPTY_STREAM = b"\x03\x00"


def encode(src: memoryview, *, dynamic: bool, block_size: int) -> bytes:
    """Compress `src` into one member of blocks of `block_size` uncompressed bytes; MTIME is 0.

    Blocks are twice as large as often as needed for an index of them all.
    """
    while -(-len(src) // block_size) > MAX_BLOCKS:
        block_size *= 2
    count = -(-len(src) // block_size)
    size = 4 + 4 * count
    head = _INDEXED.pack(GZIP, FEXTRA, 0, 0, _OS_UNKNOWN, _SUBFIELD.size + size, BLOCKS, size, block_size)
    if not count:
        head = _FIXED.pack(GZIP, 0, 0, 0, _OS_UNKNOWN)
    writer, end, crc = compress_blocks(src, block_size, dynamic=dynamic, checksum="crc32", head=head, index=True)
    return writer.finish(end, TRAILER.pack(crc, len(src)))


def encode_at_level(src: memoryview, level: int) -> bytes:
    """Compress `src` into one member without an index, in software: level 0 (stored) to 9, a window of 32 KiB."""
    head = _FIXED.pack(GZIP, 0, 0, _XFL.get(level, 0), _OS_UNKNOWN)
    writer, end, crc = compress_stream(src, level, checksum="crc32", head=head)
    return writer.finish(end, TRAILER.pack(crc, len(src) & 0xFFFFFFFF))


def decode(src: memoryview, out: memoryview | None, reader: Reader, *, lenient: bool = False) -> bytes | None:
    """Inflate every member of `src`, of any producer.

    A lenient call does as Python's `gzip` and numcodecs' GZip do: no bytes at all are no member, an `out` that is too
    large is filled in part, and of a header neither reserved flags nor the CRC-16 are checked.

    Raises
    ------
    CorruptDataError
        If the data is not gzip, is damaged or truncated, or has other bytes than zeros between or after its members.
    ValueError
        If `out` is of another size than the data inflates to.
    """
    if lenient and not len(src):
        return None if out is not None else b""
    start, extra = _header(src, 0, lenient)
    if works_side_by_side():
        plan = _plan_blocks(src, start, extra) or _plan_members(src, extra)
        if plan is not None and (out is None or len(out) == sum(plan.sizes)):
            memory = BytesWriter(sum(plan.sizes)) if out is None else out
            if _follow(plan, src, memory):
                return memory.finish(len(memory)) if isinstance(memory, BytesWriter) else None
    return _decode_serially(src, start, out, reader, lenient)


class _Plan(NamedTuple):
    """Where the blocks or members of a chunk are, and what they should come to, before anything is inflated."""

    offsets: array[int]
    lengths: array[int]
    sizes: array[int]
    crcs: list[int]
    final: bool


def _header(src: memoryview, at: int, lenient: bool = False) -> tuple[int, int]:
    """Offset of the first byte after the member header at `at`, and that of its XLEN; 0 if it has none."""
    if len(src) - at >= _WITH_EXTRA.size:
        beginning, size = _WITH_EXTRA.unpack_from(src, at)
        end = at + _WITH_EXTRA.size + size
        if beginning == _EXTRA_ONLY and end <= len(src):
            return end, at + _FIXED.size  # at once, as small chunks cost little more than their header
    head = bytes(src[at : at + _FIXED.size + 2])
    if len(head) < _FIXED.size or not head.startswith(GZIP):
        raise _no_header(src, at)
    flags = head[len(GZIP)]
    if flags & _RESERVED and not lenient:
        raise CorruptDataError(f"the gzip header at byte {at} has reserved flags: {flags:#04x}")
    end = at + _FIXED.size
    extra = 0
    if flags & FEXTRA:
        extra = end
        end += 2 + int.from_bytes(head[_FIXED.size :], "little")
    if flags & ~FEXTRA:
        for flag in (FNAME, FCOMMENT):
            if flags & flag:
                end = _after_zero(src, end, at)
        if flags & FHCRC:
            stated = int.from_bytes(src[end : end + 2], "little")
            if not lenient and end + 2 <= len(src) and zlib.crc32(src[at:end]) & 0xFFFF != stated:
                raise CorruptDataError(f"the gzip header at byte {at} is damaged: it does not have its own CRC-16")
            end += 2
    if end > len(src):
        raise CorruptDataError(f"the gzip header at byte {at} is truncated: it would end at byte {end} of {len(src)}")
    return end, extra


def _no_header(src: memoryview, at: int) -> CorruptDataError:
    """The error of data that has no whole header at `at`."""
    beginning = bytes(src[at : at + len(GZIP)])
    if GZIP.startswith(beginning):
        return CorruptDataError(f"the gzip header at byte {at} is truncated: the data has {len(src)} bytes")
    what = f"; {len(src) - at} bytes follow the last member" if at else looks_like(src)
    return CorruptDataError(
        f"no gzip member begins at byte {at}: {beginning.hex(' ')} instead of {GZIP.hex(' ')}{what}"
    )


def _after_zero(src: memoryview, start: int, at: int) -> int:
    """Offset after the zero byte that ends the string at `start`."""
    while start < len(src):
        piece = bytes(src[start : start + 4096])
        zero = piece.find(0)
        if zero >= 0:
            return start + zero + 1
        start += len(piece)
    raise CorruptDataError(f"the gzip header at byte {at} is truncated: a name does not end")


def _subfields(src: memoryview, extra: int) -> Iterator[tuple[bytes, memoryview]]:
    """ID and content of each subfield of the FEXTRA field whose XLEN is at `extra`, as far as they are whole."""
    at = extra + 2
    end = at + int.from_bytes(src[extra:at], "little") if extra else 0
    while at + _SUBFIELD.size <= end:
        name, size = _SUBFIELD.unpack_from(src, at)
        at += _SUBFIELD.size
        if at + size <= end:
            yield name, src[at : at + size]
        at += size


def _plan_blocks(src: memoryview, start: int, extra: int) -> _Plan | None:
    """Find the blocks by the index of a single member; None if there is none, or it cannot be right."""
    index = dict(_subfields(src, extra)).get(BLOCKS, src[:0])
    if len(index) < 8 or len(index) % 4:
        return None
    numbers = struct.unpack(f"<{len(index) // 4}I", index)
    block_size, lengths = numbers[0], numbers[1:]
    end = start + sum(lengths)
    after = end + len(_EMPTY_STREAM) + TRAILER.size
    if after > len(src) or src[end : end + len(_EMPTY_STREAM)] != _EMPTY_STREAM or skip_padding(src, after) < len(src):
        return None
    crc, size = TRAILER.unpack_from(src, end + len(_EMPTY_STREAM))
    last = size - (len(lengths) - 1) * block_size
    if not 0 < last <= block_size or size > MAX_EXPANSION * len(src):
        return None
    sizes = array("q", [block_size] * len(lengths))
    sizes[-1] = last
    return _Plan(_offsets(start, lengths), array("q", lengths), sizes, [crc], final=False)


def _offsets(start: int, lengths: tuple[int, ...]) -> array[int]:
    offsets = array("q")
    for length in lengths:
        offsets.append(start)
        start += length
    return offsets


def _plan_members(src: memoryview, extra: int) -> _Plan | None:
    """Find members that all tell their size, as pgzip's and BGZF's do; None if they do not, or cannot be right.

    Only threads gain by that: a device cannot tell where a member's stream ends.
    """
    if get_threads() == 1 or _member_size(src, extra) is None:
        return None
    plan = _Plan(array("q"), array("q"), array("q"), [], final=True)
    at = 0
    while at < len(src):
        try:
            start, extra = _header(src, at)
        except CorruptDataError:
            return None
        end = at + (_member_size(src, extra) or 0)
        length = end - TRAILER.size - start
        if length < len(_EMPTY_STREAM) or end > len(src):
            return None
        crc, size = TRAILER.unpack_from(src, end - TRAILER.size)
        if size > MAX_EXPANSION * length:
            return None
        if size:
            plan.offsets.append(start)
            plan.lengths.append(length)
            plan.sizes.append(size)
            plan.crcs.append(crc)
        elif crc or src[start : start + length] != _EMPTY_STREAM:
            return None
        at = skip_padding(src, end)
    return plan


def _member_size(src: memoryview, extra: int) -> int | None:
    """Bytes of the member as its header tells them, or None."""
    for name, content in _subfields(src, extra):
        if name in MEMBER and len(content) in {2, 4}:
            return int.from_bytes(content, "little") + MEMBER[name]
    return None


def _follow(plan: _Plan, src: memoryview, dst: memoryview | BytesWriter) -> bool:
    """Inflate by a plan, and return True if all came out as planned."""
    crcs = decompress_blocks(src, plan.offsets, plan.lengths, dst, plan.sizes, final=plan.final, checksum="crc32")
    return crcs == plan.crcs


def _decode_serially(
    src: memoryview, start: int, out: memoryview | None, reader: Reader, lenient: bool
) -> bytes | None:
    """Inflate member after member; the stream of the first begins at `start`."""
    pieces: list[bytes] = []
    at = total = 0
    size = _guess(src, reader)
    while True:
        place = len(pieces), at
        end, size, crc, data = inflate(src, start, out, total, size, "crc32", _MEMBER, *place)
        at = end + TRAILER.size
        if at > len(src):
            what = _MEMBER.format(*place)
            raise CorruptDataError(f"{what} is truncated: its trailer would end at byte {at} of {len(src)}")
        stated = TRAILER.unpack_from(src, end)
        if stated != (crc, size & 0xFFFFFFFF):
            raise CorruptDataError(
                f"{_MEMBER.format(*place)} is damaged: its {size} bytes have CRC-32 {crc:08x}, its trailer (byte "
                f"{end}) says {stated[1]} bytes with {stated[0]:08x}"
            )
        pieces.append(data or b"")
        total += size
        if at < len(src):
            at = skip_padding(src, at)
        if at == len(src):
            if not lenient:
                check_filled(out, total)
            reader.size_hint = total
            return None if out is not None else pieces[0] if len(pieces) == 1 else b"".join(pieces)
        start, _ = _header(src, at, lenient)


def _guess(src: memoryview, reader: Reader) -> int:
    """Bytes that the chunk inflates to, if the trailer at its end is that of its only member."""
    _, size = TRAILER.unpack_from(src, len(src) - TRAILER.size)
    if reader.size_hint and size == reader.size_hint & 0xFFFFFFFF:
        return reader.size_hint  # the trailer leaves out what is above 32 bits
    return int(size) if 0 < size <= MAX_EXPANSION * len(src) else first_guess(src, reader)
