"""libqpl's door: its jobs and their pool, one block on the software path, and the counts.

This is the only module that is linked with libqpl. What it knows of libqpl's ways was measured on version
1.9.0 and is repeated by ``tests/test_libqpl.py``, so that a version which changes them is noticed.
"""

import os

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from numcodecs_qpl._core.pthread cimport (
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
)
from numcodecs_qpl._core.qpl cimport (
    QPL_FLAG_DYNAMIC_HUFFMAN,
    QPL_FLAG_FIRST,
    QPL_FLAG_LAST,
    QPL_FLAG_OMIT_VERIFY,
    QPL_STS_INIT_WORK_QUEUES_NOT_AVAILABLE,
    QPL_STS_MORE_OUTPUT_NEEDED,
    QPL_STS_NO_MEM_ERR,
    QPL_STS_OK,
    QPL_STS_QUEUES_ARE_BUSY_ERR,
    QPL_STS_SIZE_ERR,
    qpl_check_job,
    qpl_compression_levels,
    qpl_execute_job,
    qpl_fini_job,
    qpl_get_job_size,
    qpl_get_library_version,
    qpl_init_job,
    qpl_job,
    qpl_op_compress,
    qpl_op_decompress,
    qpl_path_hardware,
    qpl_path_software,
    qpl_path_t,
    qpl_submit_job,
)


cdef extern from "status_names.h":
    ctypedef struct StatusName:
        unsigned number
        const char *name
    StatusName qpl_status_names[1]
    int qpl_status_name_count


cdef extern from "<stdatomic.h>" nogil:
    ctypedef int atomic_int
    int atomic_load(atomic_int *flag)
    void atomic_store(atomic_int *flag, int desired)


cdef enum:
    MAX_IDLE = 64
    STATUS_LIMIT = 1024  # libqpl's largest status is 503
    MAX_STORED = 65535   # bytes in one of deflate's stored blocks (RFC 1951, 3.2.4), and ...
    STORED_HEADER = 5    # ... before them


# ---- The pool -----------------------------------------------------------------------------------

# Software jobs that nobody uses now; hardware's are in _hardware's slots.
cdef struct Pool:
    pthread_mutex_t lock
    qpl_job *idle[MAX_IDLE]
    int idle_count
    int idle_limit
    uint64_t jobs_made
    uint64_t done[PATHS][OPERATIONS]
    uint64_t queues_full
    uint64_t fallbacks[STATUS_LIMIT]


cdef Pool pool
cdef atomic_int lost
cdef qpl_path_t qpl_paths[PATHS]
qpl_paths[SOFTWARE] = qpl_path_software
qpl_paths[HARDWARE] = qpl_path_hardware

memset(&pool, 0, sizeof(pool))
pthread_mutex_init(&pool.lock, NULL)
pool.idle_limit = min(MAX_IDLE, os.cpu_count() or 1)


cdef uint32_t make_job(int path, qpl_job **job) noexcept nogil:
    cdef uint32_t size = 0
    cdef uint32_t status = qpl_get_job_size(qpl_paths[path], &size)
    if status != QPL_STS_OK:
        return status
    job[0] = <qpl_job *>malloc(size)
    if job[0] == NULL:
        return QPL_STS_NO_MEM_ERR
    memset(job[0], 0, size)
    status = qpl_init_job(qpl_paths[path], job[0])
    if status != QPL_STS_OK:
        # A failed hardware init has made this a software job in a buffer that is too small for one.
        free(job[0])
        job[0] = NULL
        return status
    pthread_mutex_lock(&pool.lock)
    pool.jobs_made += 1
    pthread_mutex_unlock(&pool.lock)
    return QPL_STS_OK


cdef void free_job(qpl_job *job) noexcept nogil:
    qpl_fini_job(job)
    free(job)


cdef uint32_t take_job(qpl_job **job) noexcept nogil:
    job[0] = NULL
    pthread_mutex_lock(&pool.lock)
    if pool.idle_count:
        pool.idle_count -= 1
        job[0] = pool.idle[pool.idle_count]
    pthread_mutex_unlock(&pool.lock)
    return QPL_STS_OK if job[0] != NULL else make_job(SOFTWARE, job)


cdef void give_job(qpl_job *job) noexcept nogil:
    pthread_mutex_lock(&pool.lock)
    cdef bint keep = pool.idle_count < pool.idle_limit
    if keep:
        pool.idle[pool.idle_count] = job
        pool.idle_count += 1
    pthread_mutex_unlock(&pool.lock)
    if not keep:
        free_job(job)


def _after_fork_in_child() -> None:
    """Start with an empty pool.

    The parent's idle jobs are left where they are, for a thread of the parent may have been at the list when it
    forked. The lock is not taken before a fork to prevent that: other hooks run in between and wait for locks of
    their own, whose owners may be waiting for ours.
    """
    cdef int idle_limit = pool.idle_limit
    memset(&pool, 0, sizeof(pool))
    pool.idle_limit = idle_limit
    pthread_mutex_init(&pool.lock, NULL)
    atomic_store(&lost, False)


os.register_at_fork(after_in_child=_after_fork_in_child)


# ---- Blocks -------------------------------------------------------------------------------------

cdef void close_worker(Worker *worker) noexcept nogil:
    cdef int path, operation
    if worker.job != NULL:
        give_job(worker.job)
        worker.job = NULL
    pthread_mutex_lock(&pool.lock)
    for path in range(PATHS):
        for operation in range(OPERATIONS):
            pool.done[path][operation] += worker.done[path][operation]
    pthread_mutex_unlock(&pool.lock)


cdef void note_fallback(uint32_t reason) noexcept nogil:
    pthread_mutex_lock(&pool.lock)
    pool.fallbacks[reason if reason < STATUS_LIMIT else STATUS_LIMIT - 1] += 1
    pthread_mutex_unlock(&pool.lock)


cdef void note_lost() noexcept nogil:
    # A C flag instead of a call of Python: that would run signal handlers, and one that raises would end the caller in
    # the middle of its blocks.
    atomic_store(&lost, True)


cdef uint32_t submit_job(qpl_job *job) noexcept nogil:
    return note_full(qpl_submit_job(job))


cdef uint32_t check_job(qpl_job *job) noexcept nogil:
    return note_full(qpl_check_job(job))  # which may submit a second descriptor


cdef uint32_t note_full(uint32_t status) noexcept nogil:
    if status == QPL_STS_QUEUES_ARE_BUSY_ERR:
        pthread_mutex_lock(&pool.lock)
        pool.queues_full += 1
        pthread_mutex_unlock(&pool.lock)
    return status


cdef void aim_job(qpl_job *job, const Task *task, const Block *block) noexcept nogil:
    job.next_in_ptr = <uint8_t *>block.src
    job.available_in = block.size
    job.next_out_ptr = block.dst
    job.available_out = block.room
    job.flags = QPL_FLAG_FIRST | QPL_FLAG_LAST
    job.huffman_table = NULL
    if task.operation == DECOMPRESS:
        job.op = qpl_op_decompress
        return
    job.op = qpl_op_compress
    job.level = <qpl_compression_levels>task.level
    # Verification on the software path fails falsely above 32 KiB.
    job.flags |= QPL_FLAG_OMIT_VERIFY
    if task.dynamic:
        job.flags |= QPL_FLAG_DYNAMIC_HUFFMAN


cdef void forget_matches(qpl_job *job) noexcept nogil:
    # With fixed tables at level 1 libqpl's software path does not clear its table of matches between two uses of a
    # job, so that the bytes depend on what the job did before. Inflating an empty stream in between makes them those
    # of a fresh job, at 0.2 us against 290 us for a new init. (The block then finds fewer matches: 4 KiB take 15 us,
    # not 12.)
    cdef uint8_t[2] empty = [0x03, 0x00]
    cdef uint8_t[2 * SLACK] nothing
    cdef Block block
    cdef Task inflate
    inflate.operation = DECOMPRESS
    block.src = empty
    block.size = sizeof(empty)
    block.dst = nothing
    block.room = SLACK
    aim_job(job, &inflate, &block)
    qpl_execute_job(job)


cdef bint needs_libqpl(const Task *task, const Block *block) noexcept nogil:
    if block.size == 0 or block.room == 0:
        return False
    return task.operation == COMPRESS or not task.may_keep or block.size != block.room


cdef void keep_as_it_is(Block *block) noexcept nogil:
    memcpy(block.dst, block.src, block.size)
    block.written = block.size
    block.status = QPL_STS_OK


cdef void store(Block *block) noexcept nogil:
    cdef uint32_t at = 0
    cdef uint32_t size
    cdef uint8_t *end = block.dst
    block.written = 0
    block.crc = NO_CRC
    block.status = QPL_STS_MORE_OUTPUT_NEEDED
    if block.size + <size_t>STORED_HEADER * (block.size // MAX_STORED + 1) > block.room:
        return
    while at < block.size:
        size = min(block.size - at, <uint32_t>MAX_STORED)
        end[0] = at + size == block.size  # BFINAL
        end[1] = size & 255
        end[2] = size >> 8
        end[3] = ~end[1]
        end[4] = ~end[2]
        memcpy(end + STORED_HEADER, block.src + at, size)
        end += STORED_HEADER + size
        at += size
    block.written = end - block.dst
    block.status = QPL_STS_OK


cdef uint32_t do_in_software(Worker *worker, const Task *task, Block *block) noexcept nogil:
    block.read = 0
    block.written = 0
    block.crc = NO_CRC
    block.status = QPL_STS_OK
    if not needs_libqpl(task, block):
        do_without_libqpl(task, block)
        return block.status
    if worker.job == NULL:
        block.status = take_job(&worker.job)
    if block.status == QPL_STS_OK:
        worker.done[SOFTWARE][task.operation] += 1
        aim_job(worker.job, task, block)
        if task.operation == COMPRESS:
            compress(worker.job, task, block)
        else:
            decompress(worker.job, block)
    if block.status != QPL_STS_OK and task.operation == COMPRESS and task.may_keep:
        if block.status != QPL_STS_MORE_OUTPUT_NEEDED:
            if not worker.fall_back:
                return block.status
            note_fallback(block.status)
        keep_as_it_is(block)
    elif block.status == QPL_STS_MORE_OUTPUT_NEEDED and task.operation == COMPRESS:
        # libqpl 1.9.0 says that of more than 36.3 MiB of noise with dynamic tables, whatever the room.
        store(block)
    return block.status


cdef void do_without_libqpl(const Task *task, Block *block) noexcept nogil:
    if task.operation == DECOMPRESS:
        if block.size and block.size == block.room:
            keep_as_it_is(block)
        else:
            # libqpl refuses empty input; that a stream holds nothing it could not prove.
            block.status = QPL_STS_SIZE_ERR
    elif block.size or block.room < 2:
        block.status = QPL_STS_MORE_OUTPUT_NEEDED
    else:
        # libqpl refuses empty input. An empty final block with fixed codes is the shortest stream.
        block.dst[0] = 0x03
        block.dst[1] = 0x00
        block.written = 2
        block.crc = 0


cdef void compress(qpl_job *job, const Task *task, Block *block) noexcept nogil:
    if task.repeatable and task.level == 1 and not task.dynamic:
        forget_matches(job)
        aim_job(job, task, block)
    block.status = qpl_execute_job(job)
    block.written = job.total_out
    block.crc = job.crc


cdef void decompress(qpl_job *job, Block *block) noexcept nogil:
    cdef uint8_t *spare = NULL
    if not block.slack:
        # In one step: in a second one libqpl 1.9.0 would read the output of the first from before the second's memory.
        spare = <uint8_t *>malloc(<size_t>block.room + SLACK)
        if spare == NULL:
            block.status = QPL_STS_NO_MEM_ERR
            return
        job.next_out_ptr = spare
    block.status = qpl_execute_job(job)
    block.read = job.total_in
    block.written = job.total_out
    block.crc = job.crc
    if spare != NULL:
        memcpy(block.dst, spare, block.written)
        free(spare)


cdef uint32_t continue_in_software(Worker *worker, Block *block) noexcept nogil:
    cdef qpl_job *job = worker.job
    cdef uint32_t before = job.total_out
    job.next_out_ptr = block.dst
    job.available_out = block.room
    job.flags = QPL_FLAG_LAST
    block.status = qpl_execute_job(job)
    block.written = job.total_out - before
    block.crc = NO_CRC
    return block.status


# ---- What can be seen ---------------------------------------------------------------------------

NO_WORK_QUEUES = int(QPL_STS_INIT_WORK_QUEUES_NOT_AVAILABLE)
"""libqpl's init status where there is no device, or no queue of one, that this process can use."""


def probe_hardware() -> int:
    """Status with which libqpl answers the wish for a hardware job: 0 where an IAA can be used."""
    cdef qpl_job *job = NULL
    cdef uint32_t status = make_job(HARDWARE, &job)
    if job != NULL:
        free_job(job)
    return status


def device_was_lost() -> bool:
    """Return True if a device has stopped answering in this process."""
    return atomic_load(&lost) != 0


def status_name(status: int) -> str:
    """libqpl's own name for a status number, from the header it was built with."""
    cdef int i
    for i in range(qpl_status_name_count):
        if qpl_status_names[i].number == status:
            return qpl_status_names[i].name.decode()
    return "unknown status"


def libqpl_version() -> str:
    """Version of the libqpl that is linked in."""
    return qpl_get_library_version().decode()


def stats() -> dict[str, dict[str, int]]:
    """Blocks done by this process since it began (or forked), or since `reset_stats`.

    Returns
    -------
    dict
        ``"hardware"`` and ``"software"``: blocks ``"compressed"`` and ``"decompressed"`` there.
        ``"fallback"``: blocks that hardware did not do, and software did instead, by libqpl's name of the reason.
        ``"queues"``: how often they were found ``"full"``.
        ``"pool"``: libqpl jobs ``"made"`` (a software one takes about 290 us and 0.7 MB), and software ones that are
        ``"idle"`` now.
    """
    pthread_mutex_lock(&pool.lock)
    cdef Pool seen = pool
    pthread_mutex_unlock(&pool.lock)
    return {
        "hardware": {
            "compressed": seen.done[HARDWARE][COMPRESS],
            "decompressed": seen.done[HARDWARE][DECOMPRESS],
        },
        "software": {
            "compressed": seen.done[SOFTWARE][COMPRESS],
            "decompressed": seen.done[SOFTWARE][DECOMPRESS],
        },
        "fallback": {
            status_name(status): seen.fallbacks[status]
            for status in range(STATUS_LIMIT) if seen.fallbacks[status]
        },
        "queues": {"full": seen.queues_full},
        "pool": {
            "made": seen.jobs_made,
            "idle": seen.idle_count,
        },
    }


def reset_stats() -> None:
    """Set the counts of `stats` to zero; jobs in the pool stay."""
    pthread_mutex_lock(&pool.lock)
    pool.jobs_made = 0
    pool.queues_full = 0
    memset(pool.done, 0, sizeof(pool.done))
    memset(pool.fallbacks, 0, sizeof(pool.fallbacks))
    pthread_mutex_unlock(&pool.lock)
