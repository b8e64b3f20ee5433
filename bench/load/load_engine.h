/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the schedule: which message begins when, whether it is sent again, what
 * is counted.  Connections are load_link's; this room is told what became of
 * each attempt.  One thread, one epoll, one write and one read a request.
 */

#ifndef LOAD_ENGINE_H
#define LOAD_ENGINE_H


#include "load.h"
#include "load_hist.h"

#include <signal.h>


typedef struct {
    uint64_t     requests;          /* attempts of which a byte was sent */
    uint64_t     messages;          /* begun */
    uint64_t     ok;                /* messages acknowledged */
    uint64_t     failed;            /* messages given up */
    uint64_t     unsent;            /* messages never begun */
    uint64_t     refused;           /* answers with a status not wanted */
    uint64_t     retry_after;       /* of these, those with Retry-After */
    uint64_t     unknown;           /* attempts of which the answer is lost */
    uint64_t     retries;
    uint64_t     malformed;         /* acknowledged, but without a good id */
    uint64_t     lost_connections;  /* while a request was under way */
    uint64_t     connect_errors;
    uint64_t     by_status[LOAD_STATUS_MAX];
    int64_t      began;
    int64_t      ended;             /* the last answer */
    int64_t      warm;              /* counting of rate and latency began */
    uint64_t     warm_ok;           /* ok at that moment */
    load_hist_t  latency;           /* of acknowledged messages, since warm */
} load_stats_t;


typedef void (*load_progress_pt)(const load_stats_t *stats, int64_t now);


/*
 * Runs until everything is answered or given up; -1 when it cannot work at
 * all.  A signal that sets *stop to 1 ends the sending, to 2 everything.
 * progress is called about once a second.
 */

int load_engine_run(const load_settings_t *settings, load_stats_t *stats,
    const volatile sig_atomic_t *stop, load_progress_pt progress);


#endif /* LOAD_ENGINE_H */
