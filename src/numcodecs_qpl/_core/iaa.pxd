"""Blocks on an In-Memory Analytics Accelerator (IAA). `iaa.pyx` implements this on libqpl's hardware path, and
`no_iaa.pyx` for builds without libqpl, where there is never a device."""

from libc.stdint cimport int32_t, uint8_t, uint32_t

from numcodecs_qpl._core.block cimport Block, Task


# Takes a block that the device is through with, in the order of the blocks. `output` has its `written` bytes if the
# status is DONE, and belongs to the device afterwards.
ctypedef void (*Place)(void *context, Block *block, const uint8_t *output) noexcept nogil

# Offer those of `count` blocks that are TODO to the devices that `numa_id` names (libqpl's numbering), and hand each
# one over to `place` as DONE, FULL, DAMAGED, NO_MEMORY or DEVICE_FAILED. `patient`: wait for as long as the queues are
# full. Inflating, DONE proves of an open block the same as in software.h; of a final block it proves that its beginning
# inflates to `written` bytes. The device writes to no memory of the caller's, and `dst` is not used.
cdef void do_on_device(
    const Task *task, Block *blocks, Py_ssize_t count, int32_t numa_id, bint patient, Place place, void *context
) noexcept nogil

# Count a block that software did because the device did not, for `reason`.
cdef void note_fallback(uint32_t reason) noexcept nogil

cpdef object init_status()
cpdef str taken_away()
