/* The tables of RFC 1951, section 3.2.5. */
#ifndef DEFLATE_H
#define DEFLATE_H

#include <stdint.h>

enum {
    WINDOW = 4096, /* the accelerator's; deflate's own is 32768 */
    SHORTEST_MATCH = 3,
    LONGEST_MATCH = 258,
    END_OF_BLOCK = 256,
    LITERAL_CODES = 286,
    DISTANCE_CODES = 30,
    LENGTH_SYMBOLS = 29,
    LONGEST_CODE = 15,
};

static const uint16_t length_base[LENGTH_SYMBOLS] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                                     31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t length_extra[LENGTH_SYMBOLS] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                                     2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t distance_base[DISTANCE_CODES] = {1,   2,   3,   4,   5,   7,    9,    13,   17,   25,
                                                       33,  49,  65,  97,  129, 193,  257,  385,  513,  769,
                                                       1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
static const uint8_t distance_extra[DISTANCE_CODES] = {0, 0, 0, 0, 1, 1, 2, 2,  3,  3,  4,  4,  5,  5,  6,
                                                       6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};

#endif
