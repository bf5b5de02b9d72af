"""Blocks and streams of raw deflate (RFC 1951), for the containers."""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, memset

from numcodecs_qpl._core.batch cimport Batch, deflate_stream, inflate_stream, level_room, open_room
from numcodecs_qpl._core.block cimport ADLER32, COMPRESS, CRC32, DECOMPRESS, DONE, FULL, NO_CHECKSUM, Block
from numcodecs_qpl._core.writer cimport BytesWriter

from numcodecs_qpl._core.arguments import MAX_BLOCK, MAX_LEVEL

CHECKSUMS = {"": NO_CHECKSUM, "crc32": CRC32, "adler32": ADLER32}
"""Checksums of the uncompressed bytes, by name; that of nothing is 0."""

cdef enum:
    SIZE_BYTES = 4        # of a block's size in an index
    MAX_EXPANSION = 1032  # of deflate: 258 bytes from two bits (RFC 1951, 3.2.5)
    LEAST_GROWTH = 65536

# An empty final block with fixed codes: it closes a stream of open blocks.
cdef bytes LAST_BLOCK = b"\x03\x00"


def compress_blocks(
    const uint8_t[::1] src not None,
    Py_ssize_t block_size,
    *,
    bint dynamic,
    str checksum="",
    bytes head=b"",
    bint index=False,
):
    """Compress `src` into one stream, in blocks that can be inflated apart from each other.

    Each block is compressed on its own and ends on a byte boundary. The bytes ``03 00``, an empty final block, follow
    the last one. No byte at all makes no block.

    Parameters
    ----------
    src : buffer of bytes
        Bytes to compress.
    block_size : int
        Bytes of `src` in a block, 1 to 2**31 - 1; the last block has what remains.
    dynamic : bool
        Huffman tables made for each block, or deflate's fixed ones.
    checksum : {"", "crc32", "adler32"}
        Checksum to take of `src`.
    head : bytes
        Bytes to write before the stream.
    index : bool
        Write the compressed size of each block between `head` and the stream, as a little-endian u32.

    Returns
    -------
    writer : BytesWriter
        Holds all this.
    end : int
        Offset in `writer` of the first byte after the stream.
    checksum : int

    Raises
    ------
    ValueError
        If `block_size` is out of range.
    QplError
        If the path setting is "hardware" and the device fails.
    """
    if not 0 < block_size <= MAX_BLOCK:
        raise ValueError(f"block_size is {block_size}; it must be 1 to {MAX_BLOCK}")
    cdef Py_ssize_t size = src.shape[0]
    cdef Py_ssize_t count = (size + block_size - 1) // block_size
    cdef size_t slot = open_room(block_size)
    cdef Py_ssize_t last = size - (count - 1) * block_size
    cdef Py_ssize_t begin = len(head) + (SIZE_BYTES * count if index else 0)
    cdef BytesWriter writer = BytesWriter(
        begin + ((count - 1) * slot + open_room(last) if count else 0) + len(LAST_BLOCK)
    )
    cdef uint8_t *start = writer.start()
    cdef uint8_t *end = start + begin
    cdef uint8_t *size_at = start + len(head)
    cdef Batch batch = Batch(count, (src, writer))
    cdef Py_ssize_t i
    cdef int byte
    cdef Block *block
    batch.task.operation = COMPRESS
    batch.task.open = True
    batch.task.dynamic = dynamic
    batch.task.checksum = CHECKSUMS[checksum]
    for i in range(count):
        block = &batch.blocks[i]
        block.src = &src[0] + i * block_size
        block.size = block_size if i < count - 1 else last
        block.dst = end + i * slot
        block.room = open_room(block.size)
    batch.run("block")
    memcpy(start, <const uint8_t *>head, len(head))
    for i in range(count):
        block = &batch.blocks[i]
        if index:
            for byte in range(SIZE_BYTES):
                size_at[SIZE_BYTES * i + byte] = block.written >> 8 * byte & 0xff
        end = block.dst + block.written
    memcpy(end, <const uint8_t *>LAST_BLOCK, len(LAST_BLOCK))
    return writer, end + len(LAST_BLOCK) - start, batch.joined_checksum()


def compress_stream(const uint8_t[::1] src not None, int level, *, str checksum, bytes head):
    """Compress `src` into one stream at a level, in software, with distances up to 32 KiB.

    Parameters
    ----------
    src : buffer of bytes
        Bytes to compress, of any number.
    level : int
        0 (stored) to 9: libdeflate's levels.
    checksum : {"", "crc32", "adler32"}
        Checksum to take of `src`.
    head : bytes
        Bytes to write before the stream.

    Returns
    -------
    writer : BytesWriter
        Holds all this.
    end : int
        Offset in `writer` of the first byte after the stream.
    checksum : int

    Raises
    ------
    ValueError
        If `level` is out of range.
    """
    if not 0 <= level <= MAX_LEVEL:
        raise ValueError(f"level is {level}; it must be 0 to {MAX_LEVEL}")
    cdef uint8_t nothing = 0
    cdef Block block
    memset(&block, 0, sizeof(block))
    block.size = src.shape[0]
    block.src = &src[0] if block.size else &nothing
    block.room = level_room(block.size)
    cdef BytesWriter writer = BytesWriter(len(head) + block.room)
    memcpy(writer.start(), <const uint8_t *>head, len(head))
    block.dst = writer.start() + len(head)
    deflate_stream(&block, CHECKSUMS[checksum], level)
    return writer, len(head) + block.written, block.checksum


def decompress_blocks(
    const uint8_t[::1] src not None,
    const int64_t[::1] offsets not None,
    const int64_t[::1] lengths not None,
    uint8_t[::1] dst not None,
    const int64_t[::1] sizes not None,
    *,
    bint final,
    str checksum,
):
    """Inflate blocks of known size, one after the other into `dst`.

    Parameters
    ----------
    src : buffer of bytes
        Holds the blocks.
    offsets, lengths : buffer of int64, shape (blocks,)
        Offset of each block in `src`, and its bytes.
    dst : writable buffer of bytes, ``sum(sizes)``
        Receives the inflated bytes.
    sizes : buffer of int64, shape (blocks,)
        Bytes that each block has to inflate to.
    final : bool
        Each block is a deflate stream; else all together are one, as `compress_blocks` makes it.
    checksum : {"", "crc32", "adler32"}
        Checksum to take of the inflated bytes.

    Returns
    -------
    list of int, or None
        Checksum of each stream: one for each final block, else one for all. None if a block is not within `src`, does
        not inflate to exactly its size, or does not end exactly where its length says, or if the sizes do not fill
        `dst`.

    Raises
    ------
    QplError
        If the path setting is "hardware" and the device fails.
    """
    cdef Py_ssize_t count = offsets.shape[0]
    cdef Py_ssize_t i
    cdef Py_ssize_t at = 0
    if lengths.shape[0] != count or sizes.shape[0] != count:
        return None
    for i in range(count):
        if not (0 <= offsets[i] <= src.shape[0] and 0 < lengths[i] <= src.shape[0] - offsets[i]):
            return None
        if not 0 < sizes[i] <= dst.shape[0] - at or sizes[i] > MAX_BLOCK or lengths[i] > MAX_BLOCK:
            return None
        at += sizes[i]
    if at != dst.shape[0] or not count:
        return None
    cdef Batch batch = Batch(count, (src, dst))
    cdef Block *block
    batch.task.operation = DECOMPRESS
    batch.task.open = not final
    batch.task.checksum = CHECKSUMS[checksum]
    at = 0
    for i in range(count):
        block = &batch.blocks[i]
        block.src = &src[0] + offsets[i]
        block.size = lengths[i]
        block.dst = &dst[0] + at
        block.room = sizes[i]
        at += sizes[i]
    batch.run("block")
    for i in range(count):
        block = &batch.blocks[i]
        if block.status != DONE or <int64_t>block.written != sizes[i]:
            return None
    if final:
        return [batch.blocks[i].checksum for i in range(count)]
    return [batch.joined_checksum()]


def decompress_stream(
    const uint8_t[::1] src not None, Py_ssize_t start, uint8_t[::1] out, Py_ssize_t at, Py_ssize_t guess, str checksum
):
    """Inflate one deflate stream of any producer, in software.

    Parameters
    ----------
    src : buffer of bytes
        Holds the stream.
    start : int
        Offset of the stream in `src`.
    out : writable buffer of bytes, or None
        Receives the inflated bytes, from byte `at` on. Without it, they are returned.
    at : int
        Offset in `out`.
    guess : int
        Bytes to reserve at first if there is no `out`. A wrong guess costs time only.
    checksum : {"", "crc32", "adler32"}
        Checksum to take of the inflated bytes.

    Returns
    -------
    end : int
        Offset in `src` of the first byte after the stream; -1 if the stream inflates to more than `out` has room for,
        -2 if it is damaged or not whole.
    size : int
        Bytes that it inflates to.
    checksum : int
    data : bytes or None
        The inflated bytes if there is no `out`.
    """
    cdef Py_ssize_t most, capacity
    cdef BytesWriter writer = None
    cdef uint8_t nothing = 0
    cdef Block block
    cdef size_t read = 0
    if not 0 <= start < src.shape[0] or out is not None and not 0 <= at <= out.shape[0]:
        return -2, 0, 0, None
    memset(&block, 0, sizeof(block))
    block.src = &src[start]
    block.size = src.shape[0] - start
    if out is not None:
        block.room = out.shape[0] - at
        block.dst = &out[at] if block.room else &nothing
        inflate_stream(&block, CHECKSUMS[checksum], &read)
    else:
        most = MAX_EXPANSION * block.size
        capacity = min(max(guess, 1), most)
        while True:
            writer = BytesWriter(capacity)
            block.room = capacity
            block.dst = writer.start()
            inflate_stream(&block, CHECKSUMS[checksum], &read)
            if block.status != FULL or capacity == most:
                break
            capacity = min(max(2 * capacity, <Py_ssize_t>LEAST_GROWTH), most)
    if block.status != DONE:
        return -1 if block.status == FULL else -2, 0, 0, None
    return start + read, block.written, block.checksum, None if writer is None else writer.finish(block.written)
