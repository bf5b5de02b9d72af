"""Blocks on the hardware path: many in flight at once.

A block in flight is in a *slot*: a job of libqpl's and memory of ours that the device writes to. The device never
writes to the caller's memory. So a block that a device does not answer for can be given up: its slot is left to the
device for ever, and whatever comes late does no harm. It also spares a real device page faults, which fresh memory of
the caller's would cost, and compressed blocks have to be moved together anyway.
"""

import os

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, nanosleep, timespec

from numcodecs_qpl._core._jobs cimport (
    COMPRESS,
    HARDWARE,
    NO_CRC,
    SLACK,
    Block,
    Task,
    Worker,
    aim_job,
    check_job,
    do_in_software,
    free_job,
    keep_as_it_is,
    make_job,
    needs_libqpl,
    note_fallback,
    note_lost,
    store,
    submit_job,
)
from numcodecs_qpl._core.pthread cimport (
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
)
from numcodecs_qpl._core.qpl cimport (
    QPL_STS_BEING_PROCESSED,
    QPL_STS_INTL_HARDWARE_TIMEOUT,
    QPL_STS_INTL_PAGE_FAULT,
    QPL_STS_INTL_W_PAGE_FAULT,
    QPL_STS_MORE_OUTPUT_NEEDED,
    QPL_STS_NO_MEM_ERR,
    QPL_STS_OK,
    QPL_STS_QUEUES_ARE_BUSY_ERR,
    QPL_STS_UNSUPPORTED_COMPRESSION_LEVEL,
    qpl_job,
)


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


cdef enum:
    MAX_IN_FLIGHT = 64     # of one thread; a device's queues hold up to 128 descriptors altogether
    MAX_IDLE = 2 * MAX_IN_FLIGHT
    KEPT_OUTPUT = 1 << 18  # bytes of output memory that an idle slot keeps
    BUSY_RETRIES = 3       # as in QEMU 9.1: waiting for ever took a quarter longer than doing the block in software

# A thread that waits for a device spins at first, then pauses between its checks: for a part of the time that it has
# waited, so that a long job ends at most so much later. In a virtual machine, pauses of 200 us cost 8 % of a core.
cdef double SPIN_SECONDS = 50e-6
cdef double PAUSE = 1 / 8.0
cdef double LONGEST_PAUSE = 1e-3

TIMEOUT_SECONDS = 8.0
"""Without a block done in so long, the devices are taken for gone; libqpl's own waits end after as long."""

cdef enum State:
    WAITING    # to be submitted
    IN_FLIGHT
    DONE


cdef struct Slot:
    qpl_job *job
    uint8_t *output
    size_t capacity        # bytes at `output`
    Block block            # the caller's, but for `dst` and `slack`
    State state
    int refusals           # times that the queues were full
    bint touched           # all pages of it, after a page fault


# ---- Slots --------------------------------------------------------------------------------------

cdef struct Pool:
    pthread_mutex_t lock
    Slot *idle[MAX_IDLE]
    int idle_count


cdef Pool pool
pool.idle_count = 0
pthread_mutex_init(&pool.lock, NULL)


def _after_fork_in_child() -> None:
    """Forget the parent's slots: their jobs are those of its devices."""
    pool.idle_count = 0
    pthread_mutex_init(&pool.lock, NULL)


os.register_at_fork(after_in_child=_after_fork_in_child)


cdef Slot *take_slot() noexcept nogil:
    cdef Slot *slot = NULL
    pthread_mutex_lock(&pool.lock)
    if pool.idle_count:
        pool.idle_count -= 1
        slot = pool.idle[pool.idle_count]
    pthread_mutex_unlock(&pool.lock)
    return slot if slot != NULL else <Slot *>calloc(1, sizeof(Slot))


cdef void give_slot(Slot *slot) noexcept nogil:
    if slot.capacity > KEPT_OUTPUT:
        free(slot.output)
        slot.output = NULL
        slot.capacity = 0
    pthread_mutex_lock(&pool.lock)
    cdef bint keep = pool.idle_count < MAX_IDLE
    if keep:
        pool.idle[pool.idle_count] = slot
        pool.idle_count += 1
    pthread_mutex_unlock(&pool.lock)
    if not keep:
        drop_job(slot)
        free(slot.output)
        free(slot)


cdef void drop_job(Slot *slot) noexcept nogil:
    if slot.job != NULL:
        free_job(slot.job)
        slot.job = NULL


cdef bint make_room(Slot *slot, size_t size) noexcept nogil:
    if slot.capacity < size:
        free(slot.output)
        slot.output = <uint8_t *>malloc(size)
        if slot.output == NULL:
            slot.capacity = 0
            return False
        slot.capacity = size
        # So that its pages are there: a device may give a job back for each one that is not. No more of them, as it
        # may be a lie of the data's that this takes so much.
        memset(slot.output, 0, min(size, <size_t>KEPT_OUTPUT))
    return True


# ---- One block ----------------------------------------------------------------------------------

cdef void finish(Slot *slot, uint32_t status) noexcept nogil:
    slot.block.status = status
    slot.state = DONE


cdef void take_in(
    Worker *worker, const Task *task, Slot *slot, const Block *block, uint32_t obstacle
) noexcept nogil:
    # Begin with a block: it waits to be submitted, or is done already where hardware is not asked. `obstacle` is what
    # keeps all blocks from hardware, or OK.
    slot.block = block[0]
    slot.block.read = 0
    slot.block.written = 0
    slot.block.crc = NO_CRC
    slot.block.slack = True
    slot.refusals = 0
    slot.touched = False
    slot.state = WAITING
    if not make_room(slot, <size_t>block.room + SLACK):
        finish(slot, QPL_STS_NO_MEM_ERR)
        return
    slot.block.dst = slot.output
    if not needs_libqpl(task, block):
        do_in_software(worker, task, &slot.block)
        slot.state = DONE
        return
    if obstacle == QPL_STS_OK and task.operation == COMPRESS and task.level != 1:
        obstacle = QPL_STS_UNSUPPORTED_COMPRESSION_LEVEL
    if obstacle != QPL_STS_OK:
        do_otherwise(worker, task, slot, obstacle)


cdef void do_otherwise(Worker *worker, const Task *task, Slot *slot, uint32_t reason) noexcept nogil:
    if not worker.fall_back:
        finish(slot, reason)
        return
    note_fallback(reason)
    do_in_software(worker, task, &slot.block)
    slot.state = DONE


cdef void refuse(Worker *worker, const Task *task, Slot *slot) noexcept nogil:
    # The queues were full. Where hardware is demanded the block waits for as long as others are done.
    slot.state = WAITING
    slot.refusals += 1
    if worker.fall_back and slot.refusals > BUSY_RETRIES:
        do_otherwise(worker, task, slot, QPL_STS_QUEUES_ARE_BUSY_ERR)


cdef void submit(Worker *worker, const Task *task, Slot *slot) noexcept nogil:
    cdef uint32_t status
    while slot.state == WAITING:
        status = QPL_STS_OK
        if slot.job == NULL:
            status = make_job(HARDWARE, &slot.job)
        if status == QPL_STS_OK:
            aim_job(slot.job, task, &slot.block)
            slot.job.numa_id = worker.numa_id
            status = submit_job(slot.job)
        if status == QPL_STS_OK:
            slot.state = IN_FLIGHT
        elif status == QPL_STS_QUEUES_ARE_BUSY_ERR:
            refuse(worker, task, slot)
            if not worker.fall_back:
                break
        else:
            do_otherwise(worker, task, slot, status)


cdef void collect(Worker *worker, const Task *task, Slot *slot) noexcept nogil:
    cdef uint32_t status = check_job(slot.job)
    if status == QPL_STS_BEING_PROCESSED:
        return
    if status == QPL_STS_OK or status == QPL_STS_MORE_OUTPUT_NEEDED:
        slot.block.read = slot.job.total_in
        slot.block.written = slot.job.total_out
        slot.block.crc = slot.job.crc
        worker.done[HARDWARE][task.operation] += 1
        finish(slot, status)
        if status == QPL_STS_MORE_OUTPUT_NEEDED and task.operation == COMPRESS:
            if task.may_keep:
                keep_as_it_is(&slot.block)
            else:
                store(&slot.block)
        return
    # A job that failed is used no more. libqpl 1.9.0 takes one whose second descriptor (dynamic tables have two) found
    # the queues full for half done: it would give the next block the codes of this one, and call the ruin OK.
    drop_job(slot)
    if status == QPL_STS_QUEUES_ARE_BUSY_ERR:
        refuse(worker, task, slot)
    elif (status == QPL_STS_INTL_PAGE_FAULT or status == QPL_STS_INTL_W_PAGE_FAULT) and not slot.touched:
        # libqpl touches the page and submits once more, but only once in the life of a job.
        touch_pages(slot.block.src, slot.block.size)
        memset(slot.output, 0, slot.capacity)
        slot.touched = True
        slot.state = WAITING
    else:
        do_otherwise(worker, task, slot, status)


cdef void give_up(Worker *worker, const Task *task, Slot *slot, uint32_t reason) noexcept nogil:
    if slot.state == IN_FLIGHT:
        # The device may still write there: nobody else may ever.
        slot.job = NULL
        slot.output = NULL
        slot.capacity = 0
        if not make_room(slot, <size_t>slot.block.room + SLACK):
            finish(slot, QPL_STS_NO_MEM_ERR)
            return
        slot.block.dst = slot.output
    do_otherwise(worker, task, slot, reason)


# ---- Many ---------------------------------------------------------------------------------------

cdef void do_on_hardware(
    Worker *worker, const Task *task, Block *blocks, Py_ssize_t count, Py_ssize_t gap
) noexcept nogil:
    cdef Slot *ring[MAX_IN_FLIGHT]  # block i is in slot i % depth
    cdef Py_ssize_t depth = 0
    cdef Py_ssize_t first = 0       # the first that is not at its place yet
    cdef Py_ssize_t end = 0         # the first that has not begun
    cdef Py_ssize_t i
    cdef Slot *slot
    cdef Py_ssize_t limit           # of blocks in flight
    cdef Py_ssize_t in_flight = 0
    cdef uint32_t obstacle = QPL_STS_OK
    cdef double progress = now()
    cdef bint moved
    while depth < min(count, <Py_ssize_t>MAX_IN_FLIGHT):
        ring[depth] = take_slot()
        if ring[depth] == NULL:
            break
        depth += 1
    if depth == 0:
        for i in range(count):
            blocks[i].status = QPL_STS_NO_MEM_ERR
        return
    limit = depth
    while first < count:
        moved = False
        while end < count and end - first < depth:
            take_in(worker, task, ring[end % depth], &blocks[end], obstacle)
            end += 1
        for i in range(first, end):
            slot = ring[i % depth]
            if slot.state == WAITING:
                if in_flight >= limit:
                    break
                submit(worker, task, slot)
                in_flight += slot.state == IN_FLIGHT
                if slot.state == WAITING:
                    break  # the queues are full: the next one would not find a place either
        for i in range(first, end):
            slot = ring[i % depth]
            if slot.state == IN_FLIGHT:
                collect(worker, task, slot)
                in_flight -= slot.state != IN_FLIGHT
                moved |= slot.state == DONE
                if slot.state == WAITING and slot.refusals:
                    # Our own first descriptors keep the second ones out: fewer of them, or none would ever be done.
                    limit = max(1, limit // 2)
        while first < end and ring[first % depth].state == DONE:
            place(task, blocks, first, gap, ring[first % depth])
            first += 1
            moved = True
        if moved:
            progress = now()
        elif now() - progress > timeout:
            # Where nothing of ours is in flight the queues were full all the time, with what others do.
            obstacle = QPL_STS_INTL_HARDWARE_TIMEOUT if in_flight else QPL_STS_QUEUES_ARE_BUSY_ERR
            if in_flight:
                note_lost()
            for i in range(first, end):
                if ring[i % depth].state != DONE:
                    give_up(worker, task, ring[i % depth], obstacle)
        elif now() - progress > SPIN_SECONDS:
            rest(min(PAUSE * (now() - progress), LONGEST_PAUSE))
    for i in range(depth):
        give_slot(ring[i])


cdef void place(const Task *task, Block *blocks, Py_ssize_t i, Py_ssize_t gap, Slot *slot) noexcept nogil:
    cdef Block *block = &blocks[i]
    if task.operation == COMPRESS and i:
        block.dst = blocks[i - 1].dst + blocks[i - 1].written + gap
    block.status = slot.block.status
    block.read = slot.block.read
    block.written = slot.block.written
    block.crc = slot.block.crc
    if block.status == QPL_STS_OK or block.status == QPL_STS_MORE_OUTPUT_NEEDED:
        memcpy(block.dst, slot.output, block.written)


cdef double now() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec + 1e-9 * time.tv_nsec


cdef void rest(double seconds) noexcept nogil:
    cdef timespec time
    time.tv_sec = 0
    time.tv_nsec = <long>(1e9 * seconds)
    nanosleep(&time, NULL)


cdef double timeout = TIMEOUT_SECONDS


def set_timeout(seconds: float) -> None:
    """Change how long a device may take for any block at all; tests cannot wait as long as a device can."""
    global timeout
    timeout = seconds
