"""A bytes object while it is being written."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t


cdef class BytesWriter:
    cdef PyObject *_bytes
    cdef Py_ssize_t _size
    cdef int _exports

    cdef uint8_t *start(self) except NULL
