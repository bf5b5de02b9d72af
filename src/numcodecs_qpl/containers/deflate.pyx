"""Bare deflate (RFC 1951): one stream, with neither size nor checksum.

Damage that leaves a valid stream is not detected. Use gzip or zlib unless another program needs bare deflate.
"""

from numcodecs_qpl._core.block cimport NO_CHECKSUM, Block
from numcodecs_qpl._core.blocks cimport compress_blocks
from numcodecs_qpl._core.memory cimport Memory
from numcodecs_qpl.containers.streams cimport Reader, finish, inflate

cdef str WHAT = "the deflate stream"


def encode(Memory src not None, bint dynamic, Py_ssize_t block_size):
    """Compress `src` as one stream of blocks of `block_size` uncompressed bytes."""
    return compress_blocks(src, block_size, dynamic, "", 0, False, 0)[0]


def decode(Memory src not None, Memory out, Reader reader not None):
    """Inflate one raw stream of any producer.

    Raises
    ------
    CorruptDataError
        If the stream is truncated, or other bytes than zeros follow it, or damage is detected.
    ValueError
        If `out` is of another size than the data inflates to.
    """
    cdef Block block
    cdef bytes data = inflate(&block, src, 0, out, 0, reader, 0, NO_CHECKSUM, WHAT)
    finish(src, block.size, WHAT, out, block.written, reader)
    return data
