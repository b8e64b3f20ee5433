/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns a batch on its way into the server: a batch id (UUIDv7), so many
 * message ids and as many messages, as the binary parameters of a statement.
 *
 * Made once and filled again for every call: only the ids and a counter in
 * each message are written then.
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


/* Messages have at least 40 bytes.  There is no return from a lack of memory. */

void feed_batch_init(feed_batch_t *batch, unsigned count, size_t size,
    uint32_t type, uint64_t seed);

/* New ids; messages are numbered from this one. */

void feed_batch_fill(feed_batch_t *batch, uint64_t number);


#endif /* FEED_BATCH_H */
