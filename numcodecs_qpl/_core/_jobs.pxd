"""One block of deflate through libqpl, and the pool of jobs that does it."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from numcodecs_qpl._core.qpl cimport qpl_job


cdef enum:
    PATHS = 2
    SOFTWARE = 0
    HARDWARE = 1


cdef enum:
    OPERATIONS = 2
    COMPRESS = 0
    DECOMPRESS = 1


# libqpl's software path may write up to so many bytes after the end of its output (seen with stored blocks behind
# compressed ones; 4 was the most that 60,000 streams showed, and its bit buffer holds 8).
cdef enum:
    SLACK = 8


# One block: `room` bytes at `dst` may be written, and where `slack` is set, SLACK bytes after them may be spoiled.
# The result is `written`, `status`, `crc` (CRC-32 of the uncompressed side, or NO_CRC) and, inflating, `read`: bytes
# of input used, which libqpl puts up to 8 too high in software, and at all of them on hardware.
cdef enum:
    NO_CRC = -1


cdef struct Block:
    const uint8_t *src
    uint8_t *dst
    uint32_t size
    uint32_t room
    bint slack
    uint32_t read
    uint32_t written
    int64_t crc
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
# Count a block that was done otherwise than first tried, by libqpl's status.
cdef void note_fallback(uint32_t reason) noexcept nogil

# `repeatable`: the bytes must not depend on what the job did before.
cdef uint32_t compress_block(
    Worker *worker, Block *block, uint32_t level, bint dynamic, bint repeatable
) noexcept nogil
# Inflate a whole stream into `room` bytes. OK means only that nothing was wrong with what was
# read: libqpl says so of a truncated stream too. Compare `written` with what is expected.
cdef uint32_t decompress_block(Worker *worker, Block *block) noexcept nogil
# Go on with the stream of a decompress_block that ended with MORE_OUTPUT_NEEDED: `room`
# more bytes at `dst`. `written` counts these alone; there is no CRC.
cdef uint32_t continue_block(Worker *worker, Block *block) noexcept nogil
