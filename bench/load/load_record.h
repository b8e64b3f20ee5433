/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the record of requests: the outcome of each attempt to enqueue a
 * message.
 *
 * Attempts are numbered from 1.  The outcome of an attempt is unknown until an
 * answer is received.
 *
 * Invariant
 * - An entry, of 32 bytes, never moves and is never removed.
 */

#ifndef LOAD_RECORD_H
#define LOAD_RECORD_H


#include <stdint.h>
#include <sys/types.h>


#define LOAD_RECORD_UNKNOWN  0
#define LOAD_RECORD_UNSENT   1      /* no byte of it was sent */


typedef struct {
    u_char    id[16];               /* valid if acked */
    uint64_t  hash;                 /* of the body */
    uint64_t  begun:48;             /* microseconds after the start */
    uint64_t  status:15;            /* HTTP status, or one of the above */
    uint64_t  acked:1;
} load_entry_t;


/* Init empties the record.  init: -1, add: 0 if out of memory. */

int load_record_init(void);
uint64_t load_record_add(uint64_t hash, uint64_t begun);
load_entry_t *load_record_entry(uint64_t n);
uint64_t load_record_count(void);

/*
 * Rebuilds the index of acknowledged ids; *again is set to the number of ids
 * that were returned more than once.
 */

int load_record_index(uint64_t *again);
uint64_t load_record_find(const u_char id[16]);

/* File format: a head line, then one line for each attempt. */

int load_record_save(const char *name, const char *run, int64_t mark);
int load_record_load(const char *name, char run[9], int64_t *mark);


#endif /* LOAD_RECORD_H */
