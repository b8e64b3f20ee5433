/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the consumers of bench/compare, one thread and one connection each.
 * Each file consumer_*.c defines, for its protocol, the functions below.  They
 * return 0, or -1 after consumer_fail().
 */

#ifndef CONSUMER_H
#define CONSUMER_H


#include <stdint.h>


typedef struct {
    unsigned    number;             /* from 1 */
    uint64_t    posts;              /* that were delivered */
    uint64_t    sum;                /* of their numbers */
    void       *link;               /* the protocol's */
} consumer_t;


extern const char *consumer_usage;  /* of the protocol's arguments */

int consumer_open(consumer_t *consumer, char **argv);

/* Calls consumer_post() for each of at most so many posts; acknowledges them. */

int consumer_batch(consumer_t *consumer, int most);

/* The server has read the last acknowledgement when it returns. */

int consumer_close(consumer_t *consumer);


/* For the protocols.  The body begins with {"n": and the post's number. */

void consumer_post(consumer_t *consumer, const char *body);
int consumer_fail(const consumer_t *consumer, const char *what);


#endif /* CONSUMER_H */
