/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file owns the tickets from ngx_pgq_ticket_add() to their answer, and
 * expires tickets and fetches.  The endpoint for POST allocates a ticket.
 *
 * Invariants:
 *  - a request is in one list of unanswered requests until it is released;
 *  - a ticket is in exactly one list: writes->waiting, or that of a batch;
 *  - a ticket is answered once, or never if its client leaves before;
 *  - a ticket stays in its batch, also when it is answered or its client
 *    leaves, until the batch ends or is to be sent again;
 *  - a ticket counts, in messages and in bytes, until it is answered or its
 *    client leaves.
 */

#include "ngx_pgq_ticket.h"


static void ngx_pgq_ticket_uncount(ngx_pgq_ticket_t *t);


/* called when a request starts to wait */

void
ngx_pgq_ticket_hold(ngx_pgq_waiting_t *w, ngx_queue_t *unanswered, size_t len)
{
    w->start = ngx_current_msec;

    ngx_queue_insert_tail(unanswered, &w->queue);

    ngx_pgq_pool_hold(w->db, w->start + w->timeout, len);
    ngx_pgq_pool_wake(w->db);
}


/* called when a request is answered or its client has left */

void
ngx_pgq_ticket_release(ngx_pgq_waiting_t *w, size_t len)
{
    ngx_queue_remove(&w->queue);
    ngx_pgq_pool_release(w->db, len);
}


/*
 * Calls expired(), which must release the request, for each request that has
 * waited for its timeout.  Returns the ms until the next one expires, or -1.
 */

ngx_msec_int_t
ngx_pgq_ticket_expire(ngx_queue_t *unanswered,
    ngx_pgq_ticket_expired_pt expired)
{
    ngx_queue_t        *q, *next, late;
    ngx_msec_int_t      wait, least;
    ngx_pgq_waiting_t  *w;

    least = -1;
    ngx_queue_init(&late);

    for (q = ngx_queue_head(unanswered);
         q != ngx_queue_sentinel(unanswered);
         q = next)
    {
        next = ngx_queue_next(q);
        w = ngx_queue_data(q, ngx_pgq_waiting_t, queue);

        wait = (ngx_msec_int_t) (w->start + w->timeout - ngx_current_msec);

        if (wait > 0) {
            least = ngx_pgq_sooner(least, wait);
            continue;
        }

        ngx_queue_remove(q);
        ngx_queue_insert_tail(&late, q);
    }

    /* an answer may close a connection and remove its other requests */

    while (!ngx_queue_empty(&late)) {
        q = ngx_queue_head(&late);
        expired(ngx_queue_data(q, ngx_pgq_waiting_t, queue));
    }

    return least;
}


/* whether n more messages, of len bytes together, exceed the limits */

ngx_uint_t
ngx_pgq_ticket_full(ngx_pgq_pool_t *db, ngx_uint_t n, size_t len)
{
    return ngx_pgq_writes(db)->messages + n > db->max_tickets
           || db->size + len > db->max_size;
}


void
ngx_pgq_ticket_add(ngx_pgq_ticket_t *t)
{
    ngx_pgq_writes_t  *writes;

    writes = ngx_pgq_writes(t->base.db);

    t->batch = NULL;
    writes->messages += t->n;

    ngx_queue_insert_tail(&writes->waiting, &t->queue);

    ngx_pgq_ticket_hold(&t->base, &writes->unanswered, t->len);
}


/*
 * The client has closed its connection.  The message is dropped if it is in no
 * batch; otherwise it may be committed.
 */

void
ngx_pgq_ticket_leave(ngx_pgq_ticket_t *t)
{
    ngx_pgq_ticket_uncount(t);

    if (t->batch == NULL) {
        ngx_queue_remove(&t->queue);
        ngx_free(t);
    }
}


static void
ngx_pgq_ticket_uncount(ngx_pgq_ticket_t *t)
{
    t->answer = NULL;

    ngx_pgq_writes(t->base.db)->messages -= t->n;
    ngx_pgq_ticket_release(&t->base, t->len);
}


void
ngx_pgq_ticket_answer(ngx_pgq_ticket_t *t, ngx_pgq_outcome_e outcome,
    ngx_str_t *error_text)
{
    ngx_pgq_ticket_answer_pt  answer;

    answer = t->answer;
    ngx_pgq_ticket_uncount(t);

    if (outcome == NGX_PGQ_DONE || outcome == NGX_PGQ_REPLAYED) {
        ngx_pgq_pool_answered(t->base.db);
        answer(t, outcome, error_text);
        return;
    }

    answer(t, outcome, error_text);

    if (t->batch == NULL) {
        ngx_free(t);
    }
}


void
ngx_pgq_ticket_free(ngx_queue_t *tickets)
{
    ngx_queue_t  *q;

    while (!ngx_queue_empty(tickets)) {
        q = ngx_queue_head(tickets);
        ngx_queue_remove(q);
        ngx_free(ngx_queue_data(q, ngx_pgq_ticket_t, queue));
    }
}
