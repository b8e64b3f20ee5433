/* SPDX-License-Identifier: PostgreSQL */

/*
 * What waits for the database: tickets of POSTs, and what they have in common
 * with the fetches of GETs.
 */

#ifndef NGX_PGQ_TICKET_H
#define NGX_PGQ_TICKET_H


#include "ngx_pgq_pool.h"


/* the base of a ticket and of a fetch: its first member */

typedef struct {
    ngx_queue_t              queue;         /* in a list of unanswered ones */
    ngx_pgq_pool_t          *db;
    ngx_msec_t               start;
    ngx_msec_t               timeout;
} ngx_pgq_waiting_t;


typedef void (*ngx_pgq_ticket_expired_pt)(ngx_pgq_waiting_t *w);


/* what waits in a worker for a pool of POSTs: the data of its source */

typedef struct {
    /* of ticket.c */
    ngx_queue_t              unanswered;
    ngx_queue_t              waiting;       /* oldest first */
    ngx_uint_t               messages;      /* unanswered ones */

    /* of batch.c */
    ngx_queue_t              again;         /* batches to send again */
    ngx_queue_t              sent;          /* batches on their way */
    ngx_uint_t               committed;     /* batches so far */

    /* of trial.c */
    ngx_uint_t               failures;      /* of batches, in a row */
    ngx_msec_t               failing;       /* since when */
    ngx_msec_t               next_trial;
    time_t                   logged;        /* the last failure */

    /* of outcome.c */
    size_t                   unread;        /* of answers being sent */
} ngx_pgq_writes_t;


#define ngx_pgq_writes(db)  ((ngx_pgq_writes_t *) (db)->data)


typedef void (*ngx_pgq_ticket_answer_pt)(ngx_pgq_ticket_t *t,
    ngx_pgq_outcome_e outcome, ngx_str_t *problem);


struct ngx_pgq_ticket_s {
    ngx_pgq_waiting_t        base;
    ngx_queue_t              queue;         /* in waiting, or in a batch */
    ngx_pgq_batch_t         *batch;         /* NULL while waiting */
    ngx_uint_t               mates;         /* size of its batch, or 0 */
    u_char                   id[NGX_PGQ_UUID_LEN];  /* the first one's */
    ngx_str_t                key;           /* len 0: none */
    ngx_uint_t               n;             /* messages */
    size_t                   len;           /* of them all */
    u_char                  *message;       /* lives as long as the ticket */

    /*
     * For many messages, all or none of which are to be queued: writes them
     * as the items of an array, each time they are sent.
     */
    ngx_int_t              (*write)(ngx_pgq_ticket_t *t, u_char *p);

    /*
     * Called once, unless the ticket was left.  On NGX_PGQ_DONE and
     * NGX_PGQ_REPLAYED, whose problem is the former id as text, the ticket is
     * the caller's again; otherwise the room keeps and frees it.
     */
    ngx_pgq_ticket_answer_pt  answer;
    void                    *data;

    /* of batch_io.c: what the database says of it, when it is committed */
    ngx_pgq_outcome_e        verdict;
    ngx_uint_t               ordinal;       /* of the message to blame */
    u_char                   sqlstate[NGX_PGQ_SQLSTATE_LEN];
    ngx_str_t                problem;
};


#define ngx_pgq_ticket_wait(t)  (ngx_current_msec - (t)->base.start)


void ngx_pgq_ticket_hold(ngx_pgq_waiting_t *w, ngx_queue_t *unanswered,
    size_t len);
void ngx_pgq_ticket_release(ngx_pgq_waiting_t *w, size_t len);
ngx_msec_int_t ngx_pgq_ticket_expire(ngx_queue_t *unanswered,
    ngx_pgq_ticket_expired_pt expired);

ngx_uint_t ngx_pgq_ticket_full(ngx_pgq_pool_t *db, ngx_uint_t n,
    size_t len);
void ngx_pgq_ticket_add(ngx_pgq_ticket_t *t);
void ngx_pgq_ticket_leave(ngx_pgq_ticket_t *t);
void ngx_pgq_ticket_answer(ngx_pgq_ticket_t *t, ngx_pgq_outcome_e outcome,
    ngx_str_t *problem);
void ngx_pgq_ticket_free(ngx_queue_t *tickets);


#endif /* NGX_PGQ_TICKET_H */
