/* The software engine, on ISA-L and libdeflate. Nothing is written past the end of an output. */

#ifndef NUMCODECS_QPL_SOFTWARE_H
#define NUMCODECS_QPL_SOFTWARE_H

#include "block.h"

/* Compressors and buffers of one thread. Take one from the pool and give it back; NULL without memory. */
typedef struct SoftwareEngine SoftwareEngine;
SoftwareEngine *software_take(void);
void software_give(SoftwareEngine *engine);
/* Empty the pool. A forked child calls this before any other function. */
void software_after_fork(void);
/* Set random bytes that data cannot predict; call this once, before any other function. They prove where an open block
   ends. */
enum { SOFTWARE_RANDOM = 8 };
void software_set_random(const uint8_t bytes[SOFTWARE_RANDOM]);

/* Compress a block of 1 to 2^31 - 1 bytes. Sets `written` and `status`; FULL if the result does not fit. */
void software_deflate(SoftwareEngine *engine, const Task *task, Block *block);
/* Write a block as stored blocks; `room` must be at least software_stored_size(size). */
void software_store(const Task *task, Block *block);
size_t software_stored_size(size_t size);

/* Compress any number of bytes into a whole stream, at level 0 (stored) to 9, with distances up to 32 KiB. Sets
   `written` and `status`; never FULL if `room` is at least software_level_bound(size). */
void software_deflate_at_level(SoftwareEngine *engine, int level, Block *block);
size_t software_level_bound(size_t size);

/* Inflate a block. Sets `written` and `status`. For an open block, DONE proves that it inflates to exactly `room` bytes
   and ends with its input. For a final block it proves neither: check `written`, and `read`, the bytes of input used.
   `read` is set for final blocks only. */
void software_inflate(SoftwareEngine *engine, const Task *task, Block *block, size_t *read);

uint32_t software_checksum(Checksum kind, const uint8_t *bytes, size_t size);
/* Checksum of two pieces, the second of `size` bytes, from the checksums of both. */
uint32_t software_join(Checksum kind, uint32_t first, uint32_t second, size_t size);

/* Versions of the headers at build time. */
const char *software_isal_version(void);
const char *software_libdeflate_version(void);

#endif
