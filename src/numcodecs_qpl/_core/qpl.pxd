"""The part of libqpl's C interface that we use (qpl/qpl.h, libqpl 1.5 and later)."""

from libc.stdint cimport int32_t, uint8_t, uint32_t

cdef extern from "qpl/qpl.h" nogil:
    ctypedef enum qpl_path_t:
        qpl_path_hardware

    ctypedef enum qpl_operation:
        qpl_op_decompress
        qpl_op_compress

    ctypedef enum qpl_compression_levels:
        qpl_default_level

    ctypedef enum qpl_status:
        QPL_STS_OK
        QPL_STS_BEING_PROCESSED
        QPL_STS_MORE_OUTPUT_NEEDED
        QPL_STS_QUEUES_ARE_BUSY_ERR
        QPL_STS_NO_MEM_ERR
        QPL_STS_BAD_EOF_ERR
        QPL_STS_INTL_HARDWARE_TIMEOUT
        QPL_STS_INTL_PAGE_FAULT
        QPL_STS_INTL_W_PAGE_FAULT
        QPL_STS_INIT_WORK_QUEUES_NOT_AVAILABLE

    enum:
        QPL_FLAG_FIRST
        QPL_FLAG_LAST
        QPL_FLAG_DYNAMIC_HUFFMAN
        QPL_FLAG_OMIT_VERIFY

    ctypedef void *qpl_huffman_table_t

    ctypedef struct qpl_job:
        uint8_t *next_in_ptr
        uint32_t available_in
        uint8_t *next_out_ptr
        uint32_t available_out
        uint32_t total_out
        qpl_operation op
        uint32_t flags
        qpl_compression_levels level
        uint32_t last_bit_offset
        qpl_huffman_table_t huffman_table
        int32_t numa_id

    qpl_status qpl_get_job_size(qpl_path_t path, uint32_t *size)
    qpl_status qpl_init_job(qpl_path_t path, qpl_job *job)
    qpl_status qpl_submit_job(qpl_job *job)
    qpl_status qpl_check_job(qpl_job *job)
    qpl_status qpl_fini_job(qpl_job *job)
    const char *qpl_get_library_version()
