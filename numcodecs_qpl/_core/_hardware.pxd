"""Blocks on the hardware path: many in flight at once."""

from numcodecs_qpl._core._jobs cimport Block, Task, Worker


# Do `count` blocks on hardware, and in software what that does not do where the worker may fall back. Compressed, each
# block's stream goes `gap` bytes behind the one before, the first to where its `dst` is; inflated, each goes to its
# `dst`. Results are as those of do_in_software. Nothing that the caller owns is written to when this has returned.
cdef void do_on_hardware(
    Worker *worker, const Task *task, Block *blocks, Py_ssize_t count, Py_ssize_t gap
) noexcept nogil
