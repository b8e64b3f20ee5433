/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns a batch: a batch id (UUIDv7), message ids and messages, as the binary
 * parameters of a statement.
 *
 * It is made once and filled again for every call, which writes only the ids
 * and a number in each message.
 */

#ifndef FEED_BATCH_H
#define FEED_BATCH_H


#include <stddef.h>
#include <stdint.h>


#define FEED_TEXT  25       /* the type's oid, for the messages */
#define FEED_JSON  114


typedef struct {
    unsigned        count;
    size_t          size;
    uint64_t        random;
    char           *ids;
    char           *messages;
    char            id[16];
    const char     *values[3];
    int             lengths[3];
    int             formats[3];
} feed_batch_t;


/* Messages have at least 40 bytes.  Exits if out of memory. */

void feed_batch_init(feed_batch_t *batch, unsigned count, size_t size,
    uint32_t type, uint64_t seed);

/* Makes new ids; the messages are numbered from this one on. */

void feed_batch_fill(feed_batch_t *batch, uint64_t number);


#endif /* FEED_BATCH_H */
