/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the ledger: what became of each attempt to have a message queued.
 *
 * Attempts are numbered from 1.  An attempt is of unknown outcome from the
 * moment it is entered until an answer says otherwise.
 *
 * Invariant
 * - An entry never moves and is never removed: 32 bytes each.
 */

#ifndef LOAD_LEDGER_H
#define LOAD_LEDGER_H


#include <stdint.h>
#include <sys/types.h>


#define LOAD_LEDGER_UNKNOWN  0
#define LOAD_LEDGER_UNSENT   1      /* not one byte of it left */


typedef struct {
    u_char    id[16];               /* good when acked */
    uint64_t  hash;                 /* of the body */
    uint64_t  begun:48;             /* microseconds after the start */
    uint64_t  status:15;            /* of HTTP, or one of the above */
    uint64_t  acked:1;
} load_entry_t;


/* Returns of -1, or of 0 for a number: out of memory.  Init empties it. */

int load_ledger_init(void);
uint64_t load_ledger_add(uint64_t hash, uint64_t begun);
load_entry_t *load_ledger_entry(uint64_t n);
uint64_t load_ledger_count(void);

/*
 * Makes acknowledged ids findable, anew at each call; *again is the number of
 * ids that were given out more than once.
 */

int load_ledger_index(uint64_t *again);
uint64_t load_ledger_find(const u_char id[16]);

/* The file: a head line, then a line an attempt; both print what is wrong. */

int load_ledger_save(const char *name, const char *run, int64_t mark);
int load_ledger_load(const char *name, char run[9], int64_t *mark);


#endif /* LOAD_LEDGER_H */
