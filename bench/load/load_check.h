/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the check: waits until the queue is empty and gives each row of posts
 * and each dead letter to the report.
 */

#ifndef LOAD_CHECK_H
#define LOAD_CHECK_H


#include "load.h"
#include "load_report.h"


/*
 * Returns the largest id of posts: rows of this run come after it.  0: the
 * database cannot be reached.
 */

int64_t load_check_mark(const char *conninfo);

/* Returns -1, with a message, if the check cannot be made. */

int load_check_run(const load_settings_t *settings, int64_t mark,
    load_report_t *report);


#endif /* LOAD_CHECK_H */
