/* Opcode 0x43: LZ77 over a window of 4 KiB, and Huffman codes as they stand in the AECS.
 *
 * For dynamic codes libqpl first sends a statistics job, makes the codes and the block's header of the histogram
 * itself, and sends the job with them. Both jobs must see the same matches.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "deflate.h"
#include "device.h"

enum {
    STATISTICS = 1 << 0,
    FLUSH = 1 << 1,
    END_SHIFT = 2, /* two bits */
    LITERALS_ONLY = 1 << 4,
    KNOWN_FLAGS = 0x1f,
};

enum ending { NO_END, EOB, EOB_AND_STORED, EOB_AND_FINAL_STORED };

struct aecs {
    uint32_t crc;
    uint32_t xor16;
    uint32_t reserved[5];
    uint32_t bit_count;
    uint8_t bits[256];
    uint32_t literal_codes[LITERAL_CODES]; /* length << 15 | code */
    uint32_t reserved_literals[2];
    uint32_t distance_codes[DISTANCE_CODES];
    uint32_t reserved_distances[2];
};
_Static_assert(offsetof(struct aecs, distance_codes) == 1440, "libqpl 1.9.0 writes it there");

struct histogram {
    uint32_t literals[LITERAL_CODES + 2];
    uint32_t distances[DISTANCE_CODES + 2];
};

/* ---- Matches ---- */

enum { HASHES = 4096, CHAIN = 16 };

struct matcher {
    const uint8_t *data;
    uint32_t size, at;
    bool literals_only;
    int64_t newest[HASHES];    /* position, by hash of three bytes; -1: none */
    int64_t previous[WINDOW];  /* position of the same hash before, by position in the window */
};

struct token {
    uint32_t length, distance; /* 1, 0: a literal */
    uint8_t literal;
};

static uint32_t hash(const uint8_t *data)
{
    return ((uint32_t)data[0] << 16 | (uint32_t)data[1] << 8 | data[2]) * 2654435761u >> 20;
}

static void insert(struct matcher *matcher, uint32_t at)
{
    if (matcher->size - at >= SHORTEST_MATCH) {
        int64_t *newest = &matcher->newest[hash(matcher->data + at)];
        matcher->previous[at % WINDOW] = *newest;
        *newest = at;
    }
}

static void find_match(const struct matcher *matcher, struct token *token)
{
    const uint8_t *data = matcher->data;
    const uint32_t at = matcher->at;
    const uint32_t left = matcher->size - at;
    const uint32_t limit = left < LONGEST_MATCH ? left : LONGEST_MATCH;
    if (limit < SHORTEST_MATCH || matcher->literals_only) {
        return;
    }
    int64_t candidate = matcher->newest[hash(data + at)];
    for (int tries = 0; tries < CHAIN && candidate >= 0 && at - candidate <= WINDOW; tries++) {
        uint32_t length = 0;
        while (length < limit && data[candidate + length] == data[at + length]) {
            length++;
        }
        if (length >= SHORTEST_MATCH && length > token->length) {
            token->length = length;
            token->distance = (uint32_t)(at - candidate);
        }
        const int64_t before = matcher->previous[candidate % WINDOW];
        candidate = before < candidate ? before : -1; /* else its place holds a newer position already */
    }
}

static bool next_token(struct matcher *matcher, struct token *token)
{
    if (matcher->at == matcher->size) {
        return false;
    }
    *token = (struct token){.length = 1, .literal = matcher->data[matcher->at]};
    find_match(matcher, token);
    for (uint32_t end = matcher->at + token->length; matcher->at < end; matcher->at++) {
        insert(matcher, matcher->at);
    }
    return true;
}

static unsigned length_symbol(uint32_t length)
{
    unsigned symbol = LENGTH_SYMBOLS - 1;
    while (length_base[symbol] > length) {
        symbol--;
    }
    return symbol;
}

static unsigned distance_symbol(uint32_t distance)
{
    unsigned symbol = DISTANCE_CODES - 1;
    while (distance_base[symbol] > distance) {
        symbol--;
    }
    return symbol;
}

/* ---- Output ---- */

struct writer {
    uint8_t *at, *end;
    uint64_t held; /* fewer than 8 bits between two calls */
    unsigned count;
    enum error error;
};

static void put(struct writer *out, uint32_t bits, unsigned count)
{
    out->held |= (uint64_t)bits << out->count;
    out->count += count;
    for (; out->count >= 8; out->count -= 8, out->held >>= 8) {
        if (out->at == out->end) {
            out->error = OUTPUT_TOO_SMALL;
            return;
        }
        *out->at++ = (uint8_t)out->held;
    }
}

/* A code stands in the AECS as a number, and in the stream with its most significant bit first. */
static void put_code(struct writer *out, uint32_t code)
{
    const unsigned length = code >> 15;
    uint32_t reversed = 0;
    if (length == 0 || length > LONGEST_CODE) {
        out->error = INVALID_HUFFMAN_CODE;
        return;
    }
    for (unsigned bit = 0; bit < length; bit++) {
        reversed |= (code >> bit & 1) << (length - 1 - bit);
    }
    put(out, reversed, length);
}

static void put_token(struct writer *out, const struct aecs *aecs, const struct token *token)
{
    if (token->distance == 0) {
        put_code(out, aecs->literal_codes[token->literal]);
        return;
    }
    const unsigned length = length_symbol(token->length);
    put_code(out, aecs->literal_codes[END_OF_BLOCK + 1 + length]);
    put(out, token->length - length_base[length], length_extra[length]);
    const unsigned distance = distance_symbol(token->distance);
    put_code(out, aecs->distance_codes[distance]);
    put(out, token->distance - distance_base[distance], distance_extra[distance]);
}

static void put_accumulator(struct writer *out, const struct aecs *aecs)
{
    for (uint32_t bit = 0; bit < aecs->bit_count && !out->error; bit += 8) {
        const unsigned count = aecs->bit_count - bit < 8 ? aecs->bit_count - bit : 8;
        put(out, aecs->bits[bit / 8] & ((1u << count) - 1), count);
    }
}

static void put_end(struct writer *out, const struct aecs *aecs, enum ending ending)
{
    if (ending == NO_END) {
        return;
    }
    put_code(out, aecs->literal_codes[END_OF_BLOCK]);
    if (ending != EOB) {
        put(out, ending == EOB_AND_FINAL_STORED, 3);
        put(out, 0, -out->count % 8);
        put(out, 0xffff0000, 32);
    }
}

/* ---- The two jobs ---- */

static enum status collect_statistics(const struct descriptor *job, struct matcher *matcher, struct completion *done)
{
    struct histogram counts = {0};
    struct token token;
    if (job->destination_size < sizeof(counts)) {
        done->error = OUTPUT_TOO_SMALL;
        return ANALYTICS_ERROR;
    }
    while (next_token(matcher, &token)) {
        if (token.distance == 0) {
            counts.literals[token.literal]++;
        } else {
            counts.literals[END_OF_BLOCK + 1 + length_symbol(token.length)]++;
            counts.distances[distance_symbol(token.distance)]++;
        }
    }
    counts.literals[END_OF_BLOCK] = (job->flags >> END_SHIFT & 3) != NO_END;
    memcpy((void *)(uintptr_t)job->destination, &counts, sizeof(counts));
    done->output_size = sizeof(counts);
    return SUCCESS;
}

static enum status encode(
    const struct descriptor *job, struct matcher *matcher, const struct aecs *aecs, const struct checksum *sum,
    struct completion *done)
{
    uint8_t *destination = (uint8_t *)(uintptr_t)job->destination;
    struct writer out = {.at = destination, .end = destination + job->destination_size};
    struct token token;
    put_accumulator(&out, aecs);
    while (!out.error && next_token(matcher, &token)) {
        put_token(&out, aecs, &token);
    }
    if (!out.error) {
        put_end(&out, aecs, job->flags >> END_SHIFT & 3);
    }
    done->output_bits = out.count;
    if (!out.error && (job->flags & FLUSH)) {
        put(&out, 0, -out.count % 8);
    }
    if (out.error) {
        done->error = out.error;
        return ANALYTICS_ERROR;
    }
    done->output_size = (uint32_t)(out.at - destination);
    if (writes_aecs(job) == ALWAYS) {
        struct aecs next = *aecs;
        next.crc = sum->crc;
        next.xor16 = sum->xor16;
        next.bit_count = out.count;
        next.bits[0] = (uint8_t)out.held;
        memcpy(aecs_to_write(job), &next, sizeof(next));
    }
    return SUCCESS;
}

enum status compress(const struct descriptor *job, struct completion *done)
{
    const bool statistics = job->flags & STATISTICS;
    struct aecs aecs = {0};
    if (job->flags & ~KNOWN_FLAGS) {
        return INVALID_DECOMPRESS_FLAG; /* big-endian, mini-blocks, headers made by the device */
    }
    if (!statistics && (!reads_aecs(job) || job->aecs_size < sizeof(aecs))) {
        return INVALID_OPERATION_FLAG;
    }
    if (!statistics) {
        memcpy(&aecs, aecs_to_read(job), sizeof(aecs));
    }
    if (aecs.bit_count > 8 * sizeof(aecs.bits)) {
        done->error = AECS_ERROR;
        return ANALYTICS_ERROR;
    }
    const uint8_t *source = (const uint8_t *)(uintptr_t)job->source;
    struct checksum sum = {.crc = aecs.crc, .xor16 = (uint16_t)aecs.xor16};
    add_to_checksum(&sum, source, job->source_size, wants_castagnoli(job));
    struct matcher matcher = {.data = source, .size = job->source_size, .literals_only = job->flags & LITERALS_ONLY};
    memset(matcher.newest, 0xff, sizeof(matcher.newest));
    done->crc = sum.crc;
    done->xor16 = sum.xor16;
    done->bytes_completed = job->source_size;
    return statistics ? collect_statistics(job, &matcher, done) : encode(job, &matcher, &aecs, &sum, done);
}
