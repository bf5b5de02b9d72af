"""A block, the task to do with it, and its result: `block.h` for Cython."""

from libc.stdint cimport uint8_t, uint32_t

cdef extern from "block.h" nogil:
    ctypedef enum Status:
        TODO
        DONE
        FULL
        DAMAGED
        NO_MEMORY
        DEVICE_FAILED

    ctypedef enum Operation:
        COMPRESS
        DECOMPRESS

    ctypedef enum Checksum:
        NO_CHECKSUM
        CRC32
        ADLER32

    ctypedef struct Task:
        Operation operation
        bint dynamic
        bint open
        bint keep
        Checksum checksum

    ctypedef struct Block:
        const uint8_t *src
        size_t size
        uint8_t *dst
        size_t room
        size_t written
        uint32_t checksum
        Status status
        uint32_t reason
