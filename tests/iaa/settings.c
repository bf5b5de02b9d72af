/* What the environment variable EMULATED_IAA says: NAME=VALUE, separated by commas. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

struct settings settings = {
    .devices = 1,
    .queues = 1,
    .size = 64,
    .engines = 8,
    .max_transfer = 2u << 20,
    .numa_node = NO_NODE,
    .job_us = 0,
};

static const struct {
    const char *name;
    unsigned *place;
    unsigned low, high;
} numbers[] = {
    {"devices", &settings.devices, 0, MAX_DEVICES},
    {"queues", &settings.queues, 0, MAX_QUEUES},
    {"size", &settings.size, 1, MAX_SIZE},
    {"engines", &settings.engines, 1, MAX_ENGINES},
    {"max_transfer", &settings.max_transfer, 1, 1u << 31},
    {"numa_node", &settings.numa_node, 0, NO_NODE - 1},
    {"job_us", &settings.job_us, 0, 100000000},
};

bool read_number(const char *text, unsigned low, unsigned high, unsigned *number)
{
    char *end;
    errno = 0;
    const unsigned long value = strtoul(text, &end, 10);
    if (errno || end == text || *end || text[0] < '0' || text[0] > '9' || value < low || value > high) {
        return false;
    }
    *number = (unsigned)value;
    return true;
}

static void refuse(const char *name, const char *why)
{
    fprintf(stderr, "emulated IAA: EMULATED_IAA: %s: %s\n", name, why);
    abort();
}

static void set(const char *name, const char *value)
{
    if (strcmp(name, "fault") == 0 || strcmp(name, "random") == 0) {
        if ((name[0] == 'f' ? emulated_iaa_fault : emulated_iaa_random_fault)(value)) {
            refuse(name, value);
        }
        return;
    }
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            if (!read_number(value, numbers[i].low, numbers[i].high, numbers[i].place)) {
                char why[64];
                snprintf(why, sizeof(why), "not a number from %u to %u", numbers[i].low, numbers[i].high);
                refuse(name, why);
            }
            return;
        }
    }
    refuse(name, "no such setting");
}

__attribute__((constructor)) static void read_settings(void)
{
    const char *text = getenv("EMULATED_IAA");
    if (text == NULL || *text == '\0') {
        return;
    }
    char *words = strdup(text);
    char *rest = words;
    for (char *word; (word = strsep(&rest, ",")) != NULL;) {
        char *value = strchr(word, '=');
        if (value == NULL) {
            refuse(word, "no value");
        }
        *value++ = '\0';
        set(word, value);
    }
    free(words);
    if (settings.size & (settings.size - 1)) {
        refuse("size", "not a power of two, as a pipe's size is");
    }
}
