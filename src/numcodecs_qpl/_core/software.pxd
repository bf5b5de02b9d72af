"""The software engine: `software.h` for Cython."""

from libc.stdint cimport uint8_t, uint32_t

from numcodecs_qpl._core.block cimport Block, Checksum, Task

cdef extern from "software.h" nogil:
    ctypedef struct SoftwareEngine:
        pass
    SoftwareEngine *software_take()
    void software_give(SoftwareEngine *engine)
    void software_after_fork()
    enum:
        SOFTWARE_RANDOM
    void software_set_random(const uint8_t *bytes)
    void software_deflate(SoftwareEngine *engine, const Task *task, Block *block)
    void software_store(const Task *task, Block *block)
    size_t software_stored_size(size_t size)
    void software_deflate_at_level(SoftwareEngine *engine, int level, Block *block)
    size_t software_level_bound(size_t size)
    void software_inflate(SoftwareEngine *engine, const Task *task, Block *block, size_t *read)
    uint32_t software_checksum(Checksum kind, const uint8_t *bytes, size_t size)
    uint32_t software_join(Checksum kind, uint32_t first, uint32_t second, size_t size)
    const char *software_isal_version()
    const char *software_libdeflate_version()
