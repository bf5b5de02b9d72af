/* The limits that numcodecs-qpl is measured against: loops in C over libqpl's software path, ISA-L and libdeflate, with
 * one reused state, from and to memory that the caller has prepared. See raw.py. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <isa-l.h>
#include <libdeflate.h>
#include "qpl/qpl.h"

enum {
    /* An IAA follows distances up to 2^12 bytes. */
    HISTORY_BITS = 12,
    /* The settings of numcodecs_qpl/_core/software.c. */
    ISAL_LEVEL = 2,
    ISAL_LEVEL_BUFFER = ISAL_DEF_LVL2_DEFAULT,
    QPL_LEVEL = 1,
};

enum result { DONE, FULL, FAILED };

/* A block: where it is, and the memory for the result. A function that compresses or inflates it sets `written`. */
struct piece {
    const uint8_t *src;
    uint32_t length;
    uint8_t *dst;
    uint32_t room;
    uint32_t written;
};

/* ---- libqpl ------------------------------------------------------------------------------------------------ */

static void *open_qpl(void)
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

static void close_qpl(void *state)
{
    qpl_fini_job(state);
    free(state);
}

static enum result run_qpl(qpl_job *job, struct piece *piece, uint32_t flags)
{
    job->next_in_ptr = (uint8_t *)piece->src;
    job->available_in = piece->length;
    job->next_out_ptr = piece->dst;
    job->available_out = piece->room;
    job->flags = QPL_FLAG_FIRST | QPL_FLAG_LAST | flags;
    qpl_status status = qpl_execute_job(job);
    piece->written = job->total_out;
    return status == QPL_STS_OK ? DONE : status == QPL_STS_MORE_OUTPUT_NEEDED ? FULL : FAILED;
}

static enum result deflate_qpl(void *state, struct piece *piece, int dynamic)
{
    qpl_job *job = state;
    job->op = qpl_op_compress;
    job->level = (qpl_compression_levels)QPL_LEVEL;
    return run_qpl(job, piece, QPL_FLAG_OMIT_VERIFY | (dynamic ? QPL_FLAG_DYNAMIC_HUFFMAN : 0));
}

static enum result inflate_qpl(void *state, struct piece *piece)
{
    qpl_job *job = state;
    job->op = qpl_op_decompress;
    return run_qpl(job, piece, 0);
}

/* ---- ISA-L ------------------------------------------------------------------------------------------------- */

struct isal {
    struct isal_zstream deflate;
    struct inflate_state inflate;
    uint8_t level_buffer[ISAL_LEVEL_BUFFER];
};

static void *open_isal(void)
{
    return calloc(1, sizeof(struct isal));
}

static enum result deflate_isal(void *state, struct piece *piece, int dynamic)
{
    struct isal *isal = state;
    struct isal_zstream *stream = &isal->deflate;
    isal_deflate_stateless_init(stream);
    stream->next_in = (uint8_t *)piece->src;
    stream->avail_in = piece->length;
    stream->next_out = piece->dst;
    stream->avail_out = piece->room;
    stream->hist_bits = HISTORY_BITS;
    stream->end_of_stream = 1;
    if (dynamic) {
        stream->level = ISAL_LEVEL;
        stream->level_buf = isal->level_buffer;
        stream->level_buf_size = ISAL_LEVEL_BUFFER;
    } else {
        isal_deflate_set_hufftables(stream, NULL, IGZIP_HUFFTABLE_STATIC);
    }
    int status = isal_deflate_stateless(stream);
    piece->written = stream->total_out;
    return status == COMP_OK ? DONE : status == STATELESS_OVERFLOW ? FULL : FAILED;
}

static enum result inflate_isal(void *state, struct piece *piece)
{
    struct isal *isal = state;
    struct inflate_state *stream = &isal->inflate;
    isal_inflate_init(stream);
    stream->next_in = (uint8_t *)piece->src;
    stream->avail_in = piece->length;
    stream->next_out = piece->dst;
    stream->avail_out = piece->room;
    int status = isal_inflate_stateless(stream);
    piece->written = stream->total_out;
    return status == ISAL_DECOMP_OK ? DONE : status == ISAL_OUT_OVERFLOW ? FULL : FAILED;
}

/* ---- libdeflate -------------------------------------------------------------------------------------------- */

static void *open_libdeflate(void)
{
    return libdeflate_alloc_decompressor();
}

static void close_libdeflate(void *state)
{
    libdeflate_free_decompressor(state);
}

static enum result inflate_libdeflate(void *state, struct piece *piece)
{
    size_t written = 0;
    enum libdeflate_result result =
        libdeflate_deflate_decompress(state, piece->src, piece->length, piece->dst, piece->room, &written);
    piece->written = (uint32_t)written;
    return result == LIBDEFLATE_SUCCESS ? DONE : result == LIBDEFLATE_INSUFFICIENT_SPACE ? FULL : FAILED;
}

/* ---- The loops --------------------------------------------------------------------------------------------- */

struct engine {
    void *(*open)(void);
    void (*close)(void *state);
    /* NULL for libdeflate: its window cannot be limited to 4 KiB. */
    enum result (*deflate)(void *state, struct piece *piece, int dynamic);
    enum result (*inflate)(void *state, struct piece *piece);
};

/* In the order of ENGINES in raw.py. */
static const struct engine engines[] = {
    {open_qpl, close_qpl, deflate_qpl, inflate_qpl},
    {open_isal, free, deflate_isal, inflate_isal},
    {open_libdeflate, close_libdeflate, NULL, inflate_libdeflate},
};

struct blocks {
    const uint8_t *src;
    const uint64_t *offsets; /* of each block in src */
    const uint32_t *lengths; /* bytes of each block in src */
    uint8_t *dst;            /* the results, one after the other. libqpl may write a few bytes beyond the last one */
    uint32_t room;           /* bytes that one result may have */
    uint32_t count;
    uint32_t pages;          /* not 0: a block that does not fit into room is copied unchanged, like a page in QEMU */
    uint32_t *written;       /* receives the bytes of each result */
};

void *raw_open(uint32_t engine)
{
    return engines[engine].open();
}

void raw_close(uint32_t engine, void *state)
{
    engines[engine].close(state);
}

static struct piece piece_of(const struct blocks *blocks, uint32_t index, uint8_t *dst)
{
    return (struct piece){
        .src = blocks->src + blocks->offsets[index],
        .length = blocks->lengths[index],
        .dst = dst,
        .room = blocks->room,
    };
}

static void copy(struct piece *piece)
{
    memcpy(piece->dst, piece->src, piece->length);
    piece->written = piece->length;
}

/* Both loops return 0, or 1 if a block failed. */

uint32_t raw_compress(uint32_t engine, void *state, const struct blocks *blocks, uint32_t dynamic)
{
    uint8_t *dst = blocks->dst;
    for (uint32_t i = 0; i < blocks->count; i++) {
        struct piece piece = piece_of(blocks, i, dst);
        enum result result = engines[engine].deflate(state, &piece, dynamic != 0);
        if (result == FULL && blocks->pages) {
            copy(&piece);
        } else if (result != DONE) {
            return 1;
        }
        blocks->written[i] = piece.written;
        dst += piece.written;
    }
    return 0;
}

uint32_t raw_decompress(uint32_t engine, void *state, const struct blocks *blocks)
{
    uint8_t *dst = blocks->dst;
    for (uint32_t i = 0; i < blocks->count; i++) {
        struct piece piece = piece_of(blocks, i, dst);
        if (piece.length == blocks->room && blocks->pages) {
            copy(&piece);
        } else if (engines[engine].inflate(state, &piece) != DONE) {
            return 1;
        }
        blocks->written[i] = piece.written;
        dst += piece.written;
    }
    return 0;
}

#define TEXT(number) #number
#define VERSION(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

/* Versions of the headers, and for libqpl of the library. */
const char *raw_version(uint32_t engine)
{
    switch (engine) {
    case 0:
        return qpl_get_library_version();
    case 1:
        return VERSION(ISAL_MAJOR_VERSION, ISAL_MINOR_VERSION, ISAL_PATCH_VERSION);
    default:
        return LIBDEFLATE_VERSION_STRING;
    }
}
