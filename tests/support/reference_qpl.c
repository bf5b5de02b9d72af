/* libqpl itself, one job at a time: the reference for the package's IAA engine. It has its own copy of libqpl, whose
 * software path the package does not use. */

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "qpl/qpl.h"

#define EXPORT __attribute__((visibility("default")))

struct outcome {
    uint32_t read;      /* bytes of input, as libqpl counts them */
    uint32_t written;
    uint32_t crc;       /* CRC-32 of the uncompressed bytes, as libqpl has it */
    uint32_t last_bits; /* bits that are used of the last byte of a compressed stream; 0: all */
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Make a job of one path; NULL and libqpl's status if that fails. */
EXPORT qpl_job *reference_open(uint32_t hardware, uint32_t *status)
{
    const qpl_path_t path = hardware ? qpl_path_hardware : qpl_path_software;
    uint32_t size = 0;
    *status = qpl_get_job_size(path, &size);
    qpl_job *job = *status == QPL_STS_OK ? calloc(1, size) : NULL;
    if (job == NULL) {
        return NULL;
    }
    *status = qpl_init_job(path, job);
    if (*status != QPL_STS_OK) {
        free(job);
        return NULL;
    }
    return job;
}

EXPORT void reference_close(qpl_job *job)
{
    qpl_fini_job(job);
    free(job);
}

EXPORT const char *reference_version(void)
{
    return qpl_get_library_version();
}

/* Run a job as iaa.pyx does, and return libqpl's status; after `seconds`, "being processed". */
EXPORT uint32_t reference_run(
    qpl_job *job, uint32_t compress, uint32_t dynamic, const uint8_t *src, uint32_t size, uint8_t *dst, uint32_t room,
    double seconds, struct outcome *outcome)
{
    job->op = compress ? qpl_op_compress : qpl_op_decompress;
    job->level = qpl_default_level;
    job->huffman_table = NULL;
    job->flags = QPL_FLAG_FIRST | QPL_FLAG_LAST;
    if (compress) {
        job->flags |= QPL_FLAG_OMIT_VERIFY | (dynamic ? QPL_FLAG_DYNAMIC_HUFFMAN : 0);
    }
    job->next_in_ptr = (uint8_t *)src;
    job->available_in = size;
    job->next_out_ptr = dst;
    job->available_out = room;
    job->numa_id = -1;
    uint32_t status = qpl_submit_job(job);
    const double end = now() + seconds;
    if (status == QPL_STS_OK) {
        while ((status = qpl_check_job(job)) == QPL_STS_BEING_PROCESSED && now() < end) {
            const struct timespec pause = {0, 20000};
            nanosleep(&pause, NULL);
        }
    }
    outcome->read = job->total_in;
    outcome->written = job->total_out;
    outcome->crc = job->crc;
    outcome->last_bits = job->last_bit_offset;
    return status;
}
