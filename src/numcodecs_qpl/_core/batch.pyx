"""Batches of blocks, split into runs over threads. A device goes first; software does the rest."""

import os

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset

from numcodecs_qpl._core.block cimport (
    COMPRESS, DAMAGED, DECOMPRESS, DEVICE_FAILED, DONE, FULL, NO_MEMORY, TODO, Block, Checksum, Task,
)
from numcodecs_qpl._core.iaa cimport do_on_device, note_fallback
from numcodecs_qpl._core.settings cimport get_path, get_threads, numa_id, path_in_force
from numcodecs_qpl._core.software cimport (
    SOFTWARE_RANDOM, SoftwareEngine, software_after_fork, software_checksum, software_deflate,
    software_deflate_at_level, software_give, software_inflate, software_isal_version, software_join,
    software_level_bound, software_libdeflate_version, software_set_random, software_store, software_stored_size,
    software_take,
)

from numcodecs_qpl._core import iaa
from numcodecs_qpl._core.errors import QplError


cdef extern from "spread.h" nogil:
    ctypedef void *(*Work)(void *argument) noexcept
    void spread(Work work, void *argument, int count)


cdef enum:
    SOFTWARE = 0
    HARDWARE = 1

cdef enum:
    STORED_NOTHING = 5  # bytes of the empty stored block that ends an open one
    MARGIN = 16         # free bytes that an engine may need behind its output

cdef atomic_llong done[2][2]  # blocks, by path and operation


# State that is shared by the threads of a batch.
cdef struct Shared:
    Block *blocks
    Py_ssize_t count
    Py_ssize_t run_length
    atomic_llong taken  # runs
    Task task
    bint hardware       # there is a device
    bint fall_back      # software does the blocks that the device refuses
    int32_t numa_id


# State of one thread while it works.
cdef struct Worker:
    Shared *shared
    const Task *task
    SoftwareEngine *software
    uint8_t *end        # compressing: the address of the next block
    long long done[2]   # blocks, by path


cdef bint must_end(const Task *task) noexcept nogil:
    # Return True if blocks are final and have to end with their input. Pages need not, as in QEMU.
    return task.operation == DECOMPRESS and not task.open and not task.keep


cdef void do_in_software(Worker *worker, Block *block) noexcept nogil:
    cdef size_t read = 0
    worker.done[SOFTWARE] += 1
    if worker.task.operation == COMPRESS:
        software_deflate(worker.software, worker.task, block)
    else:
        software_inflate(worker.software, worker.task, block, &read)
        if block.status == DONE and must_end(worker.task) and read != block.size:
            block.status = DAMAGED


cdef void complete(Worker *worker, Block *block) noexcept nogil:
    # Finish a block that an engine is through with. The checksum is taken here, while the bytes are in the cache.
    cdef const Task *task = worker.task
    if block.status == FULL and task.operation == COMPRESS:
        if task.keep:
            keep(block)
        else:
            software_store(task, block)
    if block.status != DONE:
        return
    if task.operation == COMPRESS:
        worker.end = block.dst + block.written
        block.checksum = software_checksum(task.checksum, block.src, block.size)
    else:
        block.checksum = software_checksum(task.checksum, block.dst, block.written)


cdef void keep(Block *block) noexcept nogil:
    memcpy(block.dst, block.src, block.size)
    block.written = block.size
    block.status = DONE


cdef void place(void *context, Block *block, const uint8_t *output) noexcept nogil:
    # Take a block from the device.
    cdef Worker *worker = <Worker *>context
    if worker.task.operation == COMPRESS:
        block.dst = worker.end
    if block.status == DONE or block.status == FULL:
        worker.done[HARDWARE] += 1
    if block.status == DONE:
        memcpy(block.dst, output, block.written)
    elif block.status == DAMAGED or block.status == DEVICE_FAILED and worker.shared.fall_back:
        # The device may refuse valid data, as it follows distances up to 4096 only. So software decides.
        note_fallback(block.reason)
        do_in_software(worker, block)
    complete(worker, block)


cdef void do_run(Worker *worker, Block *blocks, Py_ssize_t count) noexcept nogil:
    cdef Shared *shared = worker.shared
    cdef const Task *task = worker.task
    cdef Py_ssize_t i
    worker.end = blocks[0].dst
    for i in range(count):
        if task.keep and task.operation == DECOMPRESS and blocks[i].size == blocks[i].room:
            keep(&blocks[i])
    if shared.hardware and not must_end(task):  # a device cannot tell where a final block ends
        do_on_device(task, blocks, count, shared.numa_id, not shared.fall_back, place, worker)
        return
    for i in range(count):
        if blocks[i].status == TODO:
            if task.operation == COMPRESS:
                blocks[i].dst = worker.end
            do_in_software(worker, &blocks[i])
            complete(worker, &blocks[i])


cdef void *work(void *argument) noexcept nogil:
    # Do runs of blocks until none is left. Without memory for an engine the blocks stay TODO.
    cdef Shared *shared = <Shared *>argument
    cdef Worker worker
    cdef Py_ssize_t start
    memset(&worker, 0, sizeof(worker))
    worker.shared = shared
    worker.task = &shared.task
    worker.software = software_take()
    while worker.software != NULL:
        start = shared.run_length * atomic_fetch_add(&shared.taken, 1)
        if start >= shared.count:
            break
        do_run(&worker, &shared.blocks[start], min(shared.run_length, shared.count - start))
    software_give(worker.software)
    for path in range(2):
        atomic_fetch_add(&done[path][<int>shared.task.operation], worker.done[path])
    return NULL


cdef void close_gaps(Block *blocks, Py_ssize_t count, Py_ssize_t run_length) noexcept:
    # Each run was written to a place of its own: close the gaps.
    cdef Py_ssize_t first, last, i, shift, run
    cdef uint8_t *end = blocks[0].dst
    for first in range(0, count, run_length):
        last = min(first + run_length, count) - 1
        shift = blocks[first].dst - end
        if shift:
            run = blocks[last].dst + blocks[last].written - blocks[first].dst
            memmove(end, blocks[first].dst, run)
            for i in range(first, last + 1):
                blocks[i].dst -= shift
        end = blocks[last].dst + blocks[last].written


cdef class Batch:
    """Blocks to be compressed or inflated together.

    Parameters
    ----------
    count : int
        Number of blocks.
    buffers : tuple
        Owners of the blocks' memory. The batch holds references to them.
    """

    def __cinit__(self, Py_ssize_t count, tuple buffers):
        self.count = count
        self.buffers = buffers
        memset(&self.task, 0, sizeof(self.task))
        self.blocks = <Block *>calloc(count if count else 1, sizeof(Block))
        if self.blocks == NULL:
            raise MemoryError(f"no memory for a batch of {count} blocks")

    def __dealloc__(self):
        free(self.blocks)

    cdef int run(self, str what) except -1:
        cdef int threads = max(1, min(<Py_ssize_t>get_threads(), self.count))
        cdef Py_ssize_t i
        cdef Shared shared
        if not self.count:
            return 0
        memset(&shared, 0, sizeof(shared))
        shared.blocks = self.blocks
        shared.count = self.count
        # One run for each thread. Shorter runs would help threads of unequal speed, but each run is written into fresh
        # memory and then moved, which costs more on threads of equal speed.
        shared.run_length = -(-self.count // threads)
        shared.task = self.task
        shared.hardware = path_in_force() == "hardware"
        shared.fall_back = get_path() != "hardware"
        if shared.hardware:
            shared.numa_id = numa_id()
        with nogil:
            spread(work, &shared, threads)
        for i in range(self.count):
            if self.blocks[i].status == DEVICE_FAILED:
                reason = self.blocks[i].reason
                raise QplError(f"the device failed on {what} {i} of {self.count}", reason, iaa.status_name(reason))
            if self.blocks[i].status == NO_MEMORY or self.blocks[i].status == TODO:
                raise MemoryError(f"no memory for {what} {i} of {self.count}")
        if self.task.operation == COMPRESS:
            close_gaps(self.blocks, self.count, shared.run_length)
        return 0

    cdef uint32_t joined_checksum(self) noexcept:
        if not self.count:
            return software_checksum(self.task.checksum, NULL, 0)
        cdef uint32_t joined = self.blocks[0].checksum
        cdef size_t size
        for i in range(1, self.count):
            size = self.blocks[i].size if self.task.operation == COMPRESS else self.blocks[i].written
            joined = software_join(self.task.checksum, joined, self.blocks[i].checksum, size)
        return joined


cdef size_t open_room(size_t size) noexcept:
    return software_stored_size(size) + STORED_NOTHING + MARGIN


cdef size_t level_room(size_t size) noexcept:
    return software_level_bound(size)


cdef int deflate_stream(Block *block, Checksum checksum, int level) except -1:
    cdef SoftwareEngine *engine = software_take()
    if engine == NULL:
        raise MemoryError("no memory for the software engine")
    with nogil:
        software_deflate_at_level(engine, level, block)
        block.checksum = software_checksum(checksum, block.src, block.size)
        software_give(engine)
    if block.status != DONE:
        raise MemoryError("no memory for the software engine")
    atomic_fetch_add(&done[SOFTWARE][<int>COMPRESS], 1)
    return 0


cdef int inflate_stream(Block *block, Checksum checksum, size_t *read) except -1:
    cdef SoftwareEngine *engine = software_take()
    cdef Task task
    if engine == NULL:
        raise MemoryError("no memory for the software engine")
    memset(&task, 0, sizeof(task))
    task.operation = DECOMPRESS
    with nogil:
        software_inflate(engine, &task, block, read)
        if block.status == DONE:
            block.checksum = software_checksum(checksum, block.dst, block.written)
            atomic_fetch_add(&done[SOFTWARE][<int>DECOMPRESS], 1)
        software_give(engine)
    if block.status == NO_MEMORY:
        raise MemoryError("no memory for the software engine")
    return 0


def _set_random() -> None:
    cdef bytes random = os.urandom(SOFTWARE_RANDOM)
    software_set_random(random)


_set_random()


def software_versions() -> dict[str, str]:
    """Return the libraries of the software engine, with the versions of their headers."""
    return {"ISA-L": software_isal_version().decode(), "libdeflate": software_libdeflate_version().decode()}


def engine_versions() -> str:
    """Return all libraries that may do the work, with their versions, as one line."""
    versions = {**software_versions(), "libqpl": iaa.libqpl_version()}
    return ", ".join([f"{name} {number}" for name, number in versions.items() if number])


def stats() -> dict[str, dict[str, int]]:
    """Count what this process has done since it began (or forked), or since `reset_stats`.

    Returns
    -------
    dict
        ``"hardware"`` and ``"software"``: blocks ``"compressed"`` and ``"decompressed"`` there. A stream that is
        inflated in one piece counts as one block.
        ``"fallback"``: blocks that software did instead of a device, by libqpl's name of the reason.
        ``"queues"``: ``"full"``, the number of submissions refused because the work queues were full.
    """
    seen = {
        path: {
            "compressed": atomic_load(&done[number][<int>COMPRESS]),
            "decompressed": atomic_load(&done[number][<int>DECOMPRESS]),
        }
        for path, number in (("hardware", HARDWARE), ("software", SOFTWARE))
    }
    return {**seen, **iaa.stats()}


def reset_stats() -> None:
    """Set the counts of `stats` to zero."""
    for path in range(2):
        for operation in range(2):
            atomic_store(&done[path][operation], 0)
    iaa.reset_stats()


def _after_fork_in_child() -> None:
    software_after_fork()
    reset_stats()


os.register_at_fork(after_in_child=_after_fork_in_child)
