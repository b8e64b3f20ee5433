/* SPDX-License-Identifier: PostgreSQL */

/*
 * Batches of messages: see feed_batch.h.
 *
 * The binary form of an array of one dimension: dimensions, null flag, type,
 * length, lower bound; then the length and the bytes of each element.
 */

#include "feed_batch.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>


#define FEED_UUID     2950
#define FEED_HEADER   20
#define FEED_ELEMENT  4
#define FEED_NUMBER   11    /* offset of the number in a message: {"message": */
#define FEED_DIGITS   12


static char *feed_array(unsigned count, size_t size, uint32_t type);
static void feed_put(char *p, uint32_t value);
static void feed_uuid(feed_batch_t *batch, char *p, uint64_t ms);


void
feed_batch_init(feed_batch_t *batch, unsigned count, size_t size,
    uint32_t type, uint64_t seed)
{
    char      *p;
    unsigned   i;

    memset(batch, 0, sizeof(feed_batch_t));

    batch->count = count;
    batch->size = size;
    batch->random = seed * 0x9e3779b97f4a7c15 + 0x2545f4914f6cdd1d;
    batch->ids = feed_array(count, 16, FEED_UUID);
    batch->messages = feed_array(count, size, type);

    for (i = 0; i < count; i++) {
        p = batch->messages + FEED_HEADER + i * (FEED_ELEMENT + size)
            + FEED_ELEMENT;

        memset(p, 'x', size);
        memcpy(p, "{\"message\":000000000000,\"pad\":\"", 31);
        memcpy(p + size - 2, "\"}", 2);
    }

    batch->values[0] = batch->id;
    batch->values[1] = batch->ids;
    batch->values[2] = batch->messages;
    batch->lengths[0] = 16;
    batch->lengths[1] = (int) (FEED_HEADER + count * (FEED_ELEMENT + 16));
    batch->lengths[2] = (int) (FEED_HEADER + count * (FEED_ELEMENT + size));
    batch->formats[0] = batch->formats[1] = batch->formats[2] = 1;
}


void
feed_batch_fill(feed_batch_t *batch, uint64_t number)
{
    int               digit;
    char             *p;
    unsigned          i;
    uint64_t          ms, n;
    struct timespec   ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    ms = (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;

    feed_uuid(batch, batch->id, ms);

    for (i = 0; i < batch->count; i++) {
        p = batch->ids + FEED_HEADER + i * (FEED_ELEMENT + 16);
        feed_uuid(batch, p + FEED_ELEMENT, ms);

        p = batch->messages + FEED_HEADER + i * (FEED_ELEMENT + batch->size);
        p += FEED_ELEMENT + FEED_NUMBER;

        /* a JSON number does not begin with 0 */

        *p = '1';
        n = number + i;

        for (digit = FEED_DIGITS - 1; digit > 0; digit--) {
            p[digit] = (char) ('0' + n % 10);
            n /= 10;
        }
    }
}


static char *
feed_array(unsigned count, size_t size, uint32_t type)
{
    char      *array;
    unsigned   i;

    array = calloc(1, FEED_HEADER + count * (FEED_ELEMENT + size));

    if (array == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(2);
    }

    feed_put(array, 1);
    feed_put(array + 8, type);
    feed_put(array + 12, count);
    feed_put(array + 16, 1);

    for (i = 0; i < count; i++) {
        feed_put(array + FEED_HEADER + i * (FEED_ELEMENT + size),
                 (uint32_t) size);
    }

    return array;
}


static void
feed_put(char *p, uint32_t value)
{
    value = htobe32(value);
    memcpy(p, &value, sizeof(value));
}


/* The time, then the output of a xorshift generator. */

static void
feed_uuid(feed_batch_t *batch, char *p, uint64_t ms)
{
    uint64_t  high, low, x;

    x = batch->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    batch->random = x;

    high = htobe64(ms << 16 | 0x7000 | (x & 0x0fff));
    low = htobe64(0x8000000000000000 | x >> 2);
    memcpy(p, &high, 8);
    memcpy(p + 8, &low, 8);
}
