/* The engines of a device: threads that take descriptors from its queues and work on them in place. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "device.h"

enum { LOOK_AGAIN_MS = 5 };

static atomic_int working, most_working;

static void note_start(void)
{
    const int now = atomic_fetch_add(&working, 1) + 1;
    int most = atomic_load(&most_working);
    while (now > most && !atomic_compare_exchange_weak(&most_working, &most, now)) {
    }
}

static struct timespec soonest_end(void)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    const uint64_t nanoseconds = (uint64_t)end.tv_nsec + 1000ull * settings.job_us;
    end.tv_sec += (time_t)(nanoseconds / 1000000000);
    end.tv_nsec = (long)(nanoseconds % 1000000000);
    return end;
}

static void wait_for(const struct timespec *end)
{
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, end, NULL) == EINTR) {
    }
}

static enum status work(struct queue *queue, const struct descriptor *job, struct completion *done)
{
    const unsigned opcode = opcode_of(job);
    if (opcode == NOOP) {
        adopt_submissions(queue); /* the first one: libqpl probes a queue that it has just opened */
        return SUCCESS;
    }
    if (opcode != COMPRESS && opcode != DECOMPRESS) {
        return UNSUPPORTED_OPCODE;
    }
    if (job->source_size > settings.max_transfer || job->destination_size > settings.max_transfer ||
        job->source_size + job->destination_size == 0) {
        return INVALID_TRANSFER_SIZE;
    }
    return opcode == COMPRESS ? compress(job, done) : inflate(job, done);
}

static enum status fail(const struct descriptor *job, const struct fault *fault, struct completion *done)
{
    if (fault->action == FAIL_ERROR) {
        done->error = (uint8_t)fault->number;
        return ANALYTICS_ERROR;
    }
    if (fault->number == READ_FAULT || fault->number == WRITE_FAULT) {
        done->fault_address = fault->number == READ_FAULT ? job->source : job->destination;
        done->fault_info = 1; /* the address is valid */
    }
    return fault->number;
}

static void complete(struct queue *queue, const struct descriptor *job, struct completion *done, enum status status)
{
    struct completion *record = (struct completion *)(uintptr_t)job->completion;
    atomic_fetch_add(&queue->served[opcode_of(job)], 1);
    atomic_fetch_sub(&working, 1);
    memcpy((uint8_t *)record + 1, (uint8_t *)done + 1, sizeof(*done) - 1);
    /* libqpl's thread goes on as soon as it sees the status. */
    __atomic_store_n(&record->status, (uint8_t)status, __ATOMIC_RELEASE);
}

static void serve(struct queue *queue, const struct descriptor *job)
{
    note_start();
    const struct timespec end = soonest_end();
    struct completion done = {0};
    struct fault fault = next_fault(opcode_of(job));
    if (fault.action == VANISH) {
        for (unsigned q = 0; q < settings.queues; q++) {
            vanish(&queues[queue->device][q], (enum fate)fault.number);
        }
    }
    if (atomic_load(&queue->fate) == FAILING) {
        fault = (struct fault){FAIL_STATUS, HARDWARE_ERROR};
    }
    if (settings.job_us) {
        wait_for(&end); /* before the work: what a slow device writes, it writes late */
    }
    const bool fails = fault.action == FAIL_STATUS || fault.action == FAIL_ERROR;
    const enum status status = fails ? fail(job, &fault, &done) : work(queue, job, &done);
    if (fault.action == BUSY) {
        emulated_iaa_busy(1);
    }
    if (fault.action == HANG || atomic_load(&queue->fate) == LOST) {
        atomic_fetch_sub(&working, 1);
        return;
    }
    complete(queue, job, &done, status);
    if (fault.action == BUSY && fault.number) {
        const struct timespec span = {fault.number / 1000000, fault.number % 1000000 * 1000};
        nanosleep(&span, NULL);
        emulated_iaa_busy(0);
    }
}

static void *run(void *argument)
{
    struct queue *all = argument;
    struct pollfd polled[MAX_QUEUES];
    for (unsigned turn = 0;; turn++) {
        int timeout = -1;
        for (unsigned q = 0; q < settings.queues; q++) {
            const bool shut = atomic_load(&all[q].held) || atomic_load(&all[q].fate) == LOST;
            polled[q] = (struct pollfd){.fd = shut ? -1 : all[q].fifo, .events = POLLIN};
            timeout = shut ? LOOK_AGAIN_MS : timeout;
        }
        poll(polled, settings.queues, timeout);
        for (unsigned i = 0; i < settings.queues; i++) {
            struct queue *queue = &all[(turn + i) % settings.queues];
            struct descriptor job;
            if (polled[queue->number].revents && take_descriptor(queue, &job)) {
                serve(queue, &job);
                break;
            }
        }
    }
    return NULL;
}

void start_engines(void)
{
    for (unsigned d = 0; d < settings.devices && settings.queues; d++) {
        for (unsigned e = 0; e < settings.engines; e++) {
            pthread_t thread;
            if (pthread_create(&thread, NULL, run, queues[d])) {
                fprintf(stderr, "emulated IAA: no thread for an engine\n");
                abort();
            }
            pthread_detach(thread);
        }
    }
}

/* ---- For tests ---- */

/* Descriptors in work now. */
EXPORT int emulated_iaa_working(void);
EXPORT int emulated_iaa_working(void)
{
    return atomic_load(&working);
}

/* The most descriptors that were in work at once. */
EXPORT int emulated_iaa_most_working(void);
EXPORT int emulated_iaa_most_working(void)
{
    return atomic_load(&most_working);
}
