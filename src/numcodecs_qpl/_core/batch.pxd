"""Batches of blocks, split into runs over threads. A device goes first; software does the rest."""

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

    # Do all blocks. When compressing, block 0 goes to its `dst`, and each other block directly behind the one before.
    # Until then a block may be written at its own `dst`. Raises QplError if the path setting is "hardware" and a device
    # fails, and MemoryError without memory. No Python code runs meanwhile, so no signal handler does either.
    cdef int run(self, str what) except -1
    # Checksum of the uncompressed bytes of all blocks.
    cdef uint32_t joined_checksum(self) noexcept


# Upper bound of the compressed size of an open block of `size` bytes.
cdef size_t open_room(size_t size) noexcept
# Upper bound of the size that `deflate_stream` writes for `size` bytes.
cdef size_t level_room(size_t size) noexcept
# Compress into one final stream, in software, at level 0 (stored) to 9.
cdef int deflate_stream(Block *block, Checksum checksum, int level) except -1
# Inflate one final stream of unknown end. Sets `read`, the bytes of input used, and `block.written`.
cdef int inflate_stream(Block *block, Checksum checksum, size_t *read) except -1
