"""The IAA engine: jobs of libqpl on the hardware path, many in flight at once.

A block in flight is in a *slot*: a libqpl job, and memory of this module. The device writes to that memory and, when
inflating, reads from it. The device never writes to the caller's memory. So a block can be abandoned if the device
does not answer: its slot is never used again, and a late write does no harm. The slot's memory also avoids the page
faults that a device would take on fresh memory of the caller.

All facts about libqpl in this file were measured on version 1.9.0; ``tests/device/test_libqpl.py`` and
``tests/device/test_emulated_iaa.py`` measure them again. No Python code runs in the functions that work without the
GIL.
"""

import os

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, nanosleep, timespec

from numcodecs_qpl._core.block cimport (
    COMPRESS, DAMAGED, DEVICE_FAILED, DONE, FULL, NO_MEMORY, TODO, Block, Status, Task,
)
from numcodecs_qpl._core.qpl cimport (
    QPL_FLAG_DYNAMIC_HUFFMAN, QPL_FLAG_FIRST, QPL_FLAG_LAST, QPL_FLAG_OMIT_VERIFY, QPL_STS_BAD_EOF_ERR,
    QPL_STS_BEING_PROCESSED, QPL_STS_INIT_WORK_QUEUES_NOT_AVAILABLE, QPL_STS_INTL_HARDWARE_TIMEOUT,
    QPL_STS_INTL_PAGE_FAULT, QPL_STS_INTL_W_PAGE_FAULT, QPL_STS_MORE_OUTPUT_NEEDED, QPL_STS_NO_MEM_ERR, QPL_STS_OK,
    QPL_STS_QUEUES_ARE_BUSY_ERR, qpl_check_job, qpl_default_level, qpl_fini_job, qpl_get_job_size,
    qpl_get_library_version, qpl_init_job, qpl_job, qpl_op_compress, qpl_op_decompress, qpl_path_hardware,
    qpl_submit_job,
)


cdef extern from "status_names.h":
    ctypedef struct StatusName:
        unsigned number
        const char *name
    StatusName qpl_status_names[1]
    int qpl_status_name_count


cdef extern from *:
    """
    static void touch_pages(const unsigned char *start, size_t size)
    {
        volatile const unsigned char *bytes = start;
        for (size_t at = 0; at < size; at += 4096) {
            (void)bytes[at];
        }
        (void)bytes[size - 1];
    }
    """
    void touch_pages(const uint8_t *start, size_t size) nogil


cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)


cdef enum:
    MAX_IN_FLIGHT = 64     # of one thread; a device's queues hold up to 128 descriptors altogether
    MAX_IDLE = 2 * MAX_IN_FLIGHT
    KEPT_MEMORY = 1 << 18  # bytes of input and of output memory that an idle slot keeps
    SPARE = 16             # bytes after an output: for the end of an open block, and free bytes that libqpl needs
    BUSY_RETRIES = 3       # as in QEMU 9.1: waiting without a limit took a quarter longer than software
    DATA_STATUSES = 200    # libqpl's status.h: statuses from 200 to 299 concern the data ...
    JOB_STATUSES = 300     # ... and higher ones do not
    STATUS_LIMIT = 1024    # the largest status is 503

# A thread that waits for a device spins first. Then it sleeps, each time for an eighth of the time it has waited.
# Shorter sleeps cost a tenth of a core: each takes about 40 us of CPU time in a virtual machine (measured).
cdef double SPIN_SECONDS = 50e-6
cdef double LONGEST_SLEEP = 1e-3

TIMEOUT_SECONDS = 8.0
"""Seconds without a finished block after which the devices count as lost; libqpl's own waits end after as long."""

# On hardware, libqpl reports the whole input as read, wherever the stream ended. So two stored blocks are appended to
# an open block, with random bytes that data cannot predict. If these bytes follow the block's output, the device has
# read them as blocks, and therefore has read the block to its end. If the block swallows them as its own data, other
# bytes follow.
cdef enum:
    FIRST_HEADER = 5
    PROOF = 8          # bytes of the first stored block ...
    SECOND_HEADER = 5
    LAST = 1           # ... and of the second one
    SENTINEL_SIZE = FIRST_HEADER + PROOF + SECOND_HEADER + LAST

cdef uint8_t[SENTINEL_SIZE] sentinel
cdef uint8_t[PROOF + LAST] sentinel_output
cdef uint8_t[4] STORED_NOTHING  # the empty stored block that ends an open block, without its header
STORED_NOTHING[:] = [0x00, 0x00, 0xff, 0xff]


cdef enum State:
    WAITING    # to be submitted
    IN_FLIGHT
    READY


cdef struct Area:
    uint8_t *bytes
    size_t size


cdef struct Slot:
    qpl_job *job
    Area input             # of an open block that is inflated
    Area output
    const uint8_t *src     # what the device reads ...
    size_t size            # ... and how much of it
    size_t room            # bytes that it may write
    State state
    Status status
    uint32_t reason
    size_t written
    int refusals           # submissions refused because the queues were full
    bint touched           # all its pages were touched, after a page fault


cdef struct Pool:
    pthread_mutex_t lock
    Slot *idle[MAX_IDLE]
    int idle_count
    uint64_t queues_full
    uint64_t fallbacks[STATUS_LIMIT]
    bint lost              # a device stopped answering


cdef Pool pool
cdef int64_t answer = -1  # libqpl's init status; below 0 until it has been requested
cdef bint forked = False


def _choose_sentinel() -> None:
    """Write the two stored blocks (RFC 1951, 3.2.4): BFINAL and BTYPE, LEN, its complement, and the bytes."""
    proof, last = os.urandom(PROOF), os.urandom(LAST)
    blocks = b"\x00\x08\x00\xf7\xff" + proof + b"\x01\x01\x00\xfe\xff" + last
    memcpy(sentinel, <const uint8_t *>blocks, sizeof(sentinel))
    output = proof + last
    memcpy(sentinel_output, <const uint8_t *>output, sizeof(sentinel_output))


_choose_sentinel()


cdef void empty_pool() noexcept:
    memset(&pool, 0, sizeof(pool))
    pthread_mutex_init(&pool.lock, NULL)


empty_pool()


def _after_fork_in_child() -> None:
    """Drop the parent's slots, whose jobs belong to the parent's devices, and reset the counts."""
    global forked
    forked |= answer == QPL_STS_OK
    empty_pool()


os.register_at_fork(after_in_child=_after_fork_in_child)


# ---- Jobs and slots -----------------------------------------------------------------------------

cdef uint32_t make_job(qpl_job **job) noexcept nogil:
    cdef uint32_t size = 0
    cdef uint32_t status = qpl_get_job_size(qpl_path_hardware, &size)
    if status != QPL_STS_OK:
        return status
    job[0] = <qpl_job *>calloc(1, size)
    if job[0] == NULL:
        return QPL_STS_NO_MEM_ERR
    status = qpl_init_job(qpl_path_hardware, job[0])
    if status != QPL_STS_OK:
        # After a failed init this is a software job, in a buffer that is too small for one.
        free(job[0])
        job[0] = NULL
    return status


cdef void drop_job(Slot *slot) noexcept nogil:
    if slot.job != NULL:
        qpl_fini_job(slot.job)
        free(slot.job)
        slot.job = NULL


cdef void drop_memory(Area *memory) noexcept nogil:
    free(memory.bytes)
    memory.bytes = NULL
    memory.size = 0


cdef bint make_room(Area *memory, size_t size) noexcept nogil:
    if memory.size < size:
        drop_memory(memory)
        memory.bytes = <uint8_t *>malloc(size)
        if memory.bytes == NULL:
            return False
        memory.size = size
        # Touch the pages first: a device may return a job for each page that is not mapped. Touch no more pages than
        # this: the size may come from untrusted data.
        memset(memory.bytes, 0, min(size, <size_t>KEPT_MEMORY))
    return True


cdef Slot *take_slot() noexcept nogil:
    cdef Slot *slot = NULL
    pthread_mutex_lock(&pool.lock)
    if pool.idle_count:
        pool.idle_count -= 1
        slot = pool.idle[pool.idle_count]
    pthread_mutex_unlock(&pool.lock)
    return slot if slot != NULL else <Slot *>calloc(1, sizeof(Slot))


cdef void give_slot(Slot *slot) noexcept nogil:
    if slot.input.size > KEPT_MEMORY:
        drop_memory(&slot.input)
    if slot.output.size > KEPT_MEMORY:
        drop_memory(&slot.output)
    pthread_mutex_lock(&pool.lock)
    cdef bint keep = pool.idle_count < MAX_IDLE
    if keep:
        pool.idle[pool.idle_count] = slot
        pool.idle_count += 1
    pthread_mutex_unlock(&pool.lock)
    if not keep:
        drop_job(slot)
        drop_memory(&slot.input)
        drop_memory(&slot.output)
        free(slot)


# ---- One block ----------------------------------------------------------------------------------

cdef void finish(Slot *slot, Status status) noexcept nogil:
    slot.status = status
    slot.state = READY


cdef void fail(Slot *slot, uint32_t reason) noexcept nogil:
    slot.reason = reason
    finish(slot, DEVICE_FAILED)


cdef void take_in(const Task *task, Slot *slot, const Block *block, uint32_t obstacle) noexcept nogil:
    # Begin a block. If `obstacle` is not OK, the block does not go to the device.
    slot.src = block.src
    slot.size = block.size
    slot.room = block.room
    slot.written = 0
    slot.reason = 0
    slot.refusals = 0
    slot.touched = False
    slot.state = WAITING
    slot.status = TODO
    if block.status != TODO:
        slot.state = READY
        return
    if obstacle != QPL_STS_OK:
        fail(slot, obstacle)
        return
    if task.open and task.operation != COMPRESS:
        slot.size += sizeof(sentinel)
        slot.room += sizeof(sentinel_output)
        if not make_room(&slot.input, slot.size):
            finish(slot, NO_MEMORY)
            return
        memcpy(slot.input.bytes, block.src, block.size)
        memcpy(slot.input.bytes + block.size, sentinel, sizeof(sentinel))
        slot.src = slot.input.bytes
    if not make_room(&slot.output, slot.room + SPARE):
        finish(slot, NO_MEMORY)


cdef void aim_job(const Task *task, Slot *slot, int32_t numa_id) noexcept nogil:
    cdef qpl_job *job = slot.job
    job.next_in_ptr = <uint8_t *>slot.src
    job.available_in = slot.size
    job.next_out_ptr = slot.output.bytes
    job.available_out = slot.room
    job.numa_id = numa_id
    job.huffman_table = NULL
    job.flags = QPL_FLAG_FIRST | QPL_FLAG_LAST
    job.op = qpl_op_decompress
    if task.operation == COMPRESS:
        job.op = qpl_op_compress
        job.level = qpl_default_level
        job.flags |= QPL_FLAG_OMIT_VERIFY
        if task.dynamic:
            job.flags |= QPL_FLAG_DYNAMIC_HUFFMAN


cdef void refuse(Slot *slot, bint patient) noexcept nogil:
    # The queues were full.
    pthread_mutex_lock(&pool.lock)
    pool.queues_full += 1
    pthread_mutex_unlock(&pool.lock)
    slot.state = WAITING
    slot.refusals += 1
    if not patient and slot.refusals > BUSY_RETRIES:
        fail(slot, QPL_STS_QUEUES_ARE_BUSY_ERR)


cdef void submit(const Task *task, Slot *slot, int32_t numa_id, bint patient) noexcept nogil:
    cdef uint32_t status
    while slot.state == WAITING:
        status = QPL_STS_OK
        if slot.job == NULL:
            status = make_job(&slot.job)
        if status == QPL_STS_OK:
            aim_job(task, slot, numa_id)
            status = qpl_submit_job(slot.job)
        if status == QPL_STS_OK:
            slot.state = IN_FLIGHT
        elif status == QPL_STS_QUEUES_ARE_BUSY_ERR:
            refuse(slot, patient)
            if patient:
                break
        else:
            fail(slot, status)


cdef void collect(const Task *task, Slot *slot, bint patient) noexcept nogil:
    # libqpl may submit a second descriptor in here: dynamic tables take two.
    cdef uint32_t status = qpl_check_job(slot.job)
    if status == QPL_STS_BEING_PROCESSED:
        return
    if status == QPL_STS_OK:
        slot.written = slot.job.total_out
        if not task.open:
            finish(slot, DONE)
        elif task.operation == COMPRESS:
            open_block(slot)
        else:
            check_sentinel(slot)
        return
    if status == QPL_STS_MORE_OUTPUT_NEEDED:
        finish(slot, FULL)
        return
    # Never use a failed job again. If the queues were full for its second descriptor, libqpl takes the job for half
    # done: it would compress the next block with this block's codes, and report OK.
    drop_job(slot)
    if status == QPL_STS_QUEUES_ARE_BUSY_ERR:
        refuse(slot, patient)
    elif (status == QPL_STS_INTL_PAGE_FAULT or status == QPL_STS_INTL_W_PAGE_FAULT) and not slot.touched:
        # libqpl touches the page and submits again, but only once in a job's lifetime.
        touch_pages(slot.src, slot.size)
        memset(slot.output.bytes, 0, slot.output.size)
        slot.touched = True
        slot.state = WAITING
    elif task.operation != COMPRESS and DATA_STATUSES <= status < JOB_STATUSES:
        slot.reason = status
        finish(slot, DAMAGED)
    else:
        fail(slot, status)


cdef void open_block(Slot *slot) noexcept nogil:
    # The stream of a job is one final deflate block, or stored blocks if the output did not fit (error 25).
    cdef uint8_t *stream = slot.output.bytes
    cdef uint32_t used = slot.job.last_bit_offset  # bits of the last byte; 0 stands for all
    if not slot.written or not stream[0] & 6:
        finish(slot, FULL)  # BTYPE 00, stored
        return
    stream[0] &= 0xfe  # BFINAL
    if used == 0 or used > 5:
        # The last byte has no room for the three bits of the stored block's header.
        stream[slot.written] = 0
        slot.written += 1
    memcpy(stream + slot.written, STORED_NOTHING, sizeof(STORED_NOTHING))
    slot.written += sizeof(STORED_NOTHING)
    finish(slot, DONE if slot.written <= slot.room else FULL)


cdef void check_sentinel(Slot *slot) noexcept nogil:
    cdef size_t size = slot.room - sizeof(sentinel_output)
    cdef bint whole = slot.written == slot.room and not memcmp(
        slot.output.bytes + size, sentinel_output, sizeof(sentinel_output)
    )
    slot.written = size
    slot.reason = QPL_STS_BAD_EOF_ERR
    finish(slot, DONE if whole else DAMAGED)


cdef void give_up(Slot *slot, uint32_t reason) noexcept nogil:
    if slot.state == IN_FLIGHT:
        # The device may still write to this memory, so it is never used again.
        slot.job = NULL
        slot.input.bytes = NULL
        slot.input.size = 0
        slot.output.bytes = NULL
        slot.output.size = 0
    fail(slot, reason)


# ---- Many ---------------------------------------------------------------------------------------

cdef void do_on_device(
    const Task *task, Block *blocks, Py_ssize_t count, int32_t numa_id, bint patient, Place place, void *context
) noexcept nogil:
    cdef Slot *ring[MAX_IN_FLIGHT]  # block i is in slot i % depth
    cdef Py_ssize_t depth = 0
    cdef Py_ssize_t first = 0       # first block that is not handed over yet
    cdef Py_ssize_t end = 0         # first block that has not begun
    cdef Py_ssize_t i
    cdef Slot *slot
    cdef Py_ssize_t limit           # of blocks in flight
    cdef Py_ssize_t in_flight = 0
    cdef uint32_t obstacle = QPL_STS_OK
    cdef double progress = now()
    cdef double waited
    cdef bint moved
    while depth < min(count, <Py_ssize_t>MAX_IN_FLIGHT):
        ring[depth] = take_slot()
        if ring[depth] == NULL:
            break
        depth += 1
    if depth == 0:
        for i in range(count):
            blocks[i].status = NO_MEMORY
            place(context, &blocks[i], NULL)
        return
    limit = depth
    while first < count:
        moved = False
        while end < count and end - first < depth:
            take_in(task, ring[end % depth], &blocks[end], obstacle)
            end += 1
        for i in range(first, end):
            slot = ring[i % depth]
            if slot.state == WAITING:
                if in_flight >= limit:
                    break
                submit(task, slot, numa_id, patient)
                in_flight += slot.state == IN_FLIGHT
                if slot.state == WAITING:
                    break  # the queues are full for the next block as well
        for i in range(first, end):
            slot = ring[i % depth]
            if slot.state == IN_FLIGHT:
                collect(task, slot, patient)
                in_flight -= slot.state != IN_FLIGHT
                moved |= slot.state == READY
                if slot.state == WAITING and slot.refusals:
                    # Our own first descriptors fill the queues, so no second one fits: submit fewer blocks at once.
                    limit = max(1, limit // 2)
        while first < end and ring[first % depth].state == READY:
            slot = ring[first % depth]
            if blocks[first].status == TODO:
                blocks[first].status = slot.status
                blocks[first].reason = slot.reason
                blocks[first].written = slot.written
                place(context, &blocks[first], slot.output.bytes)
            first += 1
            moved = True
        waited = now() - progress
        if moved:
            progress = now()
        elif waited > timeout:
            # With none of our blocks in flight, other processes kept the queues full all the time.
            obstacle = QPL_STS_INTL_HARDWARE_TIMEOUT if in_flight else QPL_STS_QUEUES_ARE_BUSY_ERR
            pool.lost |= in_flight != 0
            for i in range(first, end):
                if ring[i % depth].state != READY:
                    give_up(ring[i % depth], obstacle)
            in_flight = 0
        elif waited < SPIN_SECONDS:
            sched_yield()
        else:
            sleep(min(waited / 8, LONGEST_SLEEP))
    for i in range(depth):
        give_slot(ring[i])


cdef double now() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec + 1e-9 * time.tv_nsec


cdef void sleep(double seconds) noexcept nogil:
    cdef timespec time
    time.tv_sec = 0
    time.tv_nsec = <long>(1e9 * seconds)
    nanosleep(&time, NULL)


cdef double timeout = TIMEOUT_SECONDS


def set_timeout(seconds: float) -> None:
    """Set the time after which the devices count as lost. Tests use this to shorten the wait."""
    global timeout
    timeout = seconds


# ---- State and counts ---------------------------------------------------------------------------

cpdef object init_status():
    """Return libqpl's status for a hardware job: 0 if an IAA can be used.

    libqpl is asked once a process, as it looks for devices only once. If `taken_away` has a reason, this is the status
    of a system without work queues.
    """
    global answer
    cdef Slot slot
    if answer < 0:
        slot.job = NULL
        answer = make_job(&slot.job)
        drop_job(&slot)
    return QPL_STS_INIT_WORK_QUEUES_NOT_AVAILABLE if taken_away() else answer


cpdef str taken_away():
    """Return why this process cannot use the devices that were found: "forked", "lost", or an empty string.

    "forked": the parent had opened the devices, and a queue serves only the address space that opened it. Linux does
    not copy its mapping either (``VM_DONTCOPY`` in ``drivers/dma/idxd/cdev.c``). "lost": a device stopped answering.
    """
    if forked:
        return "forked"
    return "lost" if pool.lost else ""


def status_name(status: int) -> str:
    """Return libqpl's name for a status number, from the header of the build."""
    cdef int i
    for i in range(qpl_status_name_count):
        if qpl_status_names[i].number == status:
            return qpl_status_names[i].name.decode()
    return "unknown status"


def libqpl_version() -> str:
    """Return the version of the linked libqpl."""
    return qpl_get_library_version().decode()


cdef void note_fallback(uint32_t reason) noexcept nogil:
    pthread_mutex_lock(&pool.lock)
    pool.fallbacks[min(reason, <uint32_t>(STATUS_LIMIT - 1))] += 1
    pthread_mutex_unlock(&pool.lock)


def stats() -> dict[str, dict[str, int]]:
    """Return the counts of fallbacks, by libqpl's name of the reason, and of full queues."""
    return {
        "fallback": {
            status_name(status): pool.fallbacks[status] for status in range(STATUS_LIMIT) if pool.fallbacks[status]
        },
        "queues": {"full": pool.queues_full},
    }


def reset_stats() -> None:
    """Set the counts of `stats` to zero."""
    pthread_mutex_lock(&pool.lock)
    pool.queues_full = 0
    memset(pool.fallbacks, 0, sizeof(pool.fallbacks))
    pthread_mutex_unlock(&pool.lock)
