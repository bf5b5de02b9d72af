"""Memory of callers, and bytes objects that are being written."""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t
from libc.string cimport strchr

from numcodecs_qpl._core.arguments import unusual_bytes


cdef class Memory:
    """Bytes of any contiguous buffer or array, without a copy. Their address is fixed while this object lives.

    Parameters
    ----------
    buffer : buffer-like
    name : str
        The caller's name for `buffer`, for messages.
    writable : bool
        The bytes will be written to.

    Raises
    ------
    TypeError
        If `buffer` has no buffer, or holds Python objects.
    ValueError
        If `buffer` is not contiguous, or is read-only and `writable` is set.
    """

    def __cinit__(self, buffer, str name not None, bint writable=False):
        self.name = name
        try:
            PyObject_GetBuffer(buffer, &self.view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
            usual = self.view.format == NULL or not strchr(self.view.format, b"O")
        except (BufferError, TypeError, ValueError):
            usual = False
        if not usual:
            PyBuffer_Release(&self.view)
            PyObject_GetBuffer(unusual_bytes(buffer, name, writable), &self.view, PyBUF_C_CONTIGUOUS)
        if writable and self.view.readonly:
            raise ValueError(f"{name} is read-only; a writable buffer is required")
        self.start = <uint8_t *>self.view.buf
        self.size = self.view.len

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    def __len__(self) -> int:
        return self.size

    def check_apart(self, Memory source not None) -> None:
        """Raise ValueError if this overlaps `source`: its blocks would be overwritten before they are read."""
        if max(self.start, source.start) < min(self.start + self.size, source.start + source.size):
            raise ValueError(f"{self.name} overlaps {source.name}; pass memory of its own")
