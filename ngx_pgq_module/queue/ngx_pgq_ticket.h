/* SPDX-License-Identifier: PostgreSQL */

/*
 * Requests that wait for the database: the tickets of POSTs, and the base that
 * they share with the fetches of GETs.
 */

#ifndef NGX_PGQ_TICKET_H
#define NGX_PGQ_TICKET_H


#include "ngx_pgq_pool.h"


/* the base, and first member, of a ticket and of a fetch */

typedef struct {
    ngx_queue_t              queue;         /* in the list unanswered */
    ngx_pgq_pool_t          *db;
    ngx_msec_t               start;
    ngx_msec_t               timeout;
} ngx_pgq_waiting_t;


typedef void (*ngx_pgq_ticket_expired_pt)(ngx_pgq_waiting_t *w);


/* the data of the source of a pool of POSTs, in each worker */

typedef struct {
    /* used by ngx_pgq_ticket.c */
    ngx_queue_t              unanswered;
    ngx_queue_t              waiting;       /* in no batch, oldest first */
    ngx_uint_t               messages;      /* in all unanswered tickets */

    /* used by ngx_pgq_batch.c */
    ngx_queue_t              again;         /* batches to send again */
    ngx_queue_t              sent;          /* batches in flight */
    ngx_uint_t               committed;     /* number of committed batches */

    /* used by ngx_pgq_gather.c */
    ngx_uint_t               usual;         /* tickets of a batch, times 8 */
    ngx_msec_t               took;          /* ms of a batch, times 8 */
    ngx_uint_t               turns;         /* for which tickets waited */
    ngx_uint_t               gathered;      /* requests at the last one */
    ngx_uint_t               full;          /* the last batch left tickets */

    /* used by ngx_pgq_trial.c */
    ngx_uint_t               failures;      /* failed batches in a row */
    ngx_msec_t               failing_since; /* time of the first of these */
    ngx_msec_t               next_trial;    /* time of the next batch */
    time_t                   logged_at;     /* time of the last log line */

    /* used by http/ */
    size_t                   unread;        /* bytes of answers being sent */
} ngx_pgq_writes_t;


#define ngx_pgq_writes(db)  ((ngx_pgq_writes_t *) (db)->data)


typedef void (*ngx_pgq_ticket_answer_pt)(ngx_pgq_ticket_t *t,
    ngx_pgq_outcome_e outcome, ngx_str_t *error_text);


struct ngx_pgq_ticket_s {
    ngx_pgq_waiting_t        base;
    ngx_queue_t              queue;         /* in waiting, or in a batch */
    ngx_pgq_batch_t         *batch;         /* NULL while waiting */
    ngx_uint_t               batch_messages;    /* in its batch; 0: not sent */
    u_char                   id[NGX_PGQ_UUID_LEN];  /* of the first message */
    ngx_str_t                key;           /* len 0: none */
    ngx_str_t                topic;         /* len 0: none */
    ngx_uint_t               n;             /* messages */
    size_t                   len;           /* bytes of all messages */
    u_char                  *message;       /* freed after the ticket */

    /*
     * Writes many messages, which are queued all or none, as the items of an
     * array, each time they are sent.  NULL: the ticket has one message.
     */
    ngx_int_t              (*write)(ngx_pgq_ticket_t *t, u_char *p);

    /*
     * Called once, unless the client has left.  On NGX_PGQ_DONE and
     * NGX_PGQ_REPLAYED the owner of data frees the ticket.  For
     * NGX_PGQ_REPLAYED error_text is the id of the first request, as text.
     */
    ngx_pgq_ticket_answer_pt  answer;
    void                    *data;

    /* set by ngx_pgq_batch_io.c, valid if the batch is committed */
    ngx_pgq_outcome_e        result;
    ngx_uint_t               ordinal;       /* position of the bad message */
    u_char                   sqlstate[NGX_PGQ_SQLSTATE_LEN];
    ngx_str_t                error_text;
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
    ngx_str_t *error_text);
void ngx_pgq_ticket_free(ngx_queue_t *tickets);


#endif /* NGX_PGQ_TICKET_H */
