/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the report: compares rows with the record of requests.  It does not
 * know the database.
 *
 * Each acknowledged id has to be in the rows exactly once, with an equal body.
 * No refused message may be there, and each message of unknown outcome at most
 * once.
 */

#ifndef LOAD_REPORT_H
#define LOAD_REPORT_H


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
    uint64_t  foreign;              /* rows of other clients */
} load_report_t;


/* Empties the report, for the current record.  -1: out of memory. */

int load_report_init(const load_settings_t *settings,
    load_report_t *report);
int load_report_row(const u_char id[16], const u_char *data, size_t len,
    int dead);
void load_report_finish(void);

void load_report_print(const load_report_t *report);

/* Whether no message was lost, repeated or altered. */

int load_report_good(const load_settings_t *settings,
    const load_report_t *report);


#endif /* LOAD_REPORT_H */
