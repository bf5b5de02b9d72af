"""A bytes object while it is being written."""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t
from libc.string cimport memcpy


cdef extern from *:
    """
    #ifdef __linux__
    #include <sys/mman.h>
    static void ask_for_huge_pages(void *start, size_t size) { (void)madvise(start, size, MADV_HUGEPAGE); }
    #else
    static void ask_for_huge_pages(void *start, size_t size) { (void)start; (void)size; }
    #endif
    """
    void ask_for_huge_pages(void *start, size_t size)


cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t size) except -1


cdef enum:
    SMALL_PAGE = 4096
    WORTH_HUGE_PAGES = 4 << 20  # bytes; NumPy draws the line there too


cdef class BytesWriter:
    """A bytes object while it is being written: writable through the buffer protocol until `finish`.

    A result of unknown length becomes `bytes` without a copy.

    Parameters
    ----------
    capacity : int
        Bytes to reserve. They are not cleared.
    """

    def __cinit__(self, Py_ssize_t capacity):
        cdef bytes fresh = PyBytes_FromStringAndSize(NULL, capacity)
        # This object alone holds the reference from here on: _PyBytes_Resize wants a count of 1. The empty bytes object
        # is shared by all, and is never written to.
        Py_INCREF(fresh)
        self._bytes = <PyObject *>fresh
        self._size = capacity
        cdef size_t start = <size_t>PyBytes_AS_STRING(fresh)
        if capacity >= WORTH_HUGE_PAGES:
            # Fresh memory costs a page fault for each of its pages, and threads wait for each other there. Without huge
            # pages this has no effect.
            start = (start + SMALL_PAGE - 1) // SMALL_PAGE * SMALL_PAGE
            ask_for_huge_pages(<void *>start, capacity - SMALL_PAGE)

    def __dealloc__(self):
        if self._bytes != NULL:
            Py_DECREF(<object>self._bytes)

    def __len__(self) -> int:
        return self._size

    cdef uint8_t *start(self) except NULL:
        if self._bytes == NULL:
            raise ValueError("this writer has handed over its bytes")
        return <uint8_t *>PyBytes_AS_STRING(<object>self._bytes)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.start(), self._size, 0, flags)
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
        self.start()
        if capacity == self._size:
            return
        self._size = 0
        _PyBytes_Resize(&self._bytes, capacity)
        self._size = capacity

    def finish(self, Py_ssize_t size, bytes tail=b"") -> bytes:
        """The first `size` bytes and those of `tail`, as a bytes object; the writer cannot be used afterwards."""
        self.resize(size + len(tail))
        memcpy(self.start() + size, <const uint8_t *>tail, len(tail))
        cdef object done = <object>self._bytes
        Py_DECREF(done)
        self._bytes = NULL
        return done
