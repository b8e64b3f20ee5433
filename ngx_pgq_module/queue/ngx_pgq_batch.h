/* SPDX-License-Identifier: PostgreSQL */

/*
 * A batch, for the rooms that know it from inside: batch.c, which owns it,
 * batch_io.c, which writes it for the database and reads what the database
 * says of its messages, trial.c and resend.c.
 */

#ifndef NGX_PGQ_BATCH_H
#define NGX_PGQ_BATCH_H


#include "ngx_pgq_ticket.h"


struct ngx_pgq_batch_s {
    ngx_queue_t              queue;     /* in writes->sent or writes->again */
    ngx_queue_t              tickets;
    ngx_uint_t               n;         /* tickets */
    ngx_uint_t               keys;      /* of them with a key */
    ngx_uint_t               messages;
    size_t                   size;      /* of the messages */
    size_t                   keys_size;
    ngx_msec_t               start;     /* of the last time it was sent */
    time_t                   first;     /* when it was sent under this id */
    ngx_msec_t               due;       /* in writes->again: not before this */
    ngx_uint_t               resends;
    ngx_pgq_pool_t          *db;
    ngx_pool_t              *memory;
    ngx_pgq_call_t           call;
    u_char                  *params;
    ngx_str_t                problem;   /* why it was refused as a whole */
    u_char                   sqlstate[NGX_PGQ_SQLSTATE_LEN];  /* of that */
    ngx_uint_t               failures;  /* see trial.c */
    ngx_msec_t               failing;   /* since when, for the moment */
    ngx_uint_t               alone;     /* those of one message that count */
    ngx_msec_t               suspected; /* when the first of these was */
    ngx_uint_t               committed; /* writes->committed at the last one */
    u_char                   id[NGX_PGQ_UUID_LEN];
    unsigned                 sent:1;
    unsigned                 again:1;   /* was sent before */
    unsigned                 unknown:1; /* may have been committed */
    unsigned                 fencing:1; /* is to be made sure not to be */
    unsigned                 fenced:1;  /* the server's answer to that */
    unsigned                 blamed:1;  /* its one message is to be refused */
};


ngx_int_t ngx_pgq_batch_init(ngx_pgq_pool_t *db, ngx_pool_t *memory);

ngx_int_t ngx_pgq_batch_io_encode(ngx_pgq_batch_t *batch);
void ngx_pgq_batch_io_free(ngx_pgq_batch_t *batch);
ngx_uint_t ngx_pgq_trial_failed(ngx_pgq_batch_t *batch);
ngx_uint_t ngx_pgq_trial_again(ngx_pgq_batch_t *batch);
ngx_uint_t ngx_pgq_trial_ready(ngx_pgq_pool_t *db);
ngx_uint_t ngx_pgq_trial_ready_suspect(ngx_pgq_pool_t *db);
void ngx_pgq_trial_halved(ngx_pgq_batch_t *batch, ngx_pgq_batch_t *other);
void ngx_pgq_resend(ngx_pgq_batch_t *batch);
ngx_pgq_batch_t *ngx_pgq_resend_next(ngx_pgq_pool_t *db);
ngx_uint_t ngx_pgq_resend_old(ngx_pgq_batch_t *batch);
time_t ngx_pgq_resend_clock(void);
void ngx_pgq_batch_io_verdict(ngx_pgq_batch_t *batch, ngx_str_t *fields);


#endif /* NGX_PGQ_BATCH_H */
