"""Blocks of raw deflate (RFC 1951), for the containers."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, memset

from numcodecs_qpl._core.batch cimport Batch, deflate_stream, level_room, open_room
from numcodecs_qpl._core.block cimport ADLER32, COMPRESS, CRC32, DECOMPRESS, DONE, NO_CHECKSUM, Block
from numcodecs_qpl._core.memory cimport Memory, new_bytes, put_number, resize_bytes

from numcodecs_qpl._core.arguments import MAX_BLOCK, MAX_LEVEL

cdef dict CHECKSUMS = {"": NO_CHECKSUM, "crc32": CRC32, "adler32": ADLER32}

cdef enum:
    SIZE_BYTES = 4  # of a block's size in an index

# An empty final block with fixed codes: it closes a stream of open blocks.
cdef bytes LAST_BLOCK = b"\x03\x00"


cpdef tuple compress_blocks(
    Memory src, Py_ssize_t block_size, bint dynamic, str checksum, Py_ssize_t head, bint index, Py_ssize_t tail
):
    """Compress `src` into one stream, in blocks that can be inflated independently.

    Each block is compressed on its own and ends on a byte boundary. The bytes ``03 00``, an empty final block, follow
    the last one. An empty `src` has no blocks.

    Parameters
    ----------
    src : Memory
    block_size : int
        Bytes of `src` in a block, 1 to 2**31 - 1 (else a ValueError). The last block may be smaller.
    dynamic : bool
        Huffman tables made for each block, or deflate's fixed ones.
    checksum : {"", "crc32", "adler32"}
        Checksum to take of `src`.
    head, tail : int
        Bytes to leave free before everything else and after the stream, for the caller to write.
    index : bool
        Write the compressed size of each block before the stream, as a little-endian u32.

    Returns
    -------
    encoded : bytes
    checksum : int
    """
    if not 0 < block_size <= MAX_BLOCK:
        raise ValueError(f"block_size is {block_size}; it must be 1 to {MAX_BLOCK}")
    cdef Py_ssize_t count = (src.size + block_size - 1) // block_size
    cdef size_t slot = open_room(block_size)
    cdef Py_ssize_t last = src.size - (count - 1) * block_size
    cdef Py_ssize_t begin = head + (SIZE_BYTES * count if index else 0)
    # The batch must not hold a reference to it: it is shortened in place, which needs the only one.
    cdef bytes encoded = new_bytes(
        begin + ((count - 1) * slot + open_room(last) if count else 0) + len(LAST_BLOCK) + tail
    )
    cdef uint8_t *start = <uint8_t *>PyBytes_AS_STRING(encoded)
    cdef uint8_t *end = start + begin
    cdef Batch batch = Batch(count, (src,))
    cdef Py_ssize_t i
    cdef Block *block
    batch.task.operation = COMPRESS
    batch.task.open = True
    batch.task.dynamic = dynamic
    batch.task.checksum = CHECKSUMS[checksum]
    for i in range(count):
        block = &batch.blocks[i]
        block.src = src.start + i * block_size
        block.size = block_size if i < count - 1 else last
        block.dst = end + i * slot
        block.room = open_room(block.size)
    batch.run("block")
    for i in range(count):
        block = &batch.blocks[i]
        if index:
            put_number(start + head + SIZE_BYTES * i, SIZE_BYTES, block.written)
        end = block.dst + block.written
    memcpy(end, <const uint8_t *>LAST_BLOCK, len(LAST_BLOCK))
    resize_bytes(encoded, end + len(LAST_BLOCK) + tail - start)
    return encoded, batch.joined_checksum()


cpdef tuple compress_stream(Memory src, int level, str checksum, Py_ssize_t head, Py_ssize_t tail):
    """Compress `src` into one stream at a level, in software, with distances up to 32 KiB.

    `level` is one of libdeflate's, 0 (stored) to 9; a ValueError if it is not. The rest is as for `compress_blocks`.
    """
    if not 0 <= level <= MAX_LEVEL:
        raise ValueError(f"level is {level}; it must be 0 to {MAX_LEVEL}")
    cdef Block block
    memset(&block, 0, sizeof(block))
    block.src = src.start
    block.size = src.size
    block.room = level_room(block.size)
    cdef bytes encoded = new_bytes(head + block.room + tail)
    block.dst = <uint8_t *>PyBytes_AS_STRING(encoded) + head
    deflate_stream(&block, CHECKSUMS[checksum], level)
    resize_bytes(encoded, head + block.written + tail)
    return encoded, block.checksum


cpdef list decompress_blocks(Memory src, list places, Memory dst, bint final, str checksum):
    """Inflate blocks of known size into `dst`, one after the other.

    Parameters
    ----------
    src : Memory
    places : list of tuples of int
        Offset of each block in `src`, its compressed size, and its inflated size.
    dst : Memory
        Output; its size is the sum of the inflated sizes.
    final : bool
        Each block is a deflate stream. Otherwise all blocks together are one, as `compress_blocks` writes it.
    checksum : {"", "crc32", "adler32"}
        Checksum to take of the inflated bytes.

    Returns
    -------
    list of int, or None
        Checksum of each stream: one for each final block, else one for all. None if a block is outside `src`, does
        not inflate to exactly its inflated size, or does not end exactly at its compressed size. None as well if the
        inflated sizes do not add up to `dst`.
    """
    cdef Batch batch = Batch(len(places), (src, dst))
    cdef int64_t offset, length, size
    cdef Py_ssize_t i
    cdef Py_ssize_t at = 0
    cdef Block *block
    batch.task.operation = DECOMPRESS
    batch.task.open = not final
    batch.task.checksum = CHECKSUMS[checksum]
    for i in range(batch.count):
        offset, length, size = places[i]
        if not (0 <= offset <= src.size and 0 < length <= src.size - offset and 0 < size <= dst.size - at):
            return None
        if length > MAX_BLOCK or size > MAX_BLOCK:
            return None
        block = &batch.blocks[i]
        block.src = src.start + offset
        block.size = length
        block.dst = dst.start + at
        block.room = size
        at += size
    if at != dst.size or not batch.count:
        return None
    batch.run("block")
    for i in range(batch.count):
        block = &batch.blocks[i]
        if block.status != DONE or block.written != block.room:
            return None
    if final:
        return [batch.blocks[i].checksum for i in range(batch.count)]
    return [batch.joined_checksum()]
