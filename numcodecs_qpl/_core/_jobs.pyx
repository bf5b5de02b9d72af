"""One block of deflate through libqpl, and the pool of jobs that does it.

This is the only module that is linked with libqpl. What it knows of libqpl's ways was measured on version
1.9.0 and is repeated by ``tests/test_libqpl.py``, so that a version which changes them is noticed.
"""

import os

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from numcodecs_qpl._core.qpl cimport (
    QPL_FLAG_DYNAMIC_HUFFMAN,
    QPL_FLAG_FIRST,
    QPL_FLAG_LAST,
    QPL_FLAG_OMIT_VERIFY,
    QPL_STS_INIT_HW_NOT_SUPPORTED,
    QPL_STS_INIT_LIBACCEL_ERROR,
    QPL_STS_INIT_LIBACCEL_NOT_FOUND,
    QPL_STS_INIT_WORK_QUEUES_NOT_AVAILABLE,
    QPL_STS_MORE_OUTPUT_NEEDED,
    QPL_STS_NO_MEM_ERR,
    QPL_STS_OK,
    QPL_STS_QUEUES_ARE_BUSY_ERR,
    QPL_STS_SIZE_ERR,
    QPL_STS_UNSUPPORTED_COMPRESSION_LEVEL,
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
)

from numcodecs_qpl._core.errors import QplError


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)


cdef extern from "status_names.h":
    ctypedef struct StatusName:
        unsigned number
        const char *name
    StatusName qpl_status_names[1]
    int qpl_status_name_count


cdef enum:
    MAX_IDLE = 64
    STATUS_LIMIT = 1024  # libqpl's largest status is 503
    NOT_PROBED = 0xFFFF
    BUSY_RETRIES = 3  # as in QEMU 9.1: waiting for ever took a quarter longer than doing the block in software


# ---- The pool -----------------------------------------------------------------------------------

cdef struct Pool:
    pthread_mutex_t lock
    qpl_job *idle[PATHS][MAX_IDLE]
    int idle_count[PATHS]
    int idle_limit
    uint64_t jobs_made
    uint64_t done[PATHS][OPERATIONS]
    uint64_t fallbacks[STATUS_LIMIT]


cdef Pool pool
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


cdef uint32_t take_job(int path, qpl_job **job) noexcept nogil:
    job[0] = NULL
    pthread_mutex_lock(&pool.lock)
    if pool.idle_count[path]:
        pool.idle_count[path] -= 1
        job[0] = pool.idle[path][pool.idle_count[path]]
    pthread_mutex_unlock(&pool.lock)
    return QPL_STS_OK if job[0] != NULL else make_job(path, job)


cdef void give_job(int path, qpl_job *job) noexcept nogil:
    pthread_mutex_lock(&pool.lock)
    cdef bint keep = pool.idle_count[path] < pool.idle_limit
    if keep:
        pool.idle[path][pool.idle_count[path]] = job
        pool.idle_count[path] += 1
    pthread_mutex_unlock(&pool.lock)
    if not keep:
        qpl_fini_job(job)
        free(job)


def _after_fork_in_child() -> None:
    """Start with an empty pool: the parent's hardware jobs are not ours to use, or to finish.

    The parent's idle jobs are left where they are, for a thread of the parent may have been at the list when it
    forked. The lock is not taken before a fork to prevent that: other hooks run in between and wait for locks of
    their own, whose owners may be waiting for ours.
    """
    global hardware_status
    cdef int idle_limit = pool.idle_limit
    memset(&pool, 0, sizeof(pool))
    pool.idle_limit = idle_limit
    pthread_mutex_init(&pool.lock, NULL)
    hardware_status = NOT_PROBED


os.register_at_fork(after_in_child=_after_fork_in_child)


# ---- The path -----------------------------------------------------------------------------------

PATH_VARIABLE = "NUMCODECS_QPL_PATH"
PATH_SETTINGS = ("auto", "hardware", "software")

_ADVICE = {
    QPL_STS_INIT_HW_NOT_SUPPORTED: "this libqpl was built without the hardware path",
    QPL_STS_INIT_LIBACCEL_NOT_FOUND: "install libaccel-config (Debian: apt-get install libaccel-config1)",
    QPL_STS_INIT_LIBACCEL_ERROR: "libaccel-config could not read the devices: is the idxd driver loaded?",
    QPL_STS_INIT_WORK_QUEUES_NOT_AVAILABLE: (
        "no IAA work queue is enabled, shared and open to this user: set one up with accel-config"
    ),
}

cdef uint32_t hardware_status = NOT_PROBED
path_setting: str = os.environ.get(PATH_VARIABLE, "auto")


def hardware_init_status() -> int:
    """Status with which libqpl answers the wish for a hardware job: 0 where an IAA can be used.

    Asked once a process: libqpl itself looks for devices only once.
    """
    global hardware_status
    cdef qpl_job *job = NULL
    if hardware_status == NOT_PROBED:
        hardware_status = take_job(HARDWARE, &job)
        if job != NULL:
            give_job(HARDWARE, job)
    return hardware_status


def hardware_advice(status: int) -> str:
    """What to do about an init status of the hardware path, in one sentence."""
    return _ADVICE.get(status, "see libqpl's list of status codes")


def set_path(path: str) -> None:
    """Choose where blocks run, for this process.

    Parameters
    ----------
    path : {"auto", "hardware", "software"}
        "hardware" is an IAA or an error; "software" is libqpl's software path; "auto" (the default, or what the
        environment variable ``NUMCODECS_QPL_PATH`` says) is an IAA where one can be used, else software.

    Raises
    ------
    ValueError
        For any other word.
    QplError
        For "hardware" where libqpl finds no usable device; the setting stays as it was.
    """
    global path_setting
    if path not in PATH_SETTINGS:
        raise ValueError(f"path is {path!r}; it must be one of {', '.join(PATH_SETTINGS)}")
    if path == "hardware":
        _require_hardware()
    path_setting = path


def get_path() -> str:
    """The setting of `set_path`: "auto", "hardware" or "software"."""
    return path_setting


def path_in_force() -> str:
    """Where the next block runs: "hardware" or "software".

    Raises
    ------
    ValueError
        If ``NUMCODECS_QPL_PATH`` held none of the three words.
    QplError
        If the setting is "hardware" and no device can be used.
    """
    if path_setting == "software":
        return "software"
    if path_setting == "auto":
        return "software" if hardware_init_status() else "hardware"
    if path_setting != "hardware":
        raise ValueError(
            f"{PATH_VARIABLE} is {path_setting!r}; it must be one of {', '.join(PATH_SETTINGS)}"
        )
    _require_hardware()
    return "hardware"


def _require_hardware() -> None:
    status = hardware_init_status()
    if status:
        raise QplError(
            f"the hardware path cannot be used: {hardware_advice(status)}", status, status_name(status)
        )


# ---- Blocks -------------------------------------------------------------------------------------

cdef int open_worker(Worker *worker) except -1:
    memset(worker, 0, sizeof(worker[0]))
    worker.hardware = path_in_force() == "hardware"
    worker.fall_back = path_setting != "hardware"
    return 0


cdef void close_worker(Worker *worker) noexcept nogil:
    cdef int path, operation
    for path in range(PATHS):
        if worker.job[path] != NULL:
            give_job(path, worker.job[path])
            worker.job[path] = NULL
    pthread_mutex_lock(&pool.lock)
    for path in range(PATHS):
        for operation in range(OPERATIONS):
            pool.done[path][operation] += worker.done[path][operation]
    pthread_mutex_unlock(&pool.lock)


cdef void note_fallback(uint32_t reason) noexcept nogil:
    pthread_mutex_lock(&pool.lock)
    pool.fallbacks[reason if reason < STATUS_LIMIT else STATUS_LIMIT - 1] += 1
    pthread_mutex_unlock(&pool.lock)


cdef inline uint32_t pick_job(Worker *worker, int path) noexcept nogil:
    cdef uint32_t status = QPL_STS_OK
    if worker.job[path] == NULL:
        status = take_job(path, &worker.job[path])
    worker.last = worker.job[path]
    return status


cdef inline void aim(qpl_job *job, Block *block, uint32_t flags) noexcept nogil:
    job.next_in_ptr = <uint8_t *>block.src
    job.available_in = block.size
    job.next_out_ptr = block.dst
    job.available_out = block.room
    job.flags = flags


cdef void forget_matches(qpl_job *job) noexcept nogil:
    # With fixed tables at level 1 libqpl's software path does not clear its table of matches between two uses of a
    # job, so that the bytes depend on what the job did before. Inflating an empty stream in between makes them those
    # of a fresh job, at 0.2 us against 290 us for a new init. (The block then finds fewer matches: 4 KiB take 15 us,
    # not 12.)
    cdef uint8_t[2] empty = [0x03, 0x00]
    cdef uint8_t[2 * SLACK] nothing
    cdef Block block
    block.src = empty
    block.size = sizeof(empty)
    block.dst = nothing
    block.room = SLACK
    job.op = qpl_op_decompress
    aim(job, &block, QPL_FLAG_FIRST | QPL_FLAG_LAST)
    qpl_execute_job(job)


cdef uint32_t compress_on(
    int path, Worker *worker, Block *block, uint32_t level, bint dynamic, bint repeatable
) noexcept nogil:
    if path == HARDWARE and level != 1:
        return QPL_STS_UNSUPPORTED_COMPRESSION_LEVEL
    cdef uint32_t status = pick_job(worker, path)
    if status != QPL_STS_OK:
        return status
    cdef qpl_job *job = worker.last
    if repeatable and path == SOFTWARE and level == 1 and not dynamic:
        forget_matches(job)
    job.op = qpl_op_compress
    job.level = <qpl_compression_levels>level
    job.huffman_table = NULL
    # Verification on the software path fails falsely above 32 KiB.
    aim(job, block, QPL_FLAG_FIRST | QPL_FLAG_LAST | QPL_FLAG_OMIT_VERIFY
        | (QPL_FLAG_DYNAMIC_HUFFMAN if dynamic else 0))
    status = qpl_execute_job(job)
    block.written = job.total_out
    block.crc = job.crc
    worker.done[path][COMPRESS] += 1
    return status


cdef uint32_t decompress_on(int path, Worker *worker, Block *block) noexcept nogil:
    cdef uint32_t status = pick_job(worker, path)
    if status != QPL_STS_OK:
        return status
    cdef qpl_job *job = worker.last
    job.op = qpl_op_decompress
    job.huffman_table = NULL
    worker.done[path][DECOMPRESS] += 1
    if path == SOFTWARE and not block.slack:
        return decompress_without_slack(job, block)
    aim(job, block, QPL_FLAG_FIRST | QPL_FLAG_LAST)
    status = qpl_execute_job(job)
    block.read = job.total_in
    block.written = job.total_out
    block.crc = job.crc
    return status


cdef uint32_t decompress_without_slack(qpl_job *job, Block *block) noexcept nogil:
    # All but the last bytes go where they belong, so that what libqpl writes too much is still within the block; the
    # last ones take a detour. libqpl gives no CRC for a stream that was inflated in two steps.
    cdef uint8_t[2 * SLACK] detour
    cdef uint32_t direct = block.room - SLACK if block.room > SLACK else 0
    cdef uint32_t status = QPL_STS_MORE_OUTPUT_NEEDED
    cdef uint32_t flags = QPL_FLAG_FIRST | QPL_FLAG_LAST
    aim(job, block, flags)
    if direct:
        job.available_out = direct
        status = qpl_execute_job(job)
        flags = QPL_FLAG_LAST
    if status == QPL_STS_MORE_OUTPUT_NEEDED:
        job.next_out_ptr = detour
        job.available_out = block.room - direct
        job.flags = flags
        status = qpl_execute_job(job)
        if job.total_out > direct:
            memcpy(block.dst + direct, detour, job.total_out - direct)
    block.read = job.total_in
    block.written = job.total_out
    block.crc = NO_CRC
    return status


cdef uint32_t compress_block(
    Worker *worker, Block *block, uint32_t level, bint dynamic, bint repeatable
) noexcept nogil:
    block.written = 0
    block.crc = 0
    block.status = QPL_STS_OK
    if block.size == 0:
        # libqpl refuses empty input. An empty final block with fixed codes is the shortest stream.
        if block.room < 2:
            block.status = QPL_STS_MORE_OUTPUT_NEEDED
        else:
            block.dst[0] = 0x03
            block.dst[1] = 0x00
            block.written = 2
        return block.status
    if worker.hardware:
        for _ in range(1 + BUSY_RETRIES):
            block.status = compress_on(HARDWARE, worker, block, level, dynamic, repeatable)
            if block.status != QPL_STS_QUEUES_ARE_BUSY_ERR:
                break
        if block.status == QPL_STS_OK or block.status == QPL_STS_MORE_OUTPUT_NEEDED or not worker.fall_back:
            return block.status
        note_fallback(block.status)
    block.status = compress_on(SOFTWARE, worker, block, level, dynamic, repeatable)
    return block.status


cdef uint32_t decompress_block(Worker *worker, Block *block) noexcept nogil:
    block.read = 0
    block.written = 0
    block.crc = NO_CRC
    # libqpl refuses empty input; that a stream holds nothing it could not prove.
    block.status = QPL_STS_SIZE_ERR
    if block.size == 0 or block.room == 0:
        return block.status
    if worker.hardware:
        for _ in range(1 + BUSY_RETRIES):
            block.status = decompress_on(HARDWARE, worker, block)
            if block.status != QPL_STS_QUEUES_ARE_BUSY_ERR:
                break
        if block.status == QPL_STS_OK or block.status == QPL_STS_MORE_OUTPUT_NEEDED or not worker.fall_back:
            return block.status
        note_fallback(block.status)
    block.status = decompress_on(SOFTWARE, worker, block)
    return block.status


cdef uint32_t continue_block(Worker *worker, Block *block) noexcept nogil:
    # Only the job that began has the stream's state, so there is no other path to try.
    cdef qpl_job *job = worker.last
    cdef uint32_t before = job.total_out
    job.next_out_ptr = block.dst
    job.available_out = block.room
    job.flags = QPL_FLAG_LAST
    block.status = qpl_execute_job(job)
    block.written = job.total_out - before
    block.crc = NO_CRC
    return block.status


# ---- What can be seen ---------------------------------------------------------------------------

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
        ``"hardware"`` and ``"software"``: blocks ``"compressed"`` and ``"decompressed"`` there, tried ones included.
        ``"fallback"``: blocks that went from hardware to software, by libqpl's name of the reason.
        ``"pool"``: jobs ``"made"`` (about 290 us and 0.7 MB each) and ``"idle"`` now.
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
        "pool": {
            "made": seen.jobs_made,
            "idle": seen.idle_count[SOFTWARE] + seen.idle_count[HARDWARE],
        },
    }


def reset_stats() -> None:
    """Set the counts of `stats` to zero; jobs in the pool stay."""
    pthread_mutex_lock(&pool.lock)
    pool.jobs_made = 0
    memset(pool.done, 0, sizeof(pool.done))
    memset(pool.fallbacks, 0, sizeof(pool.fallbacks))
    pthread_mutex_unlock(&pool.lock)
