/* SPDX-License-Identifier: PostgreSQL */

/*
 * The map of the module: its terms, its types, and its layers.
 *
 *   message  what a client sends
 *   ticket   a waiting POST; it outlives its request
 *   fetch    a waiting GET
 *   batch    tickets that are sent and committed together, under a batch id
 *   call     one statement, from the request for it to its result
 *   read     one call that answers all fetches of the same posts
 *   lane     one libpq connection of one nginx worker
 *   pool     the lanes of one worker for POSTs, or for GETs, and the requests
 *            that wait for them
 *
 * Calls go down the layers; results return by callbacks:
 *
 *   POST -> enqueue -> ticket -> batch -> pool -> call -> lane ==> database
 *           (fields, message,   (batch_io)
 *            ndjson)
 *   GET  -> fetch -> read --------------> pool -> call -> lane ==> database
 *                   (answer)
 *
 * Every layer may call metrics, which calls no other file.
 *
 * Only http/ and ngx_http_pgq_module.c use HTTP requests; queue/ has tickets,
 * batches and reads; only database/ includes libpq; format/ depends on no
 * other folder.
 */

#ifndef NGX_PGQ_MODULE_H
#define NGX_PGQ_MODULE_H


#include <ngx_config.h>
#include <ngx_core.h>


typedef struct ngx_pgq_target_s  ngx_pgq_target_t;
typedef struct ngx_pgq_lane_s    ngx_pgq_lane_t;
typedef struct ngx_pgq_call_s    ngx_pgq_call_t;
typedef struct ngx_pgq_pool_s    ngx_pgq_pool_t;
typedef struct ngx_pgq_batch_s   ngx_pgq_batch_t;
typedef struct ngx_pgq_ticket_s  ngx_pgq_ticket_t;
typedef struct ngx_pgq_ring_s    ngx_pgq_ring_t;


#define NGX_PGQ_VERSION          "1.0"     /* the extension has the same */

#define NGX_PGQ_UUID_LEN         16
#define NGX_PGQ_SQLSTATE_LEN     5

#define NGX_PGQ_MAX_TIMEOUT      300000    /* ms, limit of pgq_timeout */

/* elapsed seconds, of a monotonic clock; the same in all workers */

#define ngx_pgq_seconds()        ((time_t) (ngx_current_msec / 1000))

/* s between two lines in the log about the same error */

#define NGX_PGQ_LOG_INTERVAL     10

/* ms since 1970, cached by the event loop: for ids only */

#define ngx_pgq_now()                                                         \
    ((uint64_t) ngx_cached_time->sec * 1000 + ngx_cached_time->msec)


/* returns the shorter of two times; -1: no time */

static ngx_inline ngx_msec_int_t
ngx_pgq_sooner(ngx_msec_int_t a, ngx_msec_int_t b)
{
    return b < 0 || (a >= 0 && a < b) ? a : b;
}


/* how a call, and the tickets in it, ended */

typedef enum {
    NGX_PGQ_DONE = 0,      /* committed, also on the synchronous standbys */
    NGX_PGQ_REPLAYED,      /* committed before, under the same key */
    NGX_PGQ_REFUSED,       /* not committed: the data is not acceptable */
    NGX_PGQ_FAILED,        /* not committed: the data or the database failed */
    NGX_PGQ_IN_FLIGHT,     /* not committed: another request has its key */
    NGX_PGQ_REUSED,        /* not committed: another message had its key */
    NGX_PGQ_KEYS_FULL,     /* not committed: too many keys */
    NGX_PGQ_AGAIN,         /* not committed: temporary error, send it again */
    NGX_PGQ_UNKNOWN        /* sent; the database did not report the outcome */
} ngx_pgq_outcome_e;


#endif /* NGX_PGQ_MODULE_H */
