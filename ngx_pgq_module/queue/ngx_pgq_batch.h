/* SPDX-License-Identifier: PostgreSQL */

/*
 * A batch.  ngx_pgq_batch.c owns it; ngx_pgq_batch_io.c, ngx_pgq_gather.c,
 * ngx_pgq_trial.c and ngx_pgq_resend.c are parts of it.
 */

#ifndef NGX_PGQ_BATCH_H
#define NGX_PGQ_BATCH_H


#include "ngx_pgq_ticket.h"


struct ngx_pgq_batch_s {
    ngx_queue_t              queue;     /* in writes->sent or writes->again */
    ngx_queue_t              tickets;
    ngx_uint_t               n;         /* tickets */
    ngx_uint_t               keys;      /* tickets with a key */
    ngx_uint_t               messages;
    size_t                   size;      /* bytes of the messages */
    size_t                   keys_size; /* bytes of the keys */
    ngx_uint_t               topics;    /* tickets with a topic */
    size_t                   topics_size;   /* bytes of the topics */
    ngx_msec_t               sent_at;   /* when it was last sent */
    time_t                   first_sent;    /* first send with this id */
    ngx_msec_t               due;       /* when it may be sent again */
    ngx_uint_t               resends;
    ngx_pgq_pool_t          *db;
    ngx_pool_t              *memory;
    ngx_pgq_call_t           call;
    u_char                  *params;
    ngx_str_t                error_text;    /* why the batch was refused */
    u_char                   sqlstate[NGX_PGQ_SQLSTATE_LEN];
    u_char                   id[NGX_PGQ_UUID_LEN];
    unsigned                 sent:1;        /* in flight */
    unsigned                 repeated:1;    /* this id was sent before */
    unsigned                 unknown:1;     /* may have been committed */
    unsigned                 fencing:1;     /* its next call is fence() */
    unsigned                 fenced:1;      /* fence() has returned true */
    unsigned                 bad:1;         /* its only message is refused */

    /* used by ngx_pgq_trial.c */
    ngx_uint_t               failures;
    ngx_msec_t               failing_since; /* first transient failure */
    ngx_uint_t               alone_failures;    /* while it has one message */
    ngx_msec_t               suspect_since; /* when it first failed alone */
    ngx_uint_t               committed;     /* writes->committed at the last
                                               of these failures */
};


ngx_int_t ngx_pgq_batch_init(ngx_pgq_pool_t *db, ngx_pool_t *memory);

ngx_int_t ngx_pgq_batch_io_encode(ngx_pgq_batch_t *batch);
void ngx_pgq_batch_io_free(ngx_pgq_batch_t *batch);
ngx_uint_t ngx_pgq_gather(ngx_pgq_pool_t *db);
void ngx_pgq_gather_committed(ngx_pgq_batch_t *batch);
ngx_uint_t ngx_pgq_trial_failed(ngx_pgq_batch_t *batch);
ngx_uint_t ngx_pgq_trial_again(ngx_pgq_batch_t *batch);
ngx_uint_t ngx_pgq_trial_ready(ngx_pgq_pool_t *db);
ngx_uint_t ngx_pgq_trial_ready_suspect(ngx_pgq_pool_t *db);
void ngx_pgq_trial_halved(ngx_pgq_batch_t *batch, ngx_pgq_batch_t *other);
void ngx_pgq_resend(ngx_pgq_batch_t *batch);
ngx_pgq_batch_t *ngx_pgq_resend_next(ngx_pgq_pool_t *db);
ngx_uint_t ngx_pgq_resend_is_old(ngx_pgq_batch_t *batch);
time_t ngx_pgq_resend_clock(void);
void ngx_pgq_batch_io_result(ngx_pgq_batch_t *batch, ngx_str_t *fields);


#endif /* NGX_PGQ_BATCH_H */
