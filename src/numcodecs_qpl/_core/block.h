/* A block of raw deflate (RFC 1951), the task to do with it, and its result. Both engines share these types.

   A block is open or final. A final block is a whole deflate stream. An open block has no BFINAL bit and ends on a byte
   boundary, so that blocks can follow one another and "03 00" closes the stream. */

#ifndef NUMCODECS_QPL_BLOCK_H
#define NUMCODECS_QPL_BLOCK_H

#include <stddef.h>
#include <stdint.h>

typedef enum {
    TODO = 0,      /* not done; at the end of a batch this is a failure */
    DONE,
    FULL,          /* the result does not fit into `room` */
    DAMAGED,       /* the input is invalid, or not of the expected size */
    NO_MEMORY,
    DEVICE_FAILED, /* see `reason` */
} Status;

typedef enum { COMPRESS, DECOMPRESS } Operation;

typedef enum { NO_CHECKSUM, CRC32, ADLER32 } Checksum;

typedef struct {
    Operation operation;
    int dynamic;       /* compress: make Huffman tables for each block; else use deflate's fixed ones */
    int open;          /* the blocks are open, not final */
    int keep;          /* pages: copy a page that does not get smaller, `size` bytes into `room` + 1 */
    Checksum checksum; /* of the uncompressed bytes of each block */
} Task;

typedef struct {
    const uint8_t *src;
    size_t size;       /* bytes at `src` */
    uint8_t *dst;
    size_t room;       /* bytes at `dst` that may be written; nothing is written after them */
    size_t written;
    uint32_t checksum;
    Status status;
    uint32_t reason;   /* DEVICE_FAILED, or DAMAGED by a device: libqpl's status number, for messages and counts */
} Block;

#endif
