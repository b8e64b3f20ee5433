/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the watching of posts: a thread that polls twice a millisecond for new
 * rows, and notes when each was first seen.
 *
 * Invariant
 * - What the thread wrote is read only after it has been joined.
 */

#ifndef LOAD_VISIBLE_H
#define LOAD_VISIBLE_H


#include "load.h"
#include "load_hist.h"


/* Connects and starts the thread; -1, with a message, when it cannot. */

int load_visible_start(const char *conninfo);

/*
 * Ends the thread when it has seen no new row for a second, at the latest after
 * drain.  Adds the time from a message's start to its row, for each row that
 * the record has as acknowledged.  -1: out of memory.
 */

int load_visible_stop(int64_t began, int64_t drain, load_hist_t *hist);


#endif /* LOAD_VISIBLE_H */
