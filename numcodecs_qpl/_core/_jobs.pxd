"""libqpl's door: its jobs and their pool, one block on the software path, and the counts."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

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
    TODO = 1000  # the status of a block that nobody has done yet: a failure, and not a number of libqpl


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


# What is to be done with each block of a batch. `may_keep`: a block that does not get smaller, or fails, is kept as it
# is, where there is one byte more than its `room`; inflating, it is known by its size. The rest is of compressing:
# `level`, `dynamic` Huffman tables, and `repeatable`, if the bytes must not depend on what the job did before.
cdef struct Task:
    int operation
    bint may_keep
    uint32_t level
    bint dynamic
    bint repeatable


# What one thread holds while it works, all zeros at first: where its blocks run (`hardware`, on devices that `numa_id`
# says; whether what fails there is done in software), its software job (taken from the pool when first needed), and
# how many blocks were done on each path.
cdef struct Worker:
    bint hardware
    bint fall_back
    int32_t numa_id
    qpl_job *job
    uint64_t done[PATHS][OPERATIONS]


# Give the job back and add up the counts.
cdef void close_worker(Worker *worker) noexcept nogil
# Have `device_was_lost` return True from here on.
cdef void note_lost() noexcept nogil
# Count a block that was done otherwise than first tried, by libqpl's status.
cdef void note_fallback(uint32_t reason) noexcept nogil

# A new job that is ready for use, or libqpl's status of why there is none.
cdef uint32_t make_job(int path, qpl_job **job) noexcept nogil
cdef void free_job(qpl_job *job) noexcept nogil
# Prepare a job for one whole block.
cdef void aim_job(qpl_job *job, const Task *task, const Block *block) noexcept nogil
# libqpl's own functions: only this module is linked with it.
cdef uint32_t submit_job(qpl_job *job) noexcept nogil
cdef uint32_t check_job(qpl_job *job) noexcept nogil

# Whether libqpl is asked for a block at all: not for one of nothing, or one that was kept as it is.
cdef bint needs_libqpl(const Task *task, const Block *block) noexcept nogil
cdef void keep_as_it_is(Block *block) noexcept nogil
# Write a block as stored blocks of deflate, where its room allows. There is no CRC then.
cdef void store(Block *block) noexcept nogil
# Do one block on the software path. Inflating, OK means only that nothing was wrong with what was read: libqpl says so
# of a truncated stream too. Compare `written` with what is expected.
cdef uint32_t do_in_software(Worker *worker, const Task *task, Block *block) noexcept nogil
# Go on with the stream that do_in_software left with MORE_OUTPUT_NEEDED: `room` more bytes at `dst`. `written` counts
# these alone; there is no CRC.
cdef uint32_t continue_in_software(Worker *worker, Block *block) noexcept nogil
