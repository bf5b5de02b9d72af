"""gzip (RFC 1952): one member per chunk, with an index of its blocks in the header.

The index is an FEXTRA subfield "QB"; ``docs/format.md`` describes each byte. With it, threads and devices inflate the
blocks in parallel. The index is a hint: if it is wrong or missing, the stream is inflated like any other, with the same
result.
"""

import zlib

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy

from numcodecs_qpl._core.block cimport CRC32, Block
from numcodecs_qpl._core.blocks cimport compress_blocks, compress_stream, decompress_blocks
from numcodecs_qpl._core.memory cimport Memory, get_number, new_bytes, put_number
from numcodecs_qpl._core.settings cimport get_threads, path_in_force
from numcodecs_qpl.containers.streams cimport MAX_EXPANSION, Reader, finish, inflate, skip_padding

from numcodecs_qpl._core.errors import CorruptDataError
from numcodecs_qpl.containers.beginnings import GZIP, looks_like

cdef enum:
    FLAGS = 3          # offset of FLG in a header, after the magic number
    XFL = 8
    FASTEST = 4        # XFL of level 1 ...
    BEST = 2           # ... and of level 9 (RFC 1952, 2.3.1)
    FIXED = 10         # bytes of a header without options
    FHCRC = 2
    FEXTRA = 4
    FNAME = 8
    FCOMMENT = 16
    RESERVED = 0xe0
    SUBFIELD = 4       # bytes of a subfield's ID and size
    TRAILER = 8        # CRC-32 and size modulo 2**32 of the uncompressed bytes
    EMPTY_STREAM = 2
    MAX_BLOCKS = (0xffff - SUBFIELD - 4) >> 2  # in an index, because XLEN is a u16

# Magic number and CM, FLG, MTIME, XFL, OS: unknown.
cdef const uint8_t *HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
cdef const uint8_t *EMPTY = b"\x03\x00"
# This package's subfield: the block size, then the compressed size of each block, all u32.
cdef const char *BLOCKS = b"QB"
cdef str MEMBER = "gzip member {} at byte {}"


def encode(Memory src not None, bint dynamic, Py_ssize_t block_size):
    """Compress `src` into one member of blocks of `block_size` uncompressed bytes; MTIME is 0.

    `block_size` is doubled until the index has room for all blocks.
    """
    while (src.size + block_size - 1) // block_size > MAX_BLOCKS:
        block_size *= 2
    cdef Py_ssize_t count = (src.size + block_size - 1) // block_size
    cdef Py_ssize_t index = 4 + 4 * count
    cdef Py_ssize_t head = FIXED + 2 + SUBFIELD + 4 if count else FIXED
    encoded, crc = compress_blocks(src, block_size, dynamic, "crc32", head, True, TRAILER)
    cdef uint8_t *start = put_frame(encoded, crc, src.size)
    if count:
        start[FLAGS] = FEXTRA
        put_number(start + FIXED, 2, SUBFIELD + index)
        memcpy(start + FIXED + 2, BLOCKS, 2)
        put_number(start + FIXED + 4, 2, index)
        put_number(start + FIXED + 6, 4, block_size)
    return encoded


def encode_at_level(Memory src not None, int level):
    """Compress `src` into one member without an index, in software: level 0 (stored) to 9, a window of 32 KiB."""
    encoded, crc = compress_stream(src, level, "crc32", FIXED, TRAILER)
    put_frame(encoded, crc, src.size)[XFL] = FASTEST if level == 1 else BEST if level == 9 else 0
    return encoded


cdef uint8_t *put_frame(bytes encoded, uint32_t crc, Py_ssize_t size) except NULL:
    # Write a header without options and the trailer, and return the address of the header.
    cdef uint8_t *start = <uint8_t *>PyBytes_AS_STRING(encoded)
    cdef uint8_t *trailer = start + len(encoded) - TRAILER
    memcpy(start, HEADER, FIXED)
    put_number(trailer, 4, crc)
    put_number(trailer + 4, 4, size)
    return start


def decode(Memory src not None, Memory out, Reader reader not None, bint lenient=False):
    """Inflate every member of `src`, of any producer.

    A lenient call behaves like Python's `gzip` and numcodecs' GZip: it accepts an empty `src`, and it fills an `out`
    that is too large in part. It checks neither the reserved flags nor the CRC-16 of a header.

    Raises
    ------
    CorruptDataError
        If the data is not gzip, is damaged or truncated, or has other bytes than zeros between or after its members.
    ValueError
        If `out` is of another size than the data inflates to.
    """
    if lenient and not src.size:
        return b"" if out is None else None
    cdef Py_ssize_t start = skip_header(src, 0, lenient)
    cdef bytes data = None
    cdef Memory dst = out
    cdef bint device = path_in_force() == "hardware"
    cdef bint threads = get_threads() > 1
    if device or threads:
        plan = plan_blocks(src, start)
        if plan is None and threads:
            # A device cannot tell where a member's stream ends.
            plan = plan_members(src)
        if plan is not None:
            places, crcs, final = plan
            size = sum([place[2] for place in places])
            if out is None:
                data = new_bytes(size)
                dst = Memory(data, "data")
            if dst.size == size and decompress_blocks(src, places, dst, final, "crc32") == crcs:
                return data
            data = dst = None  # free the memory before it is allocated again
    return decode_serially(src, start, out, reader, lenient)


cdef Py_ssize_t skip_header(Memory src, Py_ssize_t at, bint lenient) except -1:
    # Return the offset of the first byte after the header of the member at `at`.
    cdef Py_ssize_t end = at + FIXED
    if end > src.size or memcmp(src.start + at, HEADER, FLAGS):
        raise no_header(src, at)
    cdef int flags = src.start[at + FLAGS]
    if flags & RESERVED and not lenient:
        raise CorruptDataError(f"the gzip header at byte {at} has reserved flags: {flags:#04x}")
    if flags & FEXTRA:
        end += 2 + (get_number(src.start + end, 2) if end + 2 <= src.size else 0)
    if flags & FNAME:
        end = after_zero(src, end, at)
    if flags & FCOMMENT:
        end = after_zero(src, end, at)
    if flags & FHCRC:
        end += 2
        if end <= src.size and not lenient:
            crc = zlib.crc32(src.start[at:end - 2])
            if crc & 0xffff != get_number(src.start + end - 2, 2):
                raise CorruptDataError(f"the gzip header at byte {at} is damaged: it does not have its own CRC-16")
    if end > src.size:
        raise CorruptDataError(f"the gzip header at byte {at} is truncated: it would end at byte {end} of {src.size}")
    return end


cdef Py_ssize_t after_zero(Memory src, Py_ssize_t start, Py_ssize_t at) except -1:
    # Return the offset after the zero byte that ends the string at `start`.
    cdef const void *zero = memchr(src.start + start, 0, src.size - start) if start < src.size else NULL
    if zero == NULL:
        raise CorruptDataError(f"the gzip header at byte {at} is truncated: a name does not end")
    return <const uint8_t *>zero + 1 - src.start


cdef object no_header(Memory src, Py_ssize_t at):
    # Return the error for data without a whole header at `at`.
    cdef bytes beginning = src.start[at:min(at + 3, src.size)]
    if GZIP.startswith(beginning):
        return CorruptDataError(f"the gzip header at byte {at} is truncated: the data has {src.size} bytes")
    what = f"; {src.size - at} bytes follow the last member" if at else looks_like(src.start[:min(src.size, 4)])
    return CorruptDataError(
        f"no gzip member begins at byte {at}: {beginning.hex(' ')} instead of {GZIP.hex(' ')}{what}"
    )


cdef Py_ssize_t subfield(Memory src, Py_ssize_t member, const char *name, Py_ssize_t *size) noexcept:
    # Return the offset of the content of the subfield `name` in a whole header; 0 if it is missing.
    if not src.start[member + FLAGS] & FEXTRA:
        return 0
    cdef Py_ssize_t at = member + FIXED + 2
    cdef Py_ssize_t end = min(at + <Py_ssize_t>get_number(src.start + at - 2, 2), src.size)
    while at + SUBFIELD <= end:
        size[0] = get_number(src.start + at + 2, 2)
        if at + SUBFIELD + size[0] <= end and not memcmp(src.start + at, name, 2):
            return at + SUBFIELD
        at += SUBFIELD + size[0]
    return 0


cdef tuple plan_blocks(Memory src, Py_ssize_t start):
    # Return the places and the checksum for `decompress_blocks`, from a single member's index; None if it is wrong or
    # missing.
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t index = subfield(src, 0, BLOCKS, &size)
    cdef Py_ssize_t count = size // 4 - 1
    if not index or count < 1 or size % 4:
        return None
    cdef Py_ssize_t block_size = get_number(src.start + index, 4)
    cdef list places = []
    cdef Py_ssize_t length = 0
    cdef Py_ssize_t i
    for i in range(count):
        length = get_number(src.start + index + 4 + 4 * i, 4)
        places.append((start, length, block_size))
        start += length
    cdef Py_ssize_t after = start + EMPTY_STREAM + TRAILER
    if after > src.size or memcmp(src.start + start, EMPTY, EMPTY_STREAM) or skip_padding(src, after) < src.size:
        return None
    cdef Py_ssize_t total = get_number(src.start + after - 4, 4)
    cdef Py_ssize_t last = total - (count - 1) * block_size
    if not 0 < last <= block_size or total > MAX_EXPANSION * src.size:
        return None
    places[count - 1] = (start - length, length, last)
    return places, [get_number(src.start + after - TRAILER, 4)], False


cdef tuple plan_members(Memory src):
    # Return the same for members whose headers all contain their size, as in pgzip and BGZF.
    cdef list places = []
    cdef list crcs = []
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t start, end, length, size
    cdef uint32_t crc
    if not member_size(src, 0):
        return None
    while at < src.size:
        try:
            start = skip_header(src, at, False)
        except CorruptDataError:
            return None
        end = at + member_size(src, at)
        length = end - TRAILER - start
        if length < EMPTY_STREAM or end > src.size:
            return None
        crc = get_number(src.start + end - TRAILER, 4)
        size = get_number(src.start + end - 4, 4)
        if size > MAX_EXPANSION * length:
            return None
        if size:
            places.append((start, length, size))
            crcs.append(crc)
        elif crc or length != EMPTY_STREAM or memcmp(src.start + start, EMPTY, EMPTY_STREAM):
            return None
        at = skip_padding(src, end)
    return places, crcs, True


cdef Py_ssize_t member_size(Memory src, Py_ssize_t member) noexcept:
    # Return the member's size from its header: pgzip's "IG" (u32), or BGZF's "BC" (u16, one less); 0 without either.
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t at = subfield(src, member, b"IG", &size)
    if at and size == 4:
        return get_number(src.start + at, 4)
    at = subfield(src, member, b"BC", &size)
    return get_number(src.start + at, 2) + 1 if at and size == 2 else 0


cdef bytes decode_serially(Memory src, Py_ssize_t start, Memory out, Reader reader, bint lenient):
    # Inflate all members, one after the other; the stream of the first begins at `start`.
    cdef list pieces = []
    cdef bytes data
    cdef Block block
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t total = 0
    cdef Py_ssize_t trailer, end
    cdef uint32_t crc, size
    # If `src` is a single member, its last bytes are the size modulo 2**32. It is a guess only.
    cdef Py_ssize_t guess = get_number(src.start + src.size - 4, 4)
    if guess > MAX_EXPANSION * src.size or guess == <uint32_t>reader.size_hint:
        guess = 0
    while True:
        data = inflate(&block, src, start, out, total, reader, guess, CRC32, MEMBER, len(pieces), at)
        trailer = start + block.size
        end = trailer + TRAILER
        if end > src.size:
            what = MEMBER.format(len(pieces), at)
            raise CorruptDataError(f"{what} is truncated: its trailer would end at byte {end} of {src.size}")
        crc = get_number(src.start + trailer, 4)
        size = get_number(src.start + trailer + 4, 4)
        if crc != block.checksum or size != <uint32_t>block.written:
            raise CorruptDataError(
                f"{MEMBER.format(len(pieces), at)} is damaged: its {block.written} bytes have CRC-32 "
                f"{block.checksum:08x}, its trailer (byte {trailer}) says {size} bytes with {crc:08x}"
            )
        pieces.append(data)
        guess = block.written
        total += block.written
        at = skip_padding(src, end)
        if at == src.size:
            finish(src, at, MEMBER, None if lenient else out, total, reader)
            return None if out is not None else data if len(pieces) == 1 else b"".join(pieces)
        start = skip_header(src, at, lenient)
