"""One block of deflate through libqpl, and the pool of jobs that does it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from numcodecs_qpl._core.qpl cimport qpl_job


cdef enum:
    PATHS = 2
    SOFTWARE = 0
    HARDWARE = 1


cdef enum:
    OPERATIONS = 2
    COMPRESS = 0
    DECOMPRESS = 1


# One block: `room` bytes at `dst` may be written. The result is `written`, `crc` (CRC-32 of the
# uncompressed side), `status`, and, inflating, `read`: bytes of input used, which libqpl puts up to
# 8 too high in software, and at all of them on hardware.
cdef struct Block:
    const uint8_t *src
    uint8_t *dst
    uint32_t size
    uint32_t room
    uint32_t read
    uint32_t written
    uint32_t crc
    uint32_t status


# What one thread holds while it works: its jobs (taken from the pool when first needed,
# NULL before), the one that ran last, where its blocks may run, and what it has counted.
cdef struct Worker:
    qpl_job *job[PATHS]
    qpl_job *last
    bint hardware
    bint fall_back
    uint64_t done[PATHS][OPERATIONS]


# Set `worker` up for the path in force; raises QplError where that is "hardware" and there is none.
cdef int open_worker(Worker *worker) except -1
# Give the jobs back and add up the counts.
cdef void close_worker(Worker *worker) noexcept nogil

cdef uint32_t compress_block(Worker *worker, Block *block, uint32_t level, bint dynamic) noexcept nogil
# Inflate a whole stream into `room` bytes. OK means only that nothing was wrong with what was
# read: libqpl says so of a truncated stream too. Compare `written` with what is expected.
cdef uint32_t decompress_block(Worker *worker, Block *block) noexcept nogil
# Go on with the stream of a decompress_block that ended with MORE_OUTPUT_NEEDED: `room`
# more bytes at `dst`. `written` counts these alone; `crc` is meaningless.
cdef uint32_t continue_block(Worker *worker, Block *block) noexcept nogil
