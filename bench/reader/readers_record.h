/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the record of what each reader has received: a bit for each message, and
 * a hash of all messages in their order.
 *
 * Expected are the messages that were acknowledged, and those that a reader has
 * received although their outcome is unknown.
 */

#ifndef READERS_RECORD_H
#define READERS_RECORD_H


#include "readers.h"


typedef struct {
    unsigned   complete;        /* readers with every expected message */
    unsigned   disorder;        /* those with another order than the first */
    uint64_t   expected;
    uint64_t   missing;         /* summed over all readers */
    uint64_t   unseen;          /* acknowledged, and received by no reader */
} readers_report_t;


/* Begins with an empty record; an earlier one is freed. */

int readers_record_init(void);

/*
 * Reader i has received message n; id is -1 if the event's id is not a number.
 * Returns 0 if it has received the message before.
 */

int readers_record_add(unsigned i, uint32_t n, int64_t id);

/* Whether no reader lacks an expected message. */

int readers_record_complete(void);

void readers_record_report(readers_report_t *report);


#endif /* READERS_RECORD_H */
