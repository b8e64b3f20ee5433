/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the verdict: whether the rows it is shown are what the ledger promises.
 * Knows nothing of the database.
 *
 * Each acknowledged id must be among them exactly once, with an equal body; of
 * what was refused nothing may be there; of what is unknown, each at most
 * once.
 */

#ifndef LOAD_VERDICT_H
#define LOAD_VERDICT_H


#include "load.h"


typedef struct {
    int       drained;
    uint64_t  checked;              /* rows read */
    uint64_t  lost;
    uint64_t  twice;
    uint64_t  altered;
    uint64_t  unexpected;
    uint64_t  unknown_present;
    uint64_t  unknown_twice;
    uint64_t  id_twice;             /* an id given to two messages */
    uint64_t  dead;
    uint64_t  foreign;              /* rows of others */
} load_verdict_t;


/* Begins anew with the ledger as it is now; -1: out of memory. */

int load_verdict_init(const load_settings_t *settings,
    load_verdict_t *verdict);
int load_verdict_row(const u_char id[16], const u_char *data, size_t len,
    int dead);
void load_verdict_finish(void);

void load_verdict_print(const load_verdict_t *verdict);

/* Whether the promise was kept. */

int load_verdict_good(const load_settings_t *settings,
    const load_verdict_t *verdict);


#endif /* LOAD_VERDICT_H */
