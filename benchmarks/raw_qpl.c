/* The limit that numcodecs-qpl is measured against: loops over libqpl's software path with one reused job, from and
 * into memory that the caller has prepared. They return libqpl's status of the first block that failed, or 0. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "qpl/qpl.h"

struct blocks {
    const uint8_t *src;
    const uint64_t *offsets; /* of each block in src */
    const uint32_t *lengths; /* bytes of each block in src */
    uint8_t *dst;            /* the results, one after the other; libqpl may write a few bytes beyond the last one */
    uint32_t room;           /* bytes that one result may have */
    uint32_t count;
    uint32_t pages;          /* not 0: a block that does not fit into room is copied as it is, like a page in QEMU */
    uint32_t *written;       /* receives the bytes of each result */
};

/* NULL if there is no memory, or libqpl refuses. */
qpl_job *raw_qpl_open(void)
{
    uint32_t size = 0;
    if (qpl_get_job_size(qpl_path_software, &size) != QPL_STS_OK) {
        return NULL;
    }
    qpl_job *job = calloc(1, size);
    if (job != NULL && qpl_init_job(qpl_path_software, job) != QPL_STS_OK) {
        free(job);
        job = NULL;
    }
    return job;
}

void raw_qpl_close(qpl_job *job)
{
    qpl_fini_job(job);
    free(job);
}

const char *raw_qpl_version(void)
{
    return qpl_get_library_version();
}

static qpl_status run_block(
    qpl_job *job, const uint8_t *src, uint32_t length, uint8_t *dst, uint32_t room, uint32_t flags)
{
    job->next_in_ptr = (uint8_t *)src;
    job->available_in = length;
    job->next_out_ptr = dst;
    job->available_out = room;
    job->flags = QPL_FLAG_FIRST | QPL_FLAG_LAST | flags;
    return qpl_execute_job(job);
}

uint32_t raw_qpl_compress(qpl_job *job, const struct blocks *blocks, uint32_t level, uint32_t dynamic)
{
    uint32_t flags = QPL_FLAG_OMIT_VERIFY | (dynamic ? QPL_FLAG_DYNAMIC_HUFFMAN : 0);
    uint8_t *dst = blocks->dst;
    job->op = qpl_op_compress;
    job->level = (qpl_compression_levels)level;
    for (uint32_t i = 0; i < blocks->count; i++) {
        const uint8_t *src = blocks->src + blocks->offsets[i];
        uint32_t length = blocks->lengths[i];
        qpl_status status = run_block(job, src, length, dst, blocks->room, flags);
        blocks->written[i] = job->total_out;
        if (status == QPL_STS_MORE_OUTPUT_NEEDED && blocks->pages) {
            memcpy(dst, src, length);
            blocks->written[i] = length;
        } else if (status != QPL_STS_OK) {
            return status;
        }
        dst += blocks->written[i];
    }
    return QPL_STS_OK;
}

uint32_t raw_qpl_decompress(qpl_job *job, const struct blocks *blocks)
{
    uint8_t *dst = blocks->dst;
    job->op = qpl_op_decompress;
    for (uint32_t i = 0; i < blocks->count; i++) {
        const uint8_t *src = blocks->src + blocks->offsets[i];
        uint32_t length = blocks->lengths[i];
        if (length == blocks->room && blocks->pages) {
            memcpy(dst, src, length);
            blocks->written[i] = length;
        } else {
            qpl_status status = run_block(job, src, length, dst, blocks->room, 0);
            if (status != QPL_STS_OK) {
                return status;
            }
            blocks->written[i] = job->total_out;
        }
        dst += blocks->written[i];
    }
    return QPL_STS_OK;
}
