/* The parts of the emulated IAA: a software device that libqpl's unmodified hardware path submits to.
 *
 * The layout of descriptors and completion records, opcodes, flags and status codes are those of the Intel In-Memory
 * Analytics Accelerator Architecture Specification, chapters 3 to 5, as libqpl 1.9.0 uses them.
 */
#ifndef DEVICE_H
#define DEVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

enum { MAX_DEVICES = 8, MAX_QUEUES = 8, MAX_ENGINES = 8, MAX_SIZE = 256 };

enum opcode { NOOP = 0x00, DECOMPRESS = 0x42, COMPRESS = 0x43, STUFFING = 0xff };

enum { OPCODES = 256 };

enum status {
    SUCCESS = 0x01,
    READ_FAULT = 0x03,
    ANALYTICS_ERROR = 0x0a,
    OUTPUT_OVERFLOW = 0x0b,
    UNSUPPORTED_OPCODE = 0x10,
    INVALID_OPERATION_FLAG = 0x11,
    INVALID_TRANSFER_SIZE = 0x13,
    HARDWARE_ERROR = 0x20, /* what is left to say for a device that is gone; Linux: linux/idxd.h, HW_ERR1 */
    INVALID_DECOMPRESS_FLAG = 0x30,
    WRITE_FAULT = 0x83,
};

/* The error code beside ANALYTICS_ERROR. */
enum error {
    BAD_CODE_LENGTH_CODE = 2,
    FIRST_LITERAL_CODE_16 = 3,
    WRONG_NUMBER_OF_LITERAL_CODES = 6,
    BAD_CODE_LENGTH_LENGTHS = 8,
    BAD_LITERAL_LENGTHS = 9,
    BAD_DISTANCE_LENGTHS = 10,
    BAD_LITERAL_CODE = 11,
    BAD_DISTANCE_CODE = 12,
    INVALID_BLOCK_TYPE = 13,
    INVALID_STORED_LENGTH = 14,
    BAD_END_OF_INPUT = 15,
    BAD_DISTANCE = 17,
    REFERENCE_BEFORE_START = 18,
    AECS_ERROR = 22,
    OUTPUT_TOO_SMALL = 25,
    INVALID_HUFFMAN_CODE = 30,
    TOO_MANY_LITERAL_CODES = 35,
    TOO_MANY_DISTANCE_CODES = 36,
};

struct descriptor {
    uint32_t pasid;
    uint32_t operation; /* opcode << 24 | flags */
    uint64_t completion;
    uint64_t source;
    uint64_t destination;
    uint32_t source_size;
    uint16_t interrupt;
    uint16_t flags; /* of the operation: compress or decompress flags */
    uint64_t aecs;  /* source 2: Analytics Engine Configuration and State */
    uint32_t destination_size;
    uint32_t aecs_size; /* of each of the two halves */
    uint32_t filter_flags;
    uint32_t elements;
};
_Static_assert(sizeof(struct descriptor) == 64, "a descriptor has 64 bytes");

struct completion {
    uint8_t status;
    uint8_t error;
    uint8_t fault_info;
    uint8_t reserved0;
    uint32_t bytes_completed;
    uint64_t fault_address;
    uint32_t reserved1[2];
    uint32_t output_size;
    uint8_t output_bits; /* in the last byte of the output; 0: all */
    uint8_t reserved2;
    uint16_t xor16;
    uint32_t crc;
    uint32_t aggregates[3];
    uint32_t reserved3[4];
};
_Static_assert(sizeof(struct completion) == 64, "a completion record has 64 bytes");

static inline unsigned opcode_of(const struct descriptor *job)
{
    return job->operation >> 24;
}

static inline bool reads_aecs(const struct descriptor *job)
{
    return (job->operation >> 16 & 3) == 1;
}

enum aecs_write { NEVER = 0, ALWAYS = 1, ON_OVERFLOW = 2 };

static inline enum aecs_write writes_aecs(const struct descriptor *job)
{
    return job->operation >> 18 & 3;
}

/* One half of the AECS is read and the other one written; bit 22 says which is read. */
static inline uint8_t *aecs_to_read(const struct descriptor *job)
{
    return (uint8_t *)(uintptr_t)job->aecs + ((job->operation >> 22 & 1) ? job->aecs_size : 0);
}

static inline uint8_t *aecs_to_write(const struct descriptor *job)
{
    return (uint8_t *)(uintptr_t)job->aecs + ((job->operation >> 22 & 1) ? 0 : job->aecs_size);
}

/* settings.c */
enum { NO_NODE = 1024 }; /* numa_node of devices that are near to no node */

struct settings {
    unsigned devices;
    unsigned queues;  /* of each device */
    unsigned size;    /* of each queue: descriptors that wait */
    unsigned engines; /* of each device: descriptors that are worked on */
    unsigned max_transfer;
    unsigned numa_node;
    unsigned job_us; /* what a job takes at least */
};
extern struct settings settings;
bool read_number(const char *text, unsigned low, unsigned high, unsigned *number);

/* queue.c */
enum fate {
    SERVED,
    LOST,    /* nothing is read from it any more, and nothing completes */
    FAILING, /* every descriptor completes with HARDWARE_ERROR */
    REFUSED, /* no descriptor can be submitted */
};

struct queue {
    unsigned device;
    unsigned number;
    char name[16];
    char path[64];
    int fifo;               /* our end */
    atomic_int submissions; /* libqpl's end; -1 until it has opened it */
    atomic_int fate;
    atomic_bool held;
    atomic_ulong served[OPCODES];
    pthread_mutex_t lock; /* of taking a descriptor */
};

extern struct queue queues[MAX_DEVICES][MAX_QUEUES];
void make_queues(void);
void adopt_submissions(struct queue *queue);
bool take_descriptor(struct queue *queue, struct descriptor *job);
void vanish(struct queue *queue, enum fate fate);
EXPORT void emulated_iaa_busy(int busy);

/* engine.c */
void start_engines(void);

/* faults.c */
enum action { NOTHING, FAIL_STATUS, FAIL_ERROR, HANG, BUSY, VANISH };
struct fault {
    enum action action;
    unsigned number; /* the status, the error code, microseconds of BUSY (0: until told), or a fate */
};
struct fault next_fault(unsigned opcode);
EXPORT int emulated_iaa_fault(const char *text);
EXPORT int emulated_iaa_random_fault(const char *text);

/* checksum.c */
struct checksum {
    uint32_t crc;
    uint16_t xor16;
    bool odd; /* bytes so far */
};
void add_to_checksum(struct checksum *sum, const uint8_t *data, uint32_t size, bool castagnoli);
static inline bool wants_castagnoli(const struct descriptor *job)
{
    return job->operation >> 21 & 1;
}

/* The operations. Each fills the completion record, but for nothing but its status, which it returns. */
enum status compress(const struct descriptor *job, struct completion *done);
enum status inflate(const struct descriptor *job, struct completion *done);

#endif
