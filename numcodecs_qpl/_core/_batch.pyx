"""Batches of blocks: what a chunk's members and a packet's pages both go through."""

import numpy as np
from isal import isal_zlib

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memmove, memset

from numcodecs_qpl._core._hardware cimport do_on_hardware
from numcodecs_qpl._core._jobs cimport (
    COMPRESS,
    DECOMPRESS,
    NO_CRC,
    SLACK,
    TODO,
    Block,
    Task,
    Worker,
    close_worker,
    continue_in_software,
    do_in_software,
    note_fallback,
)
from numcodecs_qpl._core.qpl cimport (
    QPL_STS_MORE_OUTPUT_NEEDED,
    QPL_STS_OK,
    QPL_STS_QUEUES_ARE_BUSY_ERR,
    QPL_STS_TRANSFER_SIZE_INVALID,
)

from numcodecs_qpl._core._jobs import status_name
from numcodecs_qpl._core.arguments import (
    HUFFMAN,
    MAX_BLOCK,
    as_bytes,
    as_writable_bytes,
    check_page_size,
    compress_bound,
    count_blocks,
    count_pages,
    overlap_error,
)
from numcodecs_qpl._core.errors import CorruptDataError, QplError
from numcodecs_qpl._core.path import get_path, numa_id, path_in_force
from numcodecs_qpl._core.threads import get_threads, spread


cdef extern from "<stdatomic.h>" nogil:
    ctypedef long long atomic_llong
    long long atomic_fetch_add(atomic_llong *counter, long long step)


cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *start, size_t length, int advice)
    int MADV_HUGEPAGE


cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t size) except -1


OUTPUT_SLACK = SLACK
"""Bytes after an output that are best left free: inflating is then a little faster, and they may be spoiled."""

cdef enum:
    SMALL_PAGE = 4096
    WORTH_HUGE_PAGES = 4 << 20  # bytes; NumPy draws the line there too
    DEVICE_TRANSFER = 2 << 20   # bytes that a work queue takes where nobody has set it otherwise (Linux's idxd driver)


cdef class BytesWriter:
    """A bytes object while it is being written: writable through the buffer protocol until `finish`.

    So a result of unknown length becomes `bytes` without being copied.

    Parameters
    ----------
    capacity : int
        Bytes to reserve. They are not cleared.
    """

    cdef PyObject *_bytes
    cdef Py_ssize_t _size
    cdef int _exports

    def __cinit__(self, Py_ssize_t capacity):
        cdef bytes fresh = PyBytes_FromStringAndSize(NULL, capacity)
        # This object alone holds the reference from here on: _PyBytes_Resize wants a count of 1. The empty bytes object
        # is shared by all, and is never written to.
        Py_INCREF(fresh)
        self._bytes = <PyObject *>fresh
        self._size = capacity
        cdef size_t start = <size_t>PyBytes_AS_STRING(fresh)
        if capacity >= WORTH_HUGE_PAGES:
            # Fresh memory costs a page fault for each of its pages, and threads wait for each other there. Only advice:
            # without huge pages it fails, and nothing is lost.
            start = (start + SMALL_PAGE - 1) // SMALL_PAGE * SMALL_PAGE
            madvise(<void *>start, capacity - SMALL_PAGE, MADV_HUGEPAGE)

    def __dealloc__(self):
        if self._bytes != NULL:
            Py_DECREF(<object>self._bytes)

    def __len__(self) -> int:
        return self._size

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self._bytes == NULL:
            raise ValueError("this writer has handed over its bytes")
        PyBuffer_FillInfo(view, self, PyBytes_AS_STRING(<object>self._bytes), self._size, 0, flags)
        self._exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self._exports -= 1

    def resize(self, Py_ssize_t capacity) -> None:
        """Change the capacity, keeping what was written up to it.

        Raises
        ------
        BufferError
            If a view of the memory is still held.
        """
        if self._exports:
            raise BufferError("a view of the bytes is still held")
        if self._bytes == NULL:
            raise ValueError("this writer has handed over its bytes")
        if capacity == self._size:
            return
        self._size = 0
        _PyBytes_Resize(&self._bytes, capacity)
        self._size = capacity

    def finish(self, Py_ssize_t size) -> bytes:
        """The first `size` bytes, as a bytes object; the writer is of no more use."""
        self.resize(size)
        cdef object done = <object>self._bytes
        Py_DECREF(done)
        self._bytes = NULL
        return done


cdef enum:
    OPERATION_STATUSES = 300  # QPL_OPERATION_STATUS_BASE in libqpl's status.h, and what follows up to ...
    LAST_STATUS = 599         # ... the end of those at QPL_INIT_ERROR_BASE


cdef bint is_of_the_device(uint32_t status) noexcept:
    # On damaged data libqpl's software path may return any number, even 2**32 - 1.
    return status in (QPL_STS_QUEUES_ARE_BUSY_ERR, TODO) or OPERATION_STATUSES <= status <= LAST_STATUS


cdef bint overlap(const uint8_t[::1] one, const uint8_t[::1] other) noexcept:
    if not one.shape[0] or not other.shape[0]:
        return False
    return &one[0] < &other[0] + other.shape[0] and &other[0] < &one[0] + one.shape[0]


cdef int open_worker(Worker *worker) except -1:
    memset(worker, 0, sizeof(worker[0]))
    worker.hardware = path_in_force() == "hardware"
    worker.fall_back = get_path() != "hardware"
    if worker.hardware:
        worker.numa_id = numa_id()
    return 0


cdef class Batch:
    """Blocks to be done, and the threads' common place to take them from.

    Attributes
    ----------
    src, dst : memoryview
        The buffers that the blocks point into. The batch holds them until all threads have ended, whatever becomes of
        the caller.
    """

    cdef const uint8_t[::1] src
    cdef uint8_t[::1] dst

    cdef Block *blocks
    cdef Py_ssize_t count
    cdef Py_ssize_t run_length
    cdef atomic_llong taken
    cdef Task task
    cdef Py_ssize_t gap

    def __cinit__(self, Py_ssize_t count):
        cdef Py_ssize_t i
        self.count = count
        self.run_length = count
        memset(&self.task, 0, sizeof(self.task))
        self.blocks = <Block *>calloc(count if count else 1, sizeof(Block))
        if self.blocks == NULL:
            raise MemoryError(f"no memory for a batch of {count} blocks")
        for i in range(count):
            self.blocks[i].status = TODO

    def __dealloc__(self):
        free(self.blocks)

    def work(self) -> None:
        """Do runs of blocks until none is left. Any number of threads may be in here."""
        cdef Worker worker
        cdef Py_ssize_t start
        open_worker(&worker)
        with nogil:
            while True:
                start = self.run_length * atomic_fetch_add(&self.taken, 1)
                if start >= self.count:
                    break
                self.do_run(&worker, &self.blocks[start], min(self.run_length, self.count - start))
            close_worker(&worker)

    cdef void do_run(self, Worker *worker, Block *blocks, Py_ssize_t count) noexcept nogil:
        cdef Py_ssize_t i
        if worker.hardware:
            do_on_hardware(worker, &self.task, blocks, count, self.gap)
            return
        for i in range(count):
            if self.task.operation == COMPRESS and i:
                # Within a run, each block begins `gap` bytes after the one before it ended.
                blocks[i].dst = blocks[i - 1].dst + blocks[i - 1].written + self.gap
            do_in_software(worker, &self.task, &blocks[i])

    cdef int run(self, bint slack) except -1:
        # `slack` says whether the SLACK bytes after the last block may be spoiled. Those after any other block may
        # where the same thread writes all of them later.
        cdef Py_ssize_t threads = max(1, min(<Py_ssize_t>get_threads(), self.count))
        cdef Py_ssize_t i
        cdef Py_ssize_t following = SLACK if slack else 0  # bytes after a block that may be spoiled
        # One run for each thread: shorter ones would even out threads of unequal speed, but cost more on equal ones, as
        # each is written into fresh memory of its own and then moved.
        self.run_length = -(-self.count // threads)
        for i in range(self.count - 1, -1, -1):
            self.blocks[i].slack = following >= SLACK
            # The first block of a run follows one of another thread.
            following = following + self.blocks[i].room if i % self.run_length else 0
        if threads > 1:
            spread(self.work, threads)
        else:
            self.work()
        if self.task.operation == COMPRESS:
            self.close_gaps()
        # Helpers have ended, but a thread may hold the batch for a moment longer, and the caller's buffers may be
        # resized from here on.
        self.src = None
        self.dst = None
        return 0

    cdef void close_gaps(self) noexcept:
        # Runs were written each into a place of its own: move them together.
        cdef Py_ssize_t first, last, i, shift, run
        cdef uint8_t *end = self.blocks[0].dst if self.count else NULL
        for first in range(0, self.count, self.run_length):
            last = min(first + self.run_length, self.count) - 1
            shift = self.blocks[first].dst - end
            if shift:
                run = self.blocks[last].dst + self.blocks[last].written - self.blocks[first].dst
                memmove(end, self.blocks[first].dst, run)
                for i in range(first, last + 1):
                    self.blocks[i].dst -= shift
            end = self.blocks[last].dst + self.blocks[last].written + self.gap

    cdef int check(self, str what) except -1:
        cdef Py_ssize_t i
        for i in range(self.count):
            if self.blocks[i].status != QPL_STS_OK:
                self.refuse(f"{what} {i} of {self.count} could not be compressed", i)
        return 0

    cdef int check_device(self, str what) except -1:
        # With hardware demanded, what it fails with is no fault of the data.
        cdef Py_ssize_t i
        for i in range(self.count):
            if is_of_the_device(self.blocks[i].status):
                self.refuse(f"{what} {i} of {self.count} could not be inflated", i)
        return 0

    cdef int refuse(self, str message, Py_ssize_t i) except -1:
        raise QplError(message, self.blocks[i].status, status_name(self.blocks[i].status))


def compress_blocks(
    const uint8_t[::1] src not None,
    uint8_t[::1] dst not None,
    Py_ssize_t block_size,
    *,
    int level,
    bint dynamic,
    Py_ssize_t head=0,
    Py_ssize_t tail=0,
):
    """Compress `src` in blocks of `block_size` bytes, each a raw deflate stream of its own.

    Parameters
    ----------
    src : buffer of bytes
        What to compress; the last block is what remains, and no bytes make one empty block.
    dst : writable buffer of bytes
        At least ``sum(head + compress_bound(n) + tail)`` over the blocks' sizes n.
    block_size : int
        Bytes of `src` in a block, 1 to 2**31 - 1.
    level : int
        1 or 3.
    dynamic : bool
        Huffman tables made for each block, or deflate's fixed ones.
    head, tail : int
        Bytes to leave free before and after each stream, for a container's header and trailer.

    Returns
    -------
    offsets : ndarray of int64, shape (blocks,)
        Where in `dst` each stream begins.
    lengths : ndarray of uint32, shape (blocks,)
        Bytes of each stream.
    crcs : ndarray of uint32, shape (blocks,)
        CRC-32 of each block's uncompressed bytes.

    Raises
    ------
    ValueError
        If `dst` is too small.
    QplError
        If libqpl fails.
    """
    cdef Py_ssize_t size = src.shape[0]
    cdef Py_ssize_t count = count_blocks(size, block_size, head + tail, dst.shape[0])
    cdef Py_ssize_t slot = head + compress_bound(block_size) + tail
    cdef Py_ssize_t last = size - (count - 1) * block_size
    cdef Batch batch = Batch(count)
    cdef Py_ssize_t i
    cdef Block *block
    batch.src = src
    batch.dst = dst
    batch.task.operation = COMPRESS
    batch.task.level = level
    batch.task.dynamic = dynamic
    batch.task.repeatable = True
    batch.gap = tail + head
    for i in range(count):
        block = &batch.blocks[i]
        block.src = &src[0] + i * block_size if size else NULL
        block.size = block_size if i < count - 1 else last
        block.dst = &dst[0] + i * slot + head
        # The room is the same with any number of threads: libqpl's choice of block type may look at it.
        block.room = compress_bound(block.size)
    batch.run(slack=True)
    batch.check("block")
    offsets = np.empty(count, np.int64)
    lengths = np.empty(count, np.uint32)
    crcs = np.empty(count, np.uint32)
    cdef int64_t[::1] offsets_view = offsets
    cdef uint32_t[::1] lengths_view = lengths, crcs_view = crcs
    for i in range(count):
        offsets_view[i] = batch.blocks[i].dst - &dst[0]
        lengths_view[i] = batch.blocks[i].written
        if batch.blocks[i].crc == NO_CRC:
            crcs_view[i] = isal_zlib.crc32(src[i * block_size : i * block_size + batch.blocks[i].size])
        else:
            crcs_view[i] = batch.blocks[i].crc
    return offsets, lengths, crcs


def decompress_blocks(
    const uint8_t[::1] src not None,
    const int64_t[::1] offsets not None,
    const int64_t[::1] lengths not None,
    uint8_t[::1] dst not None,
    const int64_t[::1] sizes not None,
):
    """Inflate raw deflate streams, one after the other into `dst`.

    Nothing is raised for bad streams: libqpl's OK proves little, so the caller has to look at the results anyway.

    Parameters
    ----------
    src : buffer of bytes
        What holds the streams.
    offsets, lengths : buffer of int64, shape (blocks,)
        Where in `src` each stream begins, and its bytes.
    dst : writable buffer of bytes
        ``sum(sizes)`` bytes. `OUTPUT_SLACK` or more after these may be spoiled.
    sizes : buffer of int64, shape (blocks,)
        Bytes that each stream is to inflate to; no more is written.

    Returns
    -------
    statuses : list of int
        libqpl's status for each stream.
    read : list of int
        Bytes of input used: in software up to 8 too high but never above the length, on hardware always the length.
    written : list of int
        Bytes it inflated to.
    crcs : list of int
        Their CRC-32; -1 where libqpl gave none.

    Raises
    ------
    ValueError
        If the arrays do not fit each other or the buffers.
    QplError
        If the path setting is "hardware" and the device fails.
    """
    cdef Py_ssize_t count = offsets.shape[0]
    cdef Py_ssize_t i
    cdef Py_ssize_t at = 0
    if lengths.shape[0] != count or sizes.shape[0] != count:
        raise ValueError("offsets, lengths and sizes must be of one length")
    for i in range(count):
        if not (0 <= offsets[i] <= src.shape[0] and 0 <= lengths[i] <= src.shape[0] - offsets[i]):
            raise ValueError(
                f"stream {i} ({lengths[i]} bytes at {offsets[i]}) is not within the {src.shape[0]} bytes of input"
            )
        if not (0 <= sizes[i] <= dst.shape[0] - at) or sizes[i] > MAX_BLOCK or lengths[i] > MAX_BLOCK:
            raise ValueError(f"stream {i} ({sizes[i]} bytes, inflated) does not fit into the output")
        at += sizes[i]
    cdef Batch batch = Batch(count)
    cdef Block *block
    batch.src = src
    batch.dst = dst
    batch.task.operation = DECOMPRESS
    at = 0
    for i in range(count):
        block = &batch.blocks[i]
        block.src = &src[0] + offsets[i] if src.shape[0] else NULL
        block.size = lengths[i]
        block.dst = &dst[0] + at if dst.shape[0] else NULL
        block.room = sizes[i]
        at += sizes[i]
    batch.run(slack=dst.shape[0] - at >= SLACK)
    batch.check_device("stream")
    return (
        [batch.blocks[i].status for i in range(count)],
        [batch.blocks[i].read for i in range(count)],
        [batch.blocks[i].written for i in range(count)],
        [batch.blocks[i].crc for i in range(count)],
    )


def decompress_stream(const uint8_t[::1] src not None, Py_ssize_t guess, Py_ssize_t limit) -> bytes:
    """Inflate one raw deflate stream of unknown size.

    libqpl's software path takes a truncated stream for a whole one: the caller must have another proof, such as a
    checksum, that what comes back is all.

    Parameters
    ----------
    src : buffer of bytes
        The stream.
    guess : int
        Bytes to reserve at first.
    limit : int
        Bytes that the stream may inflate to at the most.

    Raises
    ------
    CorruptDataError
        If libqpl refuses the stream, or it inflates to more than `limit` bytes.
    QplError
        If the path setting is "hardware" and the device fails.
    """
    cdef Py_ssize_t size = src.shape[0]
    cdef Py_ssize_t capacity = max(1, min(guess, limit))
    cdef Py_ssize_t at = 0
    cdef Worker worker
    cdef Task task
    cdef Block block
    cdef uint8_t[::1] view
    cdef BytesWriter writer
    if not 0 < size <= MAX_BLOCK or limit > MAX_BLOCK:
        raise CorruptDataError(f"a stream of {size} bytes; 1 to {MAX_BLOCK} can be inflated")
    memset(&task, 0, sizeof(task))
    task.operation = DECOMPRESS
    memset(&block, 0, sizeof(block))
    block.src = &src[0]
    block.size = size
    block.slack = True
    open_worker(&worker)
    if worker.hardware and worker.fall_back and max(size, capacity) > DEVICE_TRANSFER:
        note_fallback(QPL_STS_TRANSFER_SIZE_INVALID)
        worker.hardware = False
    elif worker.hardware:
        # A device keeps no state of a stream: each attempt inflates it from the beginning.
        capacity = min(limit, <Py_ssize_t>DEVICE_TRANSFER)
    try:
        writer = BytesWriter(capacity + SLACK)
        while True:
            view = writer
            block.dst = &view[0] + at
            block.room = capacity - at
            block.status = TODO
            with nogil:
                if worker.hardware:
                    do_on_hardware(&worker, &task, &block, 1, 0)
                elif at:
                    continue_in_software(&worker, &block)
                else:
                    do_in_software(&worker, &task, &block)
            at += block.written
            if block.status != QPL_STS_MORE_OUTPUT_NEEDED or capacity >= limit:
                break
            view = None
            capacity = min(limit, 2 * capacity)
            writer.resize(capacity + SLACK)
            if worker.hardware:
                at = 0
                if worker.fall_back:
                    note_fallback(QPL_STS_TRANSFER_SIZE_INVALID)
                    worker.hardware = False
    finally:
        close_worker(&worker)
    view = None
    if is_of_the_device(block.status):
        raise QplError("the stream could not be inflated", block.status, status_name(block.status))
    if block.status == QPL_STS_MORE_OUTPUT_NEEDED:
        raise CorruptDataError(f"the stream of {size} bytes inflates to more than {limit} bytes")
    if block.status != QPL_STS_OK:
        raise CorruptDataError(
            f"the stream of {size} bytes cannot be inflated", block.status, status_name(block.status)
        )
    return writer.finish(at)


def compress_pages_into(buffer, lengths, payload, Py_ssize_t page_size=4096, huffman="fixed") -> int:
    """Compress pages into the caller's memory; `blocks.compress_pages` tells the rest.

    Parameters
    ----------
    buffer : buffer of bytes
        The pages, one after the other.
    lengths : ndarray of uint32, shape (pages,)
        Is given the bytes of each page in the payload.
    payload : writable buffer of bytes
        Is given the payload: at least as many bytes as `buffer` has.
    page_size, huffman
        As in `blocks.compress_pages`.

    Returns
    -------
    int
        Bytes of the payload.

    Raises
    ------
    ValueError
        If `buffer` does not hold whole pages, `lengths` is of another length, `payload` is too small, read-only or
        overlaps `buffer`, or `huffman` is neither word.
    QplError
        If the path setting is "hardware" and the device fails.
    """
    cdef const uint8_t[::1] src = as_bytes(buffer)
    cdef uint8_t[::1] dst = as_writable_bytes(payload)
    cdef uint32_t[::1] lengths_view = lengths
    cdef Py_ssize_t size = src.shape[0]
    cdef Py_ssize_t count = count_pages(size, page_size, huffman, lengths_view.shape[0], dst.shape[0])
    if count == 0:
        return 0
    if overlap(src, dst):
        raise overlap_error("payload", "buffer")
    cdef Batch batch = Batch(count)
    cdef Py_ssize_t i
    cdef Block *block
    batch.src = src
    batch.dst = dst
    batch.task.operation = COMPRESS
    batch.task.may_keep = True
    batch.task.level = 1
    batch.task.dynamic = HUFFMAN[huffman]
    for i in range(count):
        block = &batch.blocks[i]
        block.src = &src[0] + i * page_size
        block.size = page_size
        block.dst = &dst[0] + i * page_size
        block.room = page_size - 1
    batch.run(slack=True)
    batch.check("page")
    for i in range(count):
        lengths_view[i] = batch.blocks[i].written
    block = &batch.blocks[count - 1]
    return block.dst + block.written - &dst[0]


def decompress_pages(payload, lengths, Py_ssize_t page_size=4096, out=None):
    """Inflate pages, as `blocks.decompress_pages` tells."""
    cdef const uint8_t[::1] src = as_bytes(payload)
    check_page_size(page_size)
    cdef const int64_t[::1] sizes = np.ascontiguousarray(lengths, np.int64)
    cdef Py_ssize_t count = sizes.shape[0]
    cdef Py_ssize_t i
    cdef Py_ssize_t at = 0
    for i in range(count):
        if not 0 < sizes[i] <= page_size:
            raise CorruptDataError(f"page {i} has length {sizes[i]}; it must be 1 to {page_size}")
        at += sizes[i]
    if at != src.shape[0]:
        raise CorruptDataError(f"the lengths add up to {at} bytes, but the payload has {src.shape[0]}")
    cdef BytesWriter writer = None
    cdef uint8_t[::1] dst
    if out is None:
        writer = BytesWriter(count * page_size + SLACK)
        dst = writer
    else:
        dst = as_writable_bytes(out)
        if dst.shape[0] != count * page_size:
            raise ValueError(f"out has {dst.shape[0]} bytes; {count} pages of {page_size} have {count * page_size}")
    if overlap(src, dst):
        raise overlap_error("out", "payload")
    cdef Batch batch = Batch(count)
    cdef Block *block
    batch.src = src
    batch.dst = dst
    at = 0
    for i in range(count):
        block = &batch.blocks[i]
        block.src = &src[0] + at
        block.size = sizes[i]
        block.dst = &dst[0] + i * page_size
        block.room = page_size
        at += sizes[i]
    batch.task.operation = DECOMPRESS
    batch.task.may_keep = True
    batch.run(slack=writer is not None)
    batch.check_device("page")
    for i in range(count):
        block = &batch.blocks[i]
        if block.status == QPL_STS_MORE_OUTPUT_NEEDED:
            raise CorruptDataError(
                f"page {i} of {count} inflates to more than {page_size} bytes", block.status, status_name(block.status)
            )
        if block.status != QPL_STS_OK:
            raise CorruptDataError(
                f"page {i} of {count} cannot be inflated", block.status, status_name(block.status)
            )
        if block.written != page_size:
            raise CorruptDataError(f"page {i} of {count} inflates to {block.written} bytes, not {page_size}")
    if writer is None:
        return out
    dst = None
    return writer.finish(count * page_size)
