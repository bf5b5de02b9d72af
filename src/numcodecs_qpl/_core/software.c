/* The software engine: ISA-L deflates with 4 KiB of history, libdeflate at a level and with 32 KiB; libdeflate inflates.
   See software.h. */

#include "software.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <isa-l.h>
#include <libdeflate.h>

enum {
    /* An IAA follows distances up to 2^12 bytes. */
    HISTORY_BITS = 12,
    /* Level of ISA-L for dynamic tables. Against level 1 (ISA-L 2.31.1), its output is up to 1.2 % smaller on the benchmark
       data, for 1 to 8 % of the speed. A smaller buffer ends a deflate block early. */
    LEVEL = 2,
    LEVEL_BUFFER = ISAL_DEF_LVL2_DEFAULT,
    /* The level of ISA-L that takes deflate's fixed tables. */
    FIXED_TABLES_LEVEL = 0,
    STORED_MAX = 65535,
    STORED_HEADER = 5,
    MAX_IDLE = 64,
    KEPT_COPY = 1 << 20,
};

/* Bytes appended to a copy of an open block to make it a stream: empty stored blocks, and an empty final block with
   fixed codes. The padding bits in the stored blocks' headers are random. So a block that swallows these bytes as its
   own data cannot have a checksum that allows for them. */
enum { CLOSING_BLOCKS = SOFTWARE_RANDOM, STORED_NOTHING = 5, FINAL_NOTHING = 2 };
static uint8_t closing[CLOSING_BLOCKS * STORED_NOTHING + FINAL_NOTHING];

void software_set_random(const uint8_t bytes[SOFTWARE_RANDOM])
{
    uint8_t *at = closing;
    for (int i = 0; i < CLOSING_BLOCKS; i++) {
        *at++ = bytes[i] & 0xf8; /* BFINAL 0, BTYPE 00, padding */
        *at++ = 0x00;
        *at++ = 0x00;
        *at++ = 0xff;
        *at++ = 0xff;
    }
    *at++ = 0x03;
    *at++ = 0x00;
}

struct SoftwareEngine {
    struct isal_zstream *stream; /* allocated at its first use, like the other pointers */
    uint8_t *level_buffer;
    struct libdeflate_compressor *compressor;
    int level;                   /* of `compressor` */
    struct libdeflate_decompressor *decompressor;
    uint8_t *copy;               /* of an open block, with `closing` behind it */
    size_t copy_size;
};

/* ---- The pool ---------------------------------------------------------------------------------------------- */

static struct {
    pthread_mutex_t lock;
    SoftwareEngine *idle[MAX_IDLE];
    int count;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

SoftwareEngine *software_take(void)
{
    SoftwareEngine *engine = NULL;
    pthread_mutex_lock(&pool.lock);
    if (pool.count)
        engine = pool.idle[--pool.count];
    pthread_mutex_unlock(&pool.lock);
    return engine ? engine : calloc(1, sizeof *engine);
}

static void drop_copy(SoftwareEngine *engine)
{
    free(engine->copy);
    engine->copy = NULL;
    engine->copy_size = 0;
}

void software_give(SoftwareEngine *engine)
{
    if (!engine)
        return;
    if (engine->copy_size > KEPT_COPY)
        drop_copy(engine);
    pthread_mutex_lock(&pool.lock);
    int keep = pool.count < MAX_IDLE;
    if (keep)
        pool.idle[pool.count++] = engine;
    pthread_mutex_unlock(&pool.lock);
    if (keep)
        return;
    libdeflate_free_compressor(engine->compressor);
    libdeflate_free_decompressor(engine->decompressor);
    free(engine->stream);
    free(engine->level_buffer);
    drop_copy(engine);
    free(engine);
}

void software_after_fork(void)
{
    /* A thread of the parent may have held the lock. The parent's idle engines stay unused in the child. */
    pool.count = 0;
    pthread_mutex_init(&pool.lock, NULL);
}

/* ---- Deflate ----------------------------------------------------------------------------------------------- */

size_t software_stored_size(size_t size)
{
    return size + STORED_HEADER * ((size + STORED_MAX - 1) / STORED_MAX);
}

void software_store(const Task *task, Block *block)
{
    const uint8_t *from = block->src;
    uint8_t *to = block->dst;
    size_t left = block->size;
    while (left) {
        size_t piece = left < STORED_MAX ? left : STORED_MAX;
        left -= piece;
        *to++ = !left && !task->open; /* BFINAL; BTYPE is 00, and the rest of the byte is padding */
        *to++ = piece & 0xff;
        *to++ = piece >> 8;
        *to++ = ~piece & 0xff;
        *to++ = (~piece >> 8) & 0xff;
        memcpy(to, from, piece);
        to += piece;
        from += piece;
    }
    block->written = to - block->dst;
    block->status = DONE;
}

static int ready_to_deflate(SoftwareEngine *engine)
{
    if (!engine->stream)
        engine->stream = calloc(1, sizeof *engine->stream);
    if (!engine->level_buffer)
        engine->level_buffer = malloc(LEVEL_BUFFER);
    return engine->stream && engine->level_buffer;
}

void software_deflate(SoftwareEngine *engine, const Task *task, Block *block)
{
    if (!ready_to_deflate(engine)) {
        block->status = NO_MEMORY;
        return;
    }
    struct isal_zstream *stream = engine->stream;
    isal_deflate_stateless_init(stream);
    stream->next_in = (uint8_t *)block->src;
    stream->avail_in = block->size;
    stream->next_out = block->dst;
    stream->avail_out = block->room < UINT32_MAX ? block->room : UINT32_MAX;
    stream->hist_bits = HISTORY_BITS;
    stream->end_of_stream = !task->open;
    stream->flush = task->open ? FULL_FLUSH : NO_FLUSH;
    if (task->dynamic) {
        stream->level = LEVEL;
        stream->level_buf = engine->level_buffer;
        stream->level_buf_size = LEVEL_BUFFER;
    } else {
        stream->level = FIXED_TABLES_LEVEL;
        isal_deflate_set_hufftables(stream, NULL, IGZIP_HUFFTABLE_STATIC);
    }
    block->status = isal_deflate_stateless(stream) == COMP_OK ? DONE : FULL;
    block->written = stream->total_out;
}

size_t software_level_bound(size_t size)
{
    return libdeflate_deflate_compress_bound(NULL, size);
}

void software_deflate_at_level(SoftwareEngine *engine, int level, Block *block)
{
    if (!engine->compressor || engine->level != level) {
        libdeflate_free_compressor(engine->compressor);
        engine->compressor = libdeflate_alloc_compressor(level);
        engine->level = level;
    }
    if (!engine->compressor) {
        block->status = NO_MEMORY;
        return;
    }
    block->written = libdeflate_deflate_compress(engine->compressor, block->src, block->size, block->dst, block->room);
    block->status = block->written ? DONE : FULL;
}

/* ---- Inflate ----------------------------------------------------------------------------------------------- */

static const uint8_t *closed(SoftwareEngine *engine, const Block *block)
{
    /* libdeflate rejects a stream without a BFINAL bit. */
    size_t size = block->size + sizeof closing;
    if (engine->copy_size < size) {
        drop_copy(engine);
        engine->copy = malloc(size);
        if (!engine->copy)
            return NULL;
        engine->copy_size = size;
    }
    memcpy(engine->copy, block->src, block->size);
    memcpy(engine->copy + block->size, closing, sizeof closing);
    return engine->copy;
}

void software_inflate(SoftwareEngine *engine, const Task *task, Block *block, size_t *read)
{
    if (!engine->decompressor)
        engine->decompressor = libdeflate_alloc_decompressor();
    const uint8_t *src = task->open ? closed(engine, block) : block->src;
    size_t size = block->size + (task->open ? sizeof closing : 0);
    if (!engine->decompressor || !src) {
        block->status = NO_MEMORY;
        return;
    }
    switch (libdeflate_deflate_decompress_ex(
        engine->decompressor, src, size, block->dst, block->room, read, &block->written)) {
    case LIBDEFLATE_SUCCESS:
        block->status = task->open && (*read != size || block->written != block->room) ? DAMAGED : DONE;
        break;
    case LIBDEFLATE_INSUFFICIENT_SPACE:
        block->status = task->open ? DAMAGED : FULL;
        break;
    default:
        block->status = DAMAGED;
    }
}

/* ---- Checksums --------------------------------------------------------------------------------------------- */

uint32_t software_checksum(Checksum kind, const uint8_t *bytes, size_t size)
{
    /* libdeflate returns the initial value for NULL, which is also the checksum of 0 bytes. */
    if (kind == NO_CHECKSUM)
        return 0;
    return kind == CRC32 ? libdeflate_crc32(0, bytes, size) : libdeflate_adler32(1, bytes, size);
}

/* A CRC-32 is a polynomial over GF(2) modulo this one; bit 31 is the coefficient of x^0 (RFC 1952, 8). */
#define POLYNOMIAL 0xEDB88320u

static uint32_t times(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (uint32_t power = 1u << 31; power; power >>= 1) {
        if (a & power)
            product ^= b;
        b = b & 1 ? b >> 1 ^ POLYNOMIAL : b >> 1;
    }
    return product;
}

static uint32_t join_crc32(uint32_t first, uint32_t second, size_t size)
{
    /* Appending `size` bytes multiplies the first CRC by x^(8 size). */
    uint32_t power = 1u << 23; /* x^8 */
    for (; size; size >>= 1) {
        if (size & 1)
            first = times(first, power);
        power = times(power, power);
    }
    return first ^ second;
}

static uint32_t join_adler32(uint32_t first, uint32_t second, size_t size)
{
    /* RFC 1950, 8.2: the low half sums the bytes from 1 on, the high half sums the low halves. */
    const uint64_t base = 65521;
    uint64_t low1 = first & 0xffff, low2 = second & 0xffff;
    uint64_t low = (low1 + low2 + base - 1) % base;
    uint64_t high = ((first >> 16) + (second >> 16) + size % base * (low1 + base - 1)) % base;
    return (uint32_t)(high << 16 | low);
}

uint32_t software_join(Checksum kind, uint32_t first, uint32_t second, size_t size)
{
    if (kind == NO_CHECKSUM)
        return 0;
    return kind == CRC32 ? join_crc32(first, second, size) : join_adler32(first, second, size);
}

#define TEXT(number) #number
#define VERSION(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

const char *software_isal_version(void)
{
    return VERSION(ISAL_MAJOR_VERSION, ISAL_MINOR_VERSION, ISAL_PATCH_VERSION);
}

const char *software_libdeflate_version(void)
{
    return LIBDEFLATE_VERSION_STRING;
}
