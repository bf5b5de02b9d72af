/* A work queue is a FIFO.
 *
 * libqpl opens a queue's device file and maps a page of it to submit with ENQCMD; a FIFO can't be mapped, and libqpl
 * then submits with write(2). In packet mode (pipe(2), O_DIRECT) each write takes one of the pipe's pages, so that a
 * pipe of n pages holds n descriptors, and a write into a full one fails, as ENQCMD does at a full queue.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device.h"

enum { PIPE_PAGE = 4096 };

struct queue queues[MAX_DEVICES][MAX_QUEUES];
static char folder[] = "/tmp/emulated-iaa-XXXXXX";
static bool made;

#define EACH_QUEUE(queue)                                                                                              \
    for (unsigned d_ = 0; made && d_ < settings.devices; d_++)                                                         \
        for (struct queue *queue = queues[d_]; queue < queues[d_] + settings.queues; queue++)

static void die(const char *what)
{
    fprintf(stderr, "emulated IAA: %s: %s\n", what, strerror(errno));
    abort();
}

static void unlink_fifos(void)
{
    EACH_QUEUE(queue)
    {
        unlink(queue->path);
    }
    rmdir(folder);
}

/* From now on each write to the queue fails. */
static void refuse_submissions(struct queue *queue)
{
    if (queue->submissions < 0) {
        return;
    }
    const int closed = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (closed < 0 || dup2(closed, queue->submissions) < 0) {
        die("closing a queue");
    }
    close(closed);
}

/* Linux's idxd takes a descriptor only from the process that opened the queue (drivers/dma/idxd/cdev.c,
 * idxd_cdev_write), and here a child's addresses would mean something else in its parent, which reads the FIFO. */
static void after_fork_in_child(void)
{
    EACH_QUEUE(queue)
    {
        refuse_submissions(queue);
    }
}

void make_queues(void)
{
    if (mkdtemp(folder) == NULL) {
        die(folder);
    }
    for (unsigned d = 0; d < settings.devices; d++) {
        for (unsigned q = 0; q < settings.queues; q++) {
            struct queue *queue = &queues[d][q];
            queue->device = d;
            queue->number = q;
            queue->submissions = -1;
            pthread_mutex_init(&queue->lock, NULL);
            snprintf(queue->name, sizeof(queue->name), "wq%u.%u", 2 * d + 1, q);
            snprintf(queue->path, sizeof(queue->path), "%s/wq%u.%u", folder, 2 * d + 1, q);
            if (mkfifo(queue->path, 0600)) {
                die(queue->path);
            }
            queue->fifo = open(queue->path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
            if (queue->fifo < 0 || fcntl(queue->fifo, F_SETPIPE_SZ, settings.size * PIPE_PAGE) < 0) {
                die(queue->path);
            }
        }
    }
    made = true;
    atexit(unlink_fifos);
    pthread_atfork(NULL, NULL, after_fork_in_child);
}

static bool same_file(int fd, const struct stat *wanted)
{
    struct stat found;
    return fstat(fd, &found) == 0 && found.st_dev == wanted->st_dev && found.st_ino == wanted->st_ino;
}

void adopt_submissions(struct queue *queue)
{
    struct stat fifo;
    DIR *fds = opendir("/proc/self/fd");
    if (fds == NULL || fstat(queue->fifo, &fifo)) {
        die("/proc/self/fd");
    }
    for (struct dirent *entry; (entry = readdir(fds)) != NULL;) {
        const int fd = atoi(entry->d_name);
        if (entry->d_name[0] != '.' && fd != queue->fifo && same_file(fd, &fifo)) {
            queue->submissions = fd;
            if (fcntl(fd, F_SETFL, O_NONBLOCK | O_DIRECT)) {
                die("packet mode");
            }
        }
    }
    closedir(fds);
    unlink(queue->path);
    rmdir(folder); /* when the last one has gone */
}

bool take_descriptor(struct queue *queue, struct descriptor *job)
{
    pthread_mutex_lock(&queue->lock);
    const int fate = atomic_load(&queue->fate);
    const bool open = !atomic_load(&queue->held) && fate != LOST;
    const bool taken = open && read(queue->fifo, job, sizeof(*job)) == sizeof(*job);
    pthread_mutex_unlock(&queue->lock);
    return taken && opcode_of(job) != STUFFING;
}

void vanish(struct queue *queue, enum fate fate)
{
    pthread_mutex_lock(&queue->lock);
    atomic_store(&queue->fate, fate);
    pthread_mutex_unlock(&queue->lock);
    if (fate == REFUSED) {
        refuse_submissions(queue);
    }
}

/* ---- For tests ---- */

static struct queue *find(int device, int number)
{
    const bool known = made && device >= 0 && (unsigned)device < settings.devices && number >= 0 &&
                       (unsigned)number < settings.queues;
    return known ? &queues[device][number] : NULL;
}

/* Take nothing from any queue (1), or go on (0): descriptors wait. */
EXPORT void emulated_iaa_hold(int hold);
EXPORT void emulated_iaa_hold(int hold)
{
    EACH_QUEUE(queue)
    {
        pthread_mutex_lock(&queue->lock);
        atomic_store(&queue->held, hold != 0);
        pthread_mutex_unlock(&queue->lock);
    }
}

/* Have all queues full (1) until this is called again (0). */
void emulated_iaa_busy(int busy)
{
    emulated_iaa_hold(busy);
    const struct descriptor stuffing = {.operation = (uint32_t)STUFFING << 24};
    EACH_QUEUE(queue)
    {
        while (busy && queue->submissions >= 0 &&
               write(queue->submissions, &stuffing, sizeof(stuffing)) == sizeof(stuffing)) {
        }
    }
}

/* Descriptors that wait in a queue; -1 if there is no such queue. */
EXPORT int emulated_iaa_waiting(int device, int number);
EXPORT int emulated_iaa_waiting(int device, int number)
{
    struct queue *queue = find(device, number);
    int bytes;
    if (queue == NULL || ioctl(queue->fifo, FIONREAD, &bytes)) {
        return -1;
    }
    return bytes / (int)sizeof(struct descriptor);
}

/* Descriptors of an operation that a queue has completed; -1 if there is no such queue. */
EXPORT long emulated_iaa_served(int device, int number, unsigned opcode);
EXPORT long emulated_iaa_served(int device, int number, unsigned opcode)
{
    struct queue *queue = find(device, number);
    return queue == NULL || opcode >= OPCODES ? -1 : (long)atomic_load(&queue->served[opcode]);
}

/* A queue goes away, as `enum fate` says; -1 if there is no such queue or fate. */
EXPORT int emulated_iaa_vanish(int device, int number, int fate);
EXPORT int emulated_iaa_vanish(int device, int number, int fate)
{
    struct queue *queue = find(device, number);
    if (queue == NULL || fate < SERVED || fate > REFUSED) {
        return -1;
    }
    vanish(queue, (enum fate)fate);
    return 0;
}
