"""zlib (RFC 1950): one deflate stream with a two-byte header and an Adler-32."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from numcodecs_qpl._core.block cimport ADLER32, Block
from numcodecs_qpl._core.blocks cimport compress_blocks, compress_stream
from numcodecs_qpl._core.memory cimport Memory
from numcodecs_qpl.containers.streams cimport Reader, finish, inflate

from numcodecs_qpl._core.errors import CorruptDataError
from numcodecs_qpl.containers.beginnings import is_zlib, looks_like

cdef enum:
    HEADER = 2
    TRAILER = 4
    FDICT = 0x20

# A 32 KiB window and each FLEVEL (RFC 1950, 2.2). The low five bits of FLG make a header a multiple of 31.
cdef tuple FLEVELS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
cdef str WHAT = "the zlib stream"


def encode(Memory src not None, bint dynamic, Py_ssize_t block_size):
    """Compress `src` as one stream of blocks of `block_size` uncompressed bytes."""
    encoded, adler = compress_blocks(src, block_size, dynamic, "adler32", HEADER, False, TRAILER)
    put_frame(encoded, b"\x48\x0d", adler)  # a window of 4 KiB, FLEVEL 0
    return encoded


def encode_at_level(Memory src not None, int level):
    """Compress `src` as one stream at level 0 (stored) to 9, in software, with a window of 32 KiB."""
    encoded, adler = compress_stream(src, level, "adler32", HEADER, TRAILER)
    put_frame(encoded, FLEVELS[(level > 1) + (level > 5) + (level > 6)], adler)
    return encoded


cdef int put_frame(bytes encoded, const char *header, uint32_t adler) except -1:
    cdef uint8_t *start = <uint8_t *>PyBytes_AS_STRING(encoded)
    cdef int i
    memcpy(start, header, HEADER)
    for i in range(TRAILER):
        start[len(encoded) - 1 - i] = adler >> 8 * i & 0xff
    return 0


def decode(Memory src not None, Memory out, Reader reader not None, bint lenient=False):
    """Inflate one zlib stream of any producer. A lenient call ignores bytes after it, as ``zlib.decompress`` does.

    Raises
    ------
    CorruptDataError
        If the data is not zlib, is damaged or truncated, needs a preset dictionary, or if other bytes than zeros
        follow.
    ValueError
        If `out` is of another size than the data inflates to.
    """
    cdef bytes beginning = src.start[:min(src.size, 4)]
    if src.size < HEADER:
        raise CorruptDataError(f"the zlib header is truncated: the data has {src.size} bytes")
    if not is_zlib(beginning[:HEADER]):
        raise CorruptDataError(
            f"this is not a zlib stream: it begins with {beginning[:HEADER].hex(' ')}{looks_like(beginning)}"
        )
    if src.start[1] & FDICT:
        raise CorruptDataError("the zlib stream needs a preset dictionary, which is not supported")
    cdef Block block
    cdef bytes data = inflate(&block, src, HEADER, out, 0, reader, 0, ADLER32, WHAT)
    cdef Py_ssize_t end = HEADER + block.size + TRAILER
    if end > src.size:
        raise CorruptDataError(f"the zlib stream is truncated: its Adler-32 would end at byte {end} of {src.size}")
    cdef uint32_t stated = int.from_bytes(src.start[end - TRAILER:end], "big")
    if block.checksum != stated:
        raise CorruptDataError(
            f"the zlib stream is damaged: its bytes have Adler-32 {block.checksum:08x}, its end (byte {end - TRAILER}) "
            f"says {stated:08x}"
        )
    finish(src, src.size if lenient else end, WHAT, out, block.written, reader)
    return data
