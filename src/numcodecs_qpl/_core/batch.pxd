"""Batches of blocks: runs, threads; the device first, and software for the rest."""

from libc.stdint cimport uint32_t

from numcodecs_qpl._core.block cimport Block, Checksum, Task


cdef extern from "<stdatomic.h>" nogil:
    ctypedef long long atomic_llong
    long long atomic_fetch_add(atomic_llong *counter, long long step)
    long long atomic_load(atomic_llong *counter)
    void atomic_store(atomic_llong *counter, long long value)


cdef class Batch:
    cdef Block *blocks
    cdef readonly Py_ssize_t count
    cdef Task task
    cdef tuple buffers

    # Do all blocks. Compressing, block 0 goes to its `dst` and each other one directly behind the block before it; its
    # own `dst` says where it may be written meanwhile. Raises QplError if a device fails that is demanded, and
    # MemoryError if there is no memory. No Python runs meanwhile: no signal handler comes between.
    cdef int run(self, str what) except -1
    # Checksum of the uncompressed bytes of all blocks.
    cdef uint32_t joined_checksum(self) noexcept


# Room that compressing an open block of `size` bytes takes at the most.
cdef size_t open_room(size_t size) noexcept
# Room that `deflate_stream` takes for `size` bytes at the most.
cdef size_t level_room(size_t size) noexcept
# Compress into one final stream, in software, at level 0 (stored) to 9.
cdef int deflate_stream(Block *block, Checksum checksum, int level) except -1
# Inflate one final stream of unknown end. `read` and `block.written` say how much of it there was.
cdef int inflate_stream(Block *block, Checksum checksum, size_t *read) except -1
