/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the watching of posts: a thread that notes when each new row was first
 * seen, by asking every half millisecond for rows after the last.
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
 * Ends it when nothing new was seen for a second, drain at most; counts what
 * that the record has as acknowledged, from the message's start.  -1: out of
 * memory.
 */

int load_visible_stop(int64_t began, int64_t drain, load_hist_t *hist);


#endif /* LOAD_VISIBLE_H */
