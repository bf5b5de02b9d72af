"""Streams of any producer: inflating one and checking what follows it, for every container."""

import zlib

from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t
from libc.string cimport memset

from numcodecs_qpl._core.batch cimport inflate_stream
from numcodecs_qpl._core.block cimport DONE, FULL, Block, Checksum
from numcodecs_qpl._core.memory cimport Memory, new_bytes, resize_bytes

from numcodecs_qpl._core.errors import CorruptDataError

cdef enum:
    SMALLEST = 1 << 16   # bytes to reserve for a stream of unknown size, or more: ...
    USUAL_EXPANSION = 4  # ... this many times its compressed size
    PIECE = 1 << 20


cdef class Reader:
    """State that a codec keeps from one chunk to the next. It changes the speed of reading, never the result.

    Attributes
    ----------
    size_hint : int
        Inflated size of the last chunk in bytes; 0 before the first.
    """


cdef bytes inflate(
    Block *block, Memory src, Py_ssize_t start, Memory out, Py_ssize_t at, Reader reader, Py_ssize_t guess,
    Checksum checksum, str what, Py_ssize_t number=0, Py_ssize_t place=0
):
    cdef bytes data = None
    cdef size_t read = 0
    memset(block, 0, sizeof(block[0]))
    block.src = src.start + start
    block.size = src.size - start
    cdef size_t most = MAX_EXPANSION * block.size
    if out is not None:
        block.dst = out.start + at
        block.room = out.size - at
    else:
        block.room = min(most, <size_t>(guess or reader.size_hint or max(SMALLEST, USUAL_EXPANSION * src.size)))
    while block.size:
        if out is None:
            data = None  # free the smaller one before the larger one is allocated
            data = new_bytes(block.room)
            block.dst = <uint8_t *>PyBytes_AS_STRING(data)
        inflate_stream(block, checksum, &read)
        if block.status != FULL or out is not None or block.room == most:
            break
        block.room = min(most, max(2 * block.room, <size_t>SMALLEST))
    if block.status != DONE:
        # After the end of a truncated stream libdeflate reads zeros, and may run out of room before it reports damage.
        if fault := fault_of(block, block.status == FULL and out is not None):
            raise CorruptDataError(f"{what.format(number, place)} {fault}")
        raise ValueError(f"out has {out.size} bytes, but the data inflates to more")
    block.size = read
    if data is not None:
        resize_bytes(data, block.written)
    return data


cdef str fault_of(Block *block, bint may_be_too_large):
    # Return the fault of a stream that cannot be inflated, in zlib's words, which are more exact than libdeflate's
    # status. Return None if the output has too little room.
    inflater = zlib.decompressobj(-15)
    stream = PyMemoryView_FromMemory(<char *>block.src, block.size, PyBUF_READ)
    cdef size_t size = 0
    try:
        for at in range(0, block.size, PIECE):
            piece = stream[at:at + PIECE]  # zlib copies the input that a call leaves, so it gets no more than this
            while not inflater.eof:
                inflated = len(inflater.decompress(piece, PIECE))
                piece = inflater.unconsumed_tail
                size += inflated
                if may_be_too_large and size > block.room:
                    return None
                if not inflated and not piece:
                    break
    except zlib.error as error:
        return f"is damaged: {error}"
    return "is damaged" if inflater.eof else f"is truncated: the data ends after {block.size} bytes of it"


cdef Py_ssize_t skip_padding(Memory src, Py_ssize_t at) noexcept:
    while at < src.size and not src.start[at]:
        at += 1
    return at


cdef int finish(Memory src, Py_ssize_t end, str what, Memory out, Py_ssize_t size, Reader reader) except -1:
    cdef Py_ssize_t at = skip_padding(src, end)
    if at < src.size:
        raise CorruptDataError(
            f"{what} ends at byte {end} of {src.size}, but byte {at} is {src.start[at]:#04x}; only zeros may follow"
        )
    if out is not None and out.size != size:
        raise ValueError(f"out has {out.size} bytes, but the data inflates to {size}")
    reader.size_hint = size
    return 0
