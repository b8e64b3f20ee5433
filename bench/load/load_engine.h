/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the schedule: when a message starts, whether it is sent again, what is
 * counted.  Connections belong to load_link, which reports the result of each
 * attempt.  One thread, one epoll, one write and one read for each request.
 */

#ifndef LOAD_ENGINE_H
#define LOAD_ENGINE_H


#include "load.h"
#include "load_hist.h"

#include <signal.h>


typedef struct {
    uint64_t     requests;          /* attempts with a sent byte */
    uint64_t     messages;          /* started */
    uint64_t     ok;                /* messages acknowledged */
    uint64_t     failed;            /* messages not acknowledged */
    uint64_t     unsent;            /* messages never started */
    uint64_t     refused;           /* answers with an unwanted status */
    uint64_t     retry_after;       /* of these, those with Retry-After */
    uint64_t     unknown;           /* attempts without an answer */
    uint64_t     retries;
    uint64_t     malformed;         /* acknowledged without a valid id */
    uint64_t     lost_connections;  /* with a request in flight */
    uint64_t     connect_errors;
    uint64_t     by_status[LOAD_STATUS_MAX];
    int64_t      began;
    int64_t      ended;             /* the last answer */
    int64_t      last_ok;           /* the last acknowledgement */
    int64_t      longest_gap;       /* between two acknowledgements */
    int64_t      warm;              /* when the warm-up ended */
    uint64_t     warm_ok;           /* ok at that time */
    load_hist_t  latency;           /* of acknowledged messages, since warm */
} load_stats_t;


typedef void (*load_progress_pt)(const load_stats_t *stats, int64_t now);


/*
 * Runs until every message is answered or given up.  -1: it cannot run at all.
 * A signal that sets *stop to 1 ends the sending, 2 ends the run.  progress()
 * is called about once a second.
 */

int load_engine_run(const load_settings_t *settings, load_stats_t *stats,
    const volatile sig_atomic_t *stop, load_progress_pt progress);


#endif /* LOAD_ENGINE_H */
