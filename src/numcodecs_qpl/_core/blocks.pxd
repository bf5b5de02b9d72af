"""Blocks of raw deflate, for the containers."""

from numcodecs_qpl._core.memory cimport Memory

cpdef tuple compress_blocks(
    Memory src, Py_ssize_t block_size, bint dynamic, str checksum, Py_ssize_t head, bint index, Py_ssize_t tail
)
cpdef tuple compress_stream(Memory src, int level, str checksum, Py_ssize_t head, Py_ssize_t tail)
cpdef list decompress_blocks(Memory src, list places, Memory dst, bint final, str checksum)
