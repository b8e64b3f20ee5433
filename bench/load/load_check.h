/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the reading back: waits until the queue is empty and shows the verdict
 * each row of posts and each dead letter.
 */

#ifndef LOAD_CHECK_H
#define LOAD_CHECK_H


#include "load.h"
#include "load_verdict.h"


/*
 * The greatest id of posts, after which rows can be of this run; 0 when the
 * database is not to be had now.
 */

int64_t load_check_mark(const char *conninfo);

/* Returns -1, with a message, when there is no verdict to be had. */

int load_check_run(const load_settings_t *settings, int64_t mark,
    load_verdict_t *verdict);


#endif /* LOAD_CHECK_H */
