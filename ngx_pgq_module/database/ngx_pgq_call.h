/* SPDX-License-Identifier: PostgreSQL */

/*
 * One statement, its parameters and its callbacks.  The owner fills in the
 * upper part, keeps the values until done() is called, and frees the call.
 */

#ifndef NGX_PGQ_CALL_H
#define NGX_PGQ_CALL_H


#include "ngx_pgq_lane.h"


typedef enum {
    NGX_PGQ_ENQUEUE = 0,
    NGX_PGQ_ENQUEUE_KEYED,
    NGX_PGQ_ENQUEUE_ALL,
    NGX_PGQ_ENQUEUE_TOPICS,
    NGX_PGQ_ENQUEUE_ALL_TOPIC,
    NGX_PGQ_FENCE
} ngx_pgq_write_e;


typedef enum {
    NGX_PGQ_RECENT = 0,
    NGX_PGQ_AFTER,
    NGX_PGQ_FOLLOW,
    NGX_PGQ_HISTORY,
    NGX_PGQ_SINCE,
    NGX_PGQ_METRICS,
    NGX_PGQ_SUBSCRIPTIONS,
    NGX_PGQ_SUBSCRIBE,
    NGX_PGQ_UNSUBSCRIBE,
    NGX_PGQ_CONSUME,
    NGX_PGQ_ACK
} ngx_pgq_read_e;


#define NGX_PGQ_MAX_FIELDS       9     /* columns of a result */


struct ngx_pgq_call_s {
    /* of type ngx_pgq_read_e if read is set, else of ngx_pgq_write_e */
    ngx_uint_t               statement;
    unsigned                 read:1;
    unsigned                 commits:1;     /* a read that also writes */
    const char              *values[NGX_PGQ_MAX_PARAMS];
    int                      lengths[NGX_PGQ_MAX_PARAMS];

    /* encodes the parameters just before they are sent */
    ngx_int_t              (*encode)(ngx_pgq_call_t *call);
    /* one row of the result, as text; data of a null field is NULL */
    void                   (*row)(ngx_pgq_call_t *call, ngx_str_t *fields);
    /* called once for each start; after it the lane has no reference */
    void                   (*done)(ngx_pgq_call_t *call,
                                ngx_pgq_outcome_e outcome);
    void                    *data;

    /* set while the statement runs */
    ngx_pgq_outcome_e        outcome;
    unsigned                 answered:1;    /* the result had no error */
    /* the database's error; valid until done() returns */
    ngx_str_t                error_text;
    u_char                  *sqlstate;      /* NULL: the call was not sent */
};


/* the statements of lanes for writes and for reads */
extern ngx_pgq_lane_statement_t  ngx_pgq_call_writes[];
extern ngx_pgq_lane_statement_t  ngx_pgq_call_reads[];


ngx_int_t ngx_pgq_call_start(ngx_pgq_call_t *call, ngx_pgq_lane_t *lane);
ngx_uint_t ngx_pgq_call_is_transient(ngx_pgq_call_t *call);
ngx_uint_t ngx_pgq_call_libpq_version(void);

/* callbacks of the lane; lane->data is its call or NULL */
void ngx_pgq_call_result(ngx_pgq_lane_t *lane, struct pg_result *res);
void ngx_pgq_call_done(ngx_pgq_lane_t *lane);
void ngx_pgq_call_lost(ngx_pgq_lane_t *lane);


#endif /* NGX_PGQ_CALL_H */
