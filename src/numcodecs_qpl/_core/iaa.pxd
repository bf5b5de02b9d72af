"""Blocks on an In-Memory Analytics Accelerator (IAA). `iaa.pyx` implements this on libqpl's hardware path. `no_iaa.pyx`
implements it for builds without libqpl, which never find a device."""

from libc.stdint cimport int32_t, uint8_t, uint32_t

from numcodecs_qpl._core.block cimport Block, Task


# Callback that takes a finished block, in the order of the blocks. If the status is DONE, `output` holds `written`
# bytes. The device reuses `output` after the call.
ctypedef void (*Place)(void *context, Block *block, const uint8_t *output) noexcept nogil

# Offer the blocks whose status is TODO to the devices that `numa_id` names (libqpl's numbering). Hand each one over to
# `place` as DONE, FULL, DAMAGED, NO_MEMORY or DEVICE_FAILED. `patient`: wait for as long as the queues are full. When
# inflating an open block, DONE proves the same as in software.h. Of a final block it proves only that its beginning
# inflates to `written` bytes. The device never writes to the caller's memory, and `dst` is not used.
cdef void do_on_device(
    const Task *task, Block *blocks, Py_ssize_t count, int32_t numa_id, bint patient, Place place, void *context
) noexcept nogil

# Count a block that software did because the device did not, for `reason`.
cdef void note_fallback(uint32_t reason) noexcept nogil

cpdef object init_status()
cpdef str taken_away()
