/* The functions of libaccel-config that libqpl looks for, over the devices and queues of the settings.
 *
 * The prototypes are those of accel-config's public header, accfg/libaccel_config.h.
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "device.h"

struct accfg_ctx;

struct accfg_device {
    unsigned number;
    char name[16];
};

struct accfg_wq {
    struct queue *queue;
};

struct accfg_op_config {
    uint32_t bits[8];
};

static struct accfg_device devices[MAX_DEVICES];
static struct accfg_wq wqs[MAX_DEVICES][MAX_QUEUES];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void start(void)
{
    make_queues();
    for (unsigned d = 0; d < settings.devices; d++) {
        devices[d].number = d;
        /* idxd numbers DSA and IAA devices in one row: on a machine with both, the IAAs have the odd numbers. */
        snprintf(devices[d].name, sizeof(devices[d].name), "iax%u", 2 * d + 1);
        for (unsigned q = 0; q < settings.queues; q++) {
            wqs[d][q].queue = &queues[d][q];
        }
    }
    start_engines();
}

EXPORT int accfg_new(struct accfg_ctx **context);
EXPORT int accfg_new(struct accfg_ctx **context)
{
    pthread_once(&once, start);
    *context = (struct accfg_ctx *)devices;
    return 0;
}

EXPORT struct accfg_ctx *accfg_unref(struct accfg_ctx *context);
EXPORT struct accfg_ctx *accfg_unref(struct accfg_ctx *context)
{
    (void)context;
    return NULL;
}

/* ---- Devices ---- */

EXPORT struct accfg_device *accfg_device_get_first(struct accfg_ctx *context);
EXPORT struct accfg_device *accfg_device_get_first(struct accfg_ctx *context)
{
    (void)context;
    return settings.devices ? devices : NULL;
}

EXPORT struct accfg_device *accfg_device_get_next(struct accfg_device *device);
EXPORT struct accfg_device *accfg_device_get_next(struct accfg_device *device)
{
    return device->number + 1 < settings.devices ? device + 1 : NULL;
}

EXPORT const char *accfg_device_get_devname(struct accfg_device *device);
EXPORT const char *accfg_device_get_devname(struct accfg_device *device)
{
    return device->name;
}

EXPORT int accfg_device_get_state(struct accfg_device *device);
EXPORT int accfg_device_get_state(struct accfg_device *device)
{
    (void)device;
    return 1; /* enabled */
}

EXPORT uint64_t accfg_device_get_gen_cap(struct accfg_device *device);
EXPORT uint64_t accfg_device_get_gen_cap(struct accfg_device *device)
{
    (void)device;
    return 0x300001f0002; /* decompression, sizes to 2 GiB, no block on fault */
}

EXPORT int accfg_device_get_numa_node(struct accfg_device *device);
EXPORT int accfg_device_get_numa_node(struct accfg_device *device)
{
    (void)device;
    return settings.numa_node == NO_NODE ? -1 : (int)settings.numa_node;
}

EXPORT unsigned accfg_device_get_version(struct accfg_device *device);
EXPORT unsigned accfg_device_get_version(struct accfg_device *device)
{
    (void)device;
    return 0x100; /* IAA 1.0, of Sapphire Rapids */
}

EXPORT int accfg_device_get_iaa_cap(struct accfg_device *device, uint64_t *capabilities);
EXPORT int accfg_device_get_iaa_cap(struct accfg_device *device, uint64_t *capabilities)
{
    (void)device;
    *capabilities = 0; /* IAA 1.0 has none of them */
    return 0;
}

EXPORT uint64_t accfg_device_get_max_transfer_size(struct accfg_device *device);
EXPORT uint64_t accfg_device_get_max_transfer_size(struct accfg_device *device)
{
    (void)device;
    return 1u << 31;
}

/* ---- Work queues ---- */

EXPORT struct accfg_wq *accfg_wq_get_first(struct accfg_device *device);
EXPORT struct accfg_wq *accfg_wq_get_first(struct accfg_device *device)
{
    return settings.queues ? wqs[device->number] : NULL;
}

EXPORT struct accfg_wq *accfg_wq_get_next(struct accfg_wq *wq);
EXPORT struct accfg_wq *accfg_wq_get_next(struct accfg_wq *wq)
{
    return wq->queue->number + 1 < settings.queues ? wq + 1 : NULL;
}

EXPORT int accfg_wq_get_state(struct accfg_wq *wq);
EXPORT int accfg_wq_get_state(struct accfg_wq *wq)
{
    (void)wq;
    return 1; /* enabled */
}

EXPORT int accfg_wq_get_mode(struct accfg_wq *wq);
EXPORT int accfg_wq_get_mode(struct accfg_wq *wq)
{
    (void)wq;
    return 0; /* shared */
}

EXPORT int accfg_wq_get_id(struct accfg_wq *wq);
EXPORT int accfg_wq_get_id(struct accfg_wq *wq)
{
    return (int)wq->queue->number;
}

EXPORT int accfg_wq_get_priority(struct accfg_wq *wq);
EXPORT int accfg_wq_get_priority(struct accfg_wq *wq)
{
    (void)wq;
    return 10;
}

EXPORT int accfg_wq_get_block_on_fault(struct accfg_wq *wq);
EXPORT int accfg_wq_get_block_on_fault(struct accfg_wq *wq)
{
    (void)wq;
    return 0;
}

EXPORT const char *accfg_wq_get_devname(struct accfg_wq *wq);
EXPORT const char *accfg_wq_get_devname(struct accfg_wq *wq)
{
    return wq->queue->name;
}

EXPORT int accfg_wq_get_user_dev_path(struct accfg_wq *wq, char *path, size_t size);
EXPORT int accfg_wq_get_user_dev_path(struct accfg_wq *wq, char *path, size_t size)
{
    return snprintf(path, size, "%s", wq->queue->path) < (int)size ? 0 : -1;
}

EXPORT int accfg_wq_get_op_config(struct accfg_wq *wq, struct accfg_op_config *operations);
EXPORT int accfg_wq_get_op_config(struct accfg_wq *wq, struct accfg_op_config *operations)
{
    (void)wq;
    memset(operations, 0xff, sizeof(*operations)); /* all are allowed */
    return 0;
}

EXPORT uint64_t accfg_wq_get_max_transfer_size(struct accfg_wq *wq);
EXPORT uint64_t accfg_wq_get_max_transfer_size(struct accfg_wq *wq)
{
    (void)wq;
    return settings.max_transfer;
}
