/* SPDX-License-Identifier: PostgreSQL */

/*
 * A fetch is a waiting GET.  A read is one call that answers all fetches of
 * the same posts.
 */

#ifndef NGX_PGQ_READ_H
#define NGX_PGQ_READ_H


#include "ngx_pgq_answer.h"
#include "ngx_pgq_ticket.h"


typedef struct ngx_pgq_read_s   ngx_pgq_read_t;
typedef struct ngx_pgq_fetch_s  ngx_pgq_fetch_t;


typedef enum {
    NGX_PGQ_READ_DONE = 0,
    NGX_PGQ_READ_NO_DATABASE,
    NGX_PGQ_READ_TIMEOUT,
    NGX_PGQ_READ_FAILED,       /* the database reported an error */
    NGX_PGQ_READ_NO_MEMORY,
    NGX_PGQ_READ_REFUSED       /* by a reason that concerns the client */
} ngx_pgq_read_result_e;


struct ngx_pgq_fetch_s {
    ngx_pgq_waiting_t        base;
    ngx_queue_t              queue;     /* in read->fetches */
    ngx_pgq_read_t          *read;

    /* set by the owner; called once, unless the client has left; there is
       an answer on NGX_PGQ_READ_DONE only */
    void                   (*done)(ngx_pgq_fetch_t *f,
                                ngx_pgq_read_result_e result,
                                ngx_pgq_answer_t *answer);
    void                    *data;

    /* on NGX_PGQ_READ_REFUSED: has the error until done() returns */
    ngx_pgq_call_t          *refused;
};


ngx_int_t ngx_pgq_read_init(ngx_pgq_pool_t *db, ngx_pool_t *memory);
ngx_int_t ngx_pgq_read_join(ngx_pgq_fetch_t *f, ngx_pgq_read_query_t *query);
void ngx_pgq_read_leave(ngx_pgq_fetch_t *f);


#endif /* NGX_PGQ_READ_H */
