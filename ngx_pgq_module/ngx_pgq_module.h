/* SPDX-License-Identifier: PostgreSQL */

/*
 * The map of the module: its words, its types, and which room owns what.
 *
 *   message  what a client sends
 *   ticket   one waiting request; it outlives its request
 *   batch    tickets that travel and commit together, under one batch id
 *   call     one statement on its way to the database and back
 *   read     the call that answers all GETs that wait for the same posts
 *   lane     one libpq connection of one nginx worker
 *   pool     the lanes of one worker to one database, and what waits for them
 *
 * Calls go one way, along the flow, and come back by callback:
 *
 *   POST -> enqueue -> ticket -> batch -> pool -> call -> lane ==> database
 *           (fields, message,   (batch_io)
 *            ndjson)
 *   GET  -> fetch -> read --------------> pool -> call -> lane ==> database
 *                   (answer)
 *
 * Who has something to count calls metrics, which calls nobody; status shows
 * what was counted, variables what became of one request.
 *
 * The folders: only http and the front desk (ngx_http_pgq_module.c) know HTTP
 * requests; queue has what waits; database has all that includes libpq; format
 * depends on nothing.
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


#define NGX_PGQ_VERSION          "1.0"     /* as the extension's */

#define NGX_PGQ_UUID_LEN         16
#define NGX_PGQ_SQLSTATE_LEN     5

#define NGX_PGQ_MAX_TIMEOUT      300000    /* ms, of pgq_timeout */

/* elapsed seconds, by a clock that nobody sets; the same in all workers */

#define ngx_pgq_seconds()        ((time_t) (ngx_current_msec / 1000))

/* s, until the same error is logged again */

#define NGX_PGQ_LOG_INTERVAL     10

/* of the event loop's turn, in milliseconds since 1970: for ids only */

#define ngx_pgq_now()                                                         \
    ((uint64_t) ngx_cached_time->sec * 1000 + ngx_cached_time->msec)


/* of two times to wait, either of which may be -1: none */

static ngx_inline ngx_msec_int_t
ngx_pgq_sooner(ngx_msec_int_t a, ngx_msec_int_t b)
{
    return b < 0 || (a >= 0 && a < b) ? a : b;
}


/* what became of a call, or of a ticket */

typedef enum {
    NGX_PGQ_DONE = 0,      /* committed, here and where it is replicated to */
    NGX_PGQ_REPLAYED,      /* was committed before, under the same key */
    NGX_PGQ_REFUSED,       /* not committed: the data will never be taken */
    NGX_PGQ_FAILED,        /* not committed: the data or the database failed */
    NGX_PGQ_IN_FLIGHT,     /* not committed: its key is under way elsewhere */
    NGX_PGQ_REUSED,        /* not committed: its key is another message's */
    NGX_PGQ_KEYS_FULL,     /* not committed: its key is new, one too many */
    NGX_PGQ_AGAIN,         /* not committed: the database cannot, for now */
    NGX_PGQ_UNKNOWN        /* sent, and nobody said what became of it */
} ngx_pgq_outcome_e;


/* The room "parameter": what pgq_pool is told of a pool. */

void ngx_pgq_parameter_defaults(ngx_pgq_pool_t *db);
char *ngx_pgq_parameter_read(ngx_conf_t *cf, ngx_pgq_pool_t *db,
    ngx_str_t *parameter);


#endif /* NGX_PGQ_MODULE_H */
