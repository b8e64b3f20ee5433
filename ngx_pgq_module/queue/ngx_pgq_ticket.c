/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "ticket" owns the tickets from ngx_pgq_ticket_add() to their
 * answer: how many may wait, how long, and who is told.  A ticket is one
 * allocation of the door's.
 *
 * Invariants:
 *  - a ticket is in exactly one place: writes->waiting, or one batch;
 *  - a ticket is answered once, or left by its client and then never;
 *  - a ticket of a batch stays in it, answered or left, until the batch ends
 *    or is to be sent again;
 *  - a ticket counts, in messages and in bytes, until it is answered or left.
 */

#include "ngx_pgq_ticket.h"


static void ngx_pgq_ticket_release(ngx_pgq_ticket_t *t);


/* whether so many messages, of that length together, are too many for now */

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

    writes = ngx_pgq_writes(t->db);

    t->batch = NULL;
    t->start = ngx_current_msec;
    writes->messages += t->n;

    ngx_queue_insert_tail(&writes->waiting, &t->queue);

    ngx_pgq_pool_hold(t->db, t->start + t->timeout, t->len);
    ngx_pgq_pool_wake(t->db);
}


/*
 * The client has gone.  A message that was not sent is forgotten; one that
 * was will be committed or not, and nobody is told.
 */

void
ngx_pgq_ticket_leave(ngx_pgq_ticket_t *t)
{
    t->answer = NULL;
    ngx_pgq_ticket_release(t);

    if (t->batch == NULL) {
        ngx_queue_remove(&t->queue);
        ngx_free(t);
    }
}


static void
ngx_pgq_ticket_release(ngx_pgq_ticket_t *t)
{
    ngx_pgq_writes(t->db)->messages -= t->n;

    ngx_pgq_pool_release(t->db, t->len);
}


/*
 * Answers those that have waited for too long; ms until the next of them
 * will have, -1 if nobody waits.
 */

ngx_msec_int_t
ngx_pgq_ticket_expire(ngx_queue_t *tickets, ngx_msec_t now,
    ngx_pgq_outcome_e outcome)
{
    ngx_queue_t       *q, *next, expired;
    ngx_msec_int_t     wait, least;
    ngx_pgq_ticket_t  *t;

    least = -1;
    ngx_queue_init(&expired);

    for (q = ngx_queue_head(tickets);
         q != ngx_queue_sentinel(tickets);
         q = next)
    {
        next = ngx_queue_next(q);
        t = ngx_queue_data(q, ngx_pgq_ticket_t, queue);

        if (t->answer == NULL) {
            continue;
        }

        wait = (ngx_msec_int_t) (t->start + t->timeout - now);

        if (wait > 0) {
            least = least < 0 ? wait : ngx_min(least, wait);

        } else if (t->batch) {
            ngx_pgq_ticket_answer(t, outcome, NULL);

        } else {
            ngx_queue_remove(q);
            ngx_queue_insert_tail(&expired, q);
        }
    }

    /* an answer may end a connection, and with it other tickets */

    while (!ngx_queue_empty(&expired)) {
        q = ngx_queue_head(&expired);
        ngx_queue_remove(q);

        ngx_pgq_ticket_answer(ngx_queue_data(q, ngx_pgq_ticket_t, queue),
                              outcome, NULL);
    }

    return least;
}


void
ngx_pgq_ticket_answer(ngx_pgq_ticket_t *t, ngx_pgq_outcome_e outcome,
    ngx_str_t *problem)
{
    ngx_pgq_ticket_answer_pt  answer;

    answer = t->answer;
    t->answer = NULL;
    ngx_pgq_ticket_release(t);

    if (outcome == NGX_PGQ_DONE || outcome == NGX_PGQ_REPLAYED) {
        ngx_pgq_pool_drained(t->db);
        answer(t, outcome, problem);
        return;
    }

    answer(t, outcome, problem);

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
