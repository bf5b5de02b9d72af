"""Memory of callers, and bytes objects that are being written."""

from libc.stdint cimport uint8_t, uint64_t


cdef class Memory:
    cdef Py_buffer view
    cdef str name
    cdef uint8_t *start
    cdef Py_ssize_t size


cdef extern from *:
    """
    #ifdef __linux__
    #include <sys/mman.h>
    #endif

    static inline PyObject *new_bytes(Py_ssize_t size)
    {
        PyObject *bytes = PyBytes_FromStringAndSize(NULL, size);
    #ifdef MADV_HUGEPAGE
        /* Fresh memory costs a page fault for each page, and threads wait for each other in the kernel. Huge pages need
           fewer faults. NumPy starts at 4 MiB too. */
        if (bytes && size >= 4 << 20) {
            uintptr_t start = ((uintptr_t)PyBytes_AS_STRING(bytes) + 4095) / 4096 * 4096;
            (void)madvise((void *)start, size - 4096, MADV_HUGEPAGE);
        }
    #endif
        return bytes;
    }

    #define resize_bytes(bytes, size) _PyBytes_Resize(&(bytes), size)
    """
    # A bytes object with undefined content. Write it through PyBytes_AS_STRING before other code gets a reference.
    bytes new_bytes(Py_ssize_t size)
    # Change the size of a bytes object. `bytes` has to be a local variable that holds the only reference.
    int resize_bytes(bytes fresh, Py_ssize_t size) except -1


cdef inline uint64_t get_number(const uint8_t *start, int size) noexcept:
    # Read a little-endian number of `size` bytes.
    cdef uint64_t number = 0
    cdef int i
    for i in range(size):
        number |= <uint64_t>start[i] << 8 * i
    return number


cdef inline void put_number(uint8_t *start, int size, uint64_t number) noexcept:
    cdef int i
    for i in range(size):
        start[i] = number >> 8 * i & 0xff
