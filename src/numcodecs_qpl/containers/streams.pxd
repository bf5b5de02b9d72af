"""Streams of any producer: inflating one and checking what follows it, for every container."""

from numcodecs_qpl._core.block cimport Block, Checksum
from numcodecs_qpl._core.memory cimport Memory

cdef enum:
    MAX_EXPANSION = 1032  # of deflate: 258 bytes from two bits (RFC 1951, 3.2.5)


cdef class Reader:
    cdef public Py_ssize_t size_hint


# Inflate the stream at offset `start` of `src` into `out` from offset `at` on, or into a bytes object if `out` is None.
# Neither offset may be beyond the end. Sets `block`: `size` bytes of `src` were read, and `written` bytes were
# inflated, with their checksum. `guess` is the size to expect, or 0; a wrong guess costs time only. Raises
# CorruptDataError if the stream is damaged or truncated (``what.format(number, place)`` names it), and ValueError if it
# does not fit into `out`.
cdef bytes inflate(
    Block *block, Memory src, Py_ssize_t start, Memory out, Py_ssize_t at, Reader reader, Py_ssize_t guess,
    Checksum checksum, str what, Py_ssize_t number=*, Py_ssize_t place=*
)
# Return the offset of the first byte from `at` on that is not zero; the size of `src` if all are zero.
cdef Py_ssize_t skip_padding(Memory src, Py_ssize_t at) noexcept
# Finish a chunk of `size` bytes: check that only zeros follow `end` and that `out` is filled, and remember the size.
cdef int finish(Memory src, Py_ssize_t end, str what, Memory out, Py_ssize_t size, Reader reader) except -1
