"""Streams of any producer: inflating one and checking what follows it, for every container."""

from numcodecs_qpl._core.block cimport Block, Checksum
from numcodecs_qpl._core.memory cimport Memory

cdef enum:
    MAX_EXPANSION = 1032  # of deflate: 258 bytes from two bits (RFC 1951, 3.2.5)


cdef class Reader:
    cdef public Py_ssize_t size_hint


# Inflate the stream that begins `start` bytes into `src`: into what is left of `out` after `at` bytes, or if `out` is
# None, into a bytes object. Neither offset is beyond its end. `block` tells how much it was: `size` bytes of `src` and
# `written` inflated ones, with their checksum. `guess`, if it is not 0, is the size to expect; a wrong one costs time
# only. Raises a CorruptDataError if the stream is damaged or truncated (``what.format(number, place)`` names it), and a
# ValueError if it does not fit into `out`.
cdef bytes inflate(
    Block *block, Memory src, Py_ssize_t start, Memory out, Py_ssize_t at, Reader reader, Py_ssize_t guess,
    Checksum checksum, str what, Py_ssize_t number=*, Py_ssize_t place=*
)
# Offset of the first byte from `at` on that is not zero; the size of `src` if there is none.
cdef Py_ssize_t skip_padding(Memory src, Py_ssize_t at) noexcept
# Finish a chunk of `size` bytes: check that only zeros follow `end` and that `out` is filled, and learn the size.
cdef int finish(Memory src, Py_ssize_t end, str what, Memory out, Py_ssize_t size, Reader reader) except -1
