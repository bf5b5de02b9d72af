/* Opcode 0x42: inflate. A distance above 4096 is an error, as it is on an IAA.
 *
 * Where the output is full, the state goes to the AECS, and the next descriptor of the stream goes on from there. What
 * an IAA keeps where in the AECS is its own affair: here libqpl's words at its start are left alone, and the state
 * stands behind them. A stream whose input comes in several descriptors is not supported.
 */
#include <string.h>

#include "deflate.h"
#include "device.h"

enum {
    ENABLE = 1 << 0,
    STOP_ON_EOB = 1 << 2,
    CHECK_FOR_EOB = 1 << 3,
    ONLY_FINAL_EOB = 1 << 4,
    SUPPRESS_OUTPUT = 1 << 9,
    UNKNOWN_FLAGS = 0xfde0, /* big-endian, bits to ignore, indices */
};

enum { STATE_AT = 0x200, WINDOW_AT = 0x400, AECS_SIZE = WINDOW_AT + WINDOW };

enum { FIXED_LITERALS = 288, MOST_CODES = FIXED_LITERALS + 32, FAST = 9 };

enum phase { AT_HEADER, IN_STORED, IN_CODES, AT_END };

/* What a stream needs to go on. */
struct state {
    struct checksum sum;
    uint32_t written; /* bytes so far, at most WINDOW */
    uint32_t window_at;
    uint16_t stored_left;
    uint16_t match_left, match_distance;
    uint8_t phase;
    uint8_t final;
    uint8_t bit_count, bits; /* of the input, fewer than 8 */
    uint8_t lengths[MOST_CODES];
};
_Static_assert(sizeof(struct state) <= WINDOW_AT - STATE_AT, "the state has to fit in front of the window");

struct codes {
    uint16_t fast[1 << FAST];        /* symbol << 4 | length, by the next bits; 0: a longer code, or none */
    uint16_t count[LONGEST_CODE + 1]; /* codes of each length */
    uint16_t symbols[FIXED_LITERALS]; /* in the order of their codes */
};

struct stream {
    struct state state;
    uint8_t window[WINDOW];
    const uint8_t *in, *in_end;
    uint64_t held;
    unsigned count;
    uint8_t *out;
    uint32_t room, produced;
    bool suppress, castagnoli;
    struct checksum sum;
    struct codes literals, distances;
};

/* 0, an error code, or one of these. */
enum { OUT_OF_INPUT = 256, OUT_OF_ROOM };

/* ---- Input ---- */

static void refill(struct stream *stream)
{
    while (stream->count <= 56 && stream->in < stream->in_end) {
        stream->held |= (uint64_t)*stream->in++ << stream->count;
        stream->count += 8;
    }
}

static void drop(struct stream *stream, unsigned count)
{
    stream->held >>= count;
    stream->count -= count;
}

static bool get(struct stream *stream, unsigned count, unsigned *bits)
{
    refill(stream);
    if (stream->count < count) {
        return false;
    }
    *bits = (unsigned)(stream->held & ((1ull << count) - 1));
    drop(stream, count);
    return true;
}

/* ---- Codes ---- */

/* False if there are more codes than the lengths have room for. */
static bool make_codes(struct codes *codes, const uint8_t *lengths, unsigned count)
{
    uint16_t first[LONGEST_CODE + 2] = {0}, place[LONGEST_CODE + 2] = {0};
    memset(codes, 0, sizeof(*codes));
    for (unsigned symbol = 0; symbol < count; symbol++) {
        codes->count[lengths[symbol]]++;
    }
    codes->count[0] = 0;
    int left = 1;
    for (unsigned length = 1; length <= LONGEST_CODE; length++) {
        left = 2 * left - codes->count[length];
        if (left < 0) {
            return false;
        }
        first[length + 1] = (uint16_t)((first[length] + codes->count[length]) << 1);
        place[length + 1] = place[length] + codes->count[length];
    }
    for (unsigned symbol = 0; symbol < count; symbol++) {
        const unsigned length = lengths[symbol];
        if (length == 0) {
            continue;
        }
        codes->symbols[place[length]++] = (uint16_t)symbol;
        const unsigned code = first[length]++;
        if (length <= FAST) {
            unsigned reversed = 0;
            for (unsigned bit = 0; bit < length; bit++) {
                reversed |= (code >> bit & 1) << (length - 1 - bit);
            }
            for (unsigned index = reversed; index < 1 << FAST; index += 1u << length) {
                codes->fast[index] = (uint16_t)(symbol << 4 | length);
            }
        }
    }
    return true;
}

/* The next symbol, and the length of its code, which is not dropped yet; -1 without one. */
static int peek_symbol(struct stream *stream, const struct codes *codes, unsigned *length)
{
    refill(stream);
    const unsigned fast = codes->fast[stream->held & ((1 << FAST) - 1)];
    if (fast) {
        *length = fast & 15;
        return (int)(fast >> 4);
    }
    int code = 0, first = 0, place = 0;
    for (*length = 1; *length <= LONGEST_CODE; ++*length) {
        code |= (int)(stream->held >> (*length - 1) & 1);
        const int count = codes->count[*length];
        if (code - first < count) {
            return codes->symbols[place + code - first];
        }
        place += count;
        first = (first + count) << 1;
        code <<= 1;
    }
    *length = LONGEST_CODE;
    return -1;
}

static int get_symbol(struct stream *stream, const struct codes *codes, int bad_code, unsigned *symbol)
{
    unsigned length;
    const int found = peek_symbol(stream, codes, &length);
    if (length > stream->count) {
        return OUT_OF_INPUT;
    }
    if (found < 0) {
        return bad_code;
    }
    drop(stream, length);
    *symbol = (unsigned)found;
    return 0;
}

static int use_lengths(struct stream *stream)
{
    const uint8_t *lengths = stream->state.lengths;
    if (!make_codes(&stream->literals, lengths, FIXED_LITERALS)) {
        return BAD_LITERAL_LENGTHS;
    }
    return make_codes(&stream->distances, lengths + FIXED_LITERALS, 32) ? 0 : BAD_DISTANCE_LENGTHS;
}

static int fixed_codes(struct stream *stream)
{
    uint8_t *lengths = stream->state.lengths;
    memset(lengths, 8, 144);
    memset(lengths + 144, 9, 112);
    memset(lengths + 256, 7, 24);
    memset(lengths + 280, 8, 8);
    memset(lengths + FIXED_LITERALS, 5, 32);
    return use_lengths(stream);
}

static int get_code_lengths(struct stream *stream, uint8_t *lengths, unsigned count)
{
    for (unsigned at = 0; at < count;) {
        unsigned symbol, more = 0, repeat = 1;
        const int problem = get_symbol(stream, &stream->literals, BAD_CODE_LENGTH_CODE, &symbol);
        if (problem) {
            return problem;
        }
        if (symbol == 16 && at == 0) {
            return FIRST_LITERAL_CODE_16;
        }
        if (symbol >= 16) {
            static const uint8_t extra[3] = {2, 3, 7}, base[3] = {3, 3, 11};
            if (!get(stream, extra[symbol - 16], &more)) {
                return OUT_OF_INPUT;
            }
            repeat = base[symbol - 16] + more;
        }
        if (repeat > count - at) {
            return WRONG_NUMBER_OF_LITERAL_CODES;
        }
        const uint8_t value = symbol < 16 ? (uint8_t)symbol : symbol == 16 ? lengths[at - 1] : 0;
        memset(lengths + at, value, repeat);
        at += repeat;
    }
    return 0;
}

static int dynamic_codes(struct stream *stream)
{
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[MOST_CODES] = {0};
    unsigned literals, distances, count, length;
    if (!get(stream, 5, &literals) || !get(stream, 5, &distances) || !get(stream, 4, &count)) {
        return OUT_OF_INPUT;
    }
    literals += 257;
    distances += 1;
    if (literals > LITERAL_CODES) {
        return TOO_MANY_LITERAL_CODES;
    }
    if (distances > DISTANCE_CODES) {
        return TOO_MANY_DISTANCE_CODES;
    }
    for (unsigned i = 0; i < count + 4; i++) {
        if (!get(stream, 3, &length)) {
            return OUT_OF_INPUT;
        }
        lengths[order[i]] = (uint8_t)length;
    }
    if (!make_codes(&stream->literals, lengths, 19)) {
        return BAD_CODE_LENGTH_LENGTHS;
    }
    const int problem = get_code_lengths(stream, lengths, literals + distances);
    if (problem) {
        return problem;
    }
    memset(stream->state.lengths, 0, MOST_CODES);
    memcpy(stream->state.lengths, lengths, literals);
    memcpy(stream->state.lengths + FIXED_LITERALS, lengths + literals, distances);
    return use_lengths(stream);
}

/* ---- Output ---- */

static bool full(const struct stream *stream)
{
    return !stream->suppress && stream->produced == stream->room;
}

static void write_byte(struct stream *stream, uint8_t byte)
{
    struct state *state = &stream->state;
    stream->window[state->window_at] = byte;
    state->window_at = (state->window_at + 1) % WINDOW;
    state->written += state->written < WINDOW;
    if (stream->suppress) {
        add_to_checksum(&stream->sum, &byte, 1, stream->castagnoli);
    } else {
        stream->out[stream->produced++] = byte;
    }
}

static int copy_match(struct stream *stream)
{
    struct state *state = &stream->state;
    for (; state->match_left; state->match_left--) {
        if (full(stream)) {
            return OUT_OF_ROOM;
        }
        write_byte(stream, stream->window[(state->window_at - state->match_distance) % WINDOW]);
    }
    return 0;
}

/* ---- Blocks ---- */

static int read_header(struct stream *stream)
{
    struct state *state = &stream->state;
    unsigned bits, length, complement;
    if (!get(stream, 3, &bits)) {
        return OUT_OF_INPUT;
    }
    state->final = bits & 1;
    state->phase = IN_CODES;
    switch (bits >> 1) {
    case 0:
        drop(stream, stream->count % 8);
        if (!get(stream, 16, &length) || !get(stream, 16, &complement)) {
            return OUT_OF_INPUT;
        }
        state->stored_left = (uint16_t)length;
        state->phase = IN_STORED;
        return length == (complement ^ 0xffff) ? 0 : INVALID_STORED_LENGTH;
    case 1:
        return fixed_codes(stream);
    case 2:
        return dynamic_codes(stream);
    default:
        return INVALID_BLOCK_TYPE;
    }
}

static void end_block(struct stream *stream)
{
    stream->state.phase = stream->state.final ? AT_END : AT_HEADER;
}

static int copy_stored(struct stream *stream)
{
    unsigned byte;
    for (; stream->state.stored_left; stream->state.stored_left--) {
        if (full(stream)) {
            return OUT_OF_ROOM;
        }
        if (!get(stream, 8, &byte)) {
            return OUT_OF_INPUT;
        }
        write_byte(stream, (uint8_t)byte);
    }
    end_block(stream);
    return 0;
}

static int read_match(struct stream *stream, unsigned symbol)
{
    unsigned extra, distance;
    if (symbol >= LITERAL_CODES) {
        return BAD_LITERAL_CODE;
    }
    symbol -= END_OF_BLOCK + 1;
    if (!get(stream, length_extra[symbol], &extra)) {
        return OUT_OF_INPUT;
    }
    const unsigned length = length_base[symbol] + extra;
    const int problem = get_symbol(stream, &stream->distances, BAD_DISTANCE_CODE, &symbol);
    if (problem) {
        return problem;
    }
    if (symbol >= DISTANCE_CODES) {
        return BAD_DISTANCE_CODE;
    }
    if (!get(stream, distance_extra[symbol], &extra)) {
        return OUT_OF_INPUT;
    }
    distance = distance_base[symbol] + extra;
    if (distance > WINDOW) {
        return BAD_DISTANCE;
    }
    if (distance > stream->state.written) {
        return REFERENCE_BEFORE_START;
    }
    stream->state.match_left = (uint16_t)length;
    stream->state.match_distance = (uint16_t)distance;
    return copy_match(stream);
}

static int decode_codes(struct stream *stream)
{
    for (;;) {
        unsigned length, symbol;
        /* With no room left a literal has to stay in the input, and the end of the block has to be seen. */
        if (full(stream)) {
            const int next = peek_symbol(stream, &stream->literals, &length);
            if (next >= 0 && next < END_OF_BLOCK && length <= stream->count) {
                return OUT_OF_ROOM;
            }
        }
        int problem = get_symbol(stream, &stream->literals, BAD_LITERAL_CODE, &symbol);
        if (problem) {
            return problem;
        }
        if (symbol == END_OF_BLOCK) {
            end_block(stream);
            return 0;
        }
        if (symbol < END_OF_BLOCK) {
            write_byte(stream, (uint8_t)symbol);
        } else if ((problem = read_match(stream, symbol)) != 0) {
            return problem;
        }
    }
}

static int run(struct stream *stream)
{
    int problem = copy_match(stream);
    while (!problem && stream->state.phase != AT_END) {
        switch (stream->state.phase) {
        case AT_HEADER:
            problem = read_header(stream);
            break;
        case IN_STORED:
            problem = copy_stored(stream);
            break;
        default:
            problem = decode_codes(stream);
        }
    }
    return problem;
}

/* ---- The job ---- */

static bool resume(struct stream *stream, const uint8_t *aecs)
{
    memcpy(&stream->state, aecs + STATE_AT, sizeof(stream->state));
    memcpy(stream->window, aecs + WINDOW_AT, WINDOW);
    stream->sum = stream->state.sum;
    stream->held = stream->state.bits;
    stream->count = stream->state.bit_count;
    return stream->state.phase != IN_CODES || use_lengths(stream) == 0;
}

static void park(struct stream *stream, uint8_t *aecs)
{
    stream->state.bit_count = stream->count % 8;
    stream->state.bits = stream->held & ((1u << stream->state.bit_count) - 1);
    stream->state.sum = stream->sum;
    memcpy(aecs + STATE_AT, &stream->state, sizeof(stream->state));
    memcpy(aecs + WINDOW_AT, stream->window, WINDOW);
}

enum status inflate(const struct descriptor *job, struct completion *done)
{
    const uint8_t *source = (const uint8_t *)(uintptr_t)job->source;
    struct stream stream = {
        .in = source,
        .in_end = source + job->source_size,
        .out = (uint8_t *)(uintptr_t)job->destination,
        .room = job->destination_size,
        .suppress = job->flags & SUPPRESS_OUTPUT,
        .castagnoli = wants_castagnoli(job),
    };
    if (!(job->flags & ENABLE) || (job->flags & UNKNOWN_FLAGS) || job->filter_flags ||
        ((job->flags & STOP_ON_EOB) && !(job->flags & ONLY_FINAL_EOB))) {
        return INVALID_DECOMPRESS_FLAG;
    }
    if ((reads_aecs(job) || writes_aecs(job) != NEVER) && job->aecs_size < AECS_SIZE) {
        return INVALID_OPERATION_FLAG;
    }
    if (reads_aecs(job) && !resume(&stream, aecs_to_read(job))) {
        done->error = AECS_ERROR;
        return ANALYTICS_ERROR;
    }
    const int problem = run(&stream);
    add_to_checksum(&stream.sum, stream.out, stream.produced, stream.castagnoli);
    done->crc = stream.sum.crc;
    done->xor16 = stream.sum.xor16;
    done->output_size = stream.produced;
    done->bytes_completed = (uint32_t)(stream.in - source) - stream.count / 8;
    if (problem == OUT_OF_ROOM && writes_aecs(job) != NEVER) {
        park(&stream, aecs_to_write(job));
        return OUTPUT_OVERFLOW;
    }
    if (problem == OUT_OF_INPUT && !(job->flags & CHECK_FOR_EOB)) {
        return writes_aecs(job) == ALWAYS ? INVALID_OPERATION_FLAG : SUCCESS;
    }
    if (problem) {
        done->error = (uint8_t)(problem == OUT_OF_INPUT   ? BAD_END_OF_INPUT
                                : problem == OUT_OF_ROOM ? OUTPUT_TOO_SMALL
                                                          : problem);
        return ANALYTICS_ERROR;
    }
    return SUCCESS;
}
