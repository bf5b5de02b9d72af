/* Faults that tests ask for: what goes wrong, with which descriptors.
 *
 * OPERATION:NTH:TIMES:ACTION[:NUMBER]     the NTH descriptor from now (1 is the next) and those after it, TIMES in all
 * OPERATION:PER_MILLION:SEED:ACTION[:…]   each descriptor with a probability
 *
 * OPERATION is compress, decompress or any. libqpl touches the page of a page fault and submits again: that is a
 * descriptor as any other, so TIMES = 1 is a fault that libqpl mends.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

static const struct {
    const char *name;
    enum action action;
    unsigned number;
    bool takes_number;
} actions[] = {
    {"read_fault", FAIL_STATUS, READ_FAULT, false},
    {"write_fault", FAIL_STATUS, WRITE_FAULT, false},
    {"status", FAIL_STATUS, 0, true},
    {"error", FAIL_ERROR, 0, true},
    {"hang", HANG, 0, false},
    {"busy", BUSY, 0, true},
    {"lost", VANISH, LOST, false},
    {"failing", VANISH, FAILING, false},
    {"refused", VANISH, REFUSED, false},
};

struct rule {
    int opcode; /* -1: any */
    struct fault fault;
    unsigned skip, times; /* descriptors to let pass, and then to fail */
    unsigned per_million; /* or else */
    uint64_t random;
};

enum { MAX_RULES = 16 };

static struct rule rules[MAX_RULES];
static unsigned rule_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* xorshift64* (Vigna, 2016) */
static unsigned next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (unsigned)(*state * 0x2545f4914f6cdd1dull >> 32);
}

static bool hits(struct rule *rule)
{
    if (rule->per_million) {
        return next_random(&rule->random) % 1000000 < rule->per_million;
    }
    if (rule->skip) {
        rule->skip--;
        return false;
    }
    if (rule->times) {
        rule->times--;
        return true;
    }
    return false;
}

struct fault next_fault(unsigned opcode)
{
    struct fault fault = {NOTHING, 0};
    if (opcode == NOOP) {
        return fault;
    }
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < rule_count; i++) {
        const bool concerned = rules[i].opcode < 0 || rules[i].opcode == (int)opcode;
        if (concerned && hits(&rules[i]) && fault.action == NOTHING) {
            fault = rules[i].fault;
        }
    }
    pthread_mutex_unlock(&lock);
    return fault;
}

static bool read_opcode(const char *word, int *opcode)
{
    *opcode = strcmp(word, "compress") == 0 ? COMPRESS : strcmp(word, "decompress") == 0 ? DECOMPRESS : -1;
    return *opcode != -1 || strcmp(word, "any") == 0;
}

static bool read_action(const char *name, const char *number, struct fault *fault)
{
    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        if (strcmp(name, actions[i].name) == 0) {
            *fault = (struct fault){actions[i].action, actions[i].number};
            if (!actions[i].takes_number) {
                return number == NULL;
            }
            const unsigned high = actions[i].action == BUSY ? 100000000 : 255;
            return number != NULL && read_number(number, 0, high, &fault->number);
        }
    }
    return false;
}

/* Opcode and fault of `text`, and its two numbers in the middle. */
static bool read_rule(const char *text, struct rule *rule, unsigned *second, unsigned *third)
{
    enum { WORDS = 5 };
    char *copy = strdup(text);
    char *rest = copy;
    char *words[WORDS] = {0};
    for (int i = 0; i < WORDS; i++) {
        words[i] = strsep(&rest, ":");
    }
    const bool good = rest == NULL && words[3] != NULL && read_opcode(words[0], &rule->opcode) &&
                      read_number(words[1], 1, 1000000, second) && read_number(words[2], 1, 1000000000, third) &&
                      read_action(words[3], words[4], &rule->fault);
    free(copy);
    return good;
}

static int add_rule(const struct rule *rule)
{
    pthread_mutex_lock(&lock);
    const bool room = rule_count < MAX_RULES;
    if (room) {
        rules[rule_count++] = *rule;
    }
    pthread_mutex_unlock(&lock);
    return room ? 0 : -1;
}

/* ---- For tests: 0, or -1 for text that says no fault, or one too many ---- */

int emulated_iaa_fault(const char *text)
{
    struct rule rule = {0};
    unsigned nth;
    if (!read_rule(text, &rule, &nth, &rule.times)) {
        return -1;
    }
    rule.skip = nth - 1;
    return add_rule(&rule);
}

int emulated_iaa_random_fault(const char *text)
{
    struct rule rule = {0};
    unsigned seed;
    if (!read_rule(text, &rule, &rule.per_million, &seed)) {
        return -1;
    }
    rule.random = seed;
    return add_rule(&rule);
}

/* Forget all faults. */
EXPORT void emulated_iaa_clear_faults(void);
EXPORT void emulated_iaa_clear_faults(void)
{
    pthread_mutex_lock(&lock);
    rule_count = 0;
    pthread_mutex_unlock(&lock);
}
