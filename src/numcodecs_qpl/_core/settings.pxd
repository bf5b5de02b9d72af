"""The settings of the process, read for each batch."""

from libc.stdint cimport int32_t

cpdef int get_threads() except -1
cpdef str get_path()
cpdef str path_in_force()
# The setting of `set_numa` as libqpl's ``numa_id``.
cdef int32_t numa_id() except? 0
