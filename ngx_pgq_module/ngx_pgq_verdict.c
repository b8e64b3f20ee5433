/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "verdict" understands what ngx_pgq.enqueue() and its siblings say
 * of a single message: its ordinal, an SQLSTATE, and what is wrong in words.
 * Messages of which nothing is said are in the queue, once it is committed.
 * A verdict counts with that commit only: a batch that is sent again gets
 * them anew, and must be what it was.
 *
 * Called by batch.c, for each row that comes.
 */

#include "ngx_pgq_batch.h"


/* of idempotency keys; anything else is a refusal */

typedef struct {
    const char              *sqlstate;
    ngx_pgq_outcome_e        outcome;
} ngx_pgq_verdict_key_t;


static ngx_pgq_verdict_key_t  ngx_pgq_verdict_keys[] = {
    { "PQ200", NGX_PGQ_REPLAYED },      /* its words are the former id */
    { "PQ409", NGX_PGQ_IN_FLIGHT },
    { "PQ422", NGX_PGQ_REUSED },
    { "PQ503", NGX_PGQ_KEYS_FULL },
    { NULL, NGX_PGQ_REFUSED }
};


static void ngx_pgq_verdict_ticket(ngx_pgq_batch_t *batch,
    ngx_pgq_ticket_t *t, ngx_str_t *sqlstate, ngx_str_t *problem);


/*
 * The ordinal is that of a ticket; or, where a ticket with many messages is
 * alone, that of a message, or 0 for them all.
 */

void
ngx_pgq_verdict(ngx_pgq_batch_t *batch, ngx_str_t *fields)
{
    ngx_int_t          ordinal;
    ngx_queue_t       *q;
    ngx_pgq_ticket_t  *t;

    ordinal = ngx_atoi(fields[0].data, fields[0].len);

    for (q = ngx_queue_head(&batch->tickets);
         q != ngx_queue_sentinel(&batch->tickets);
         q = ngx_queue_next(q))
    {
        t = ngx_queue_data(q, ngx_pgq_ticket_t, queue);

        if (t->write) {
            t->ordinal = ordinal > 0 ? ordinal : 0;

        } else if (--ordinal) {
            continue;
        }

        ngx_pgq_verdict_ticket(batch, t, &fields[1], &fields[2]);
        return;
    }
}


static void
ngx_pgq_verdict_ticket(ngx_pgq_batch_t *batch, ngx_pgq_ticket_t *t,
    ngx_str_t *sqlstate, ngx_str_t *problem)
{
    ngx_uint_t              i;
    ngx_pgq_verdict_key_t  *v;

    t->verdict = NGX_PGQ_REFUSED;

    for (i = 0; ngx_pgq_verdict_keys[i].sqlstate; i++) {
        v = &ngx_pgq_verdict_keys[i];

        if (sqlstate->len == NGX_PGQ_SQLSTATE_LEN
            && ngx_memcmp(sqlstate->data, v->sqlstate, NGX_PGQ_SQLSTATE_LEN)
               == 0)
        {
            t->verdict = v->outcome;
        }
    }

    ngx_memset(t->sqlstate, '0', NGX_PGQ_SQLSTATE_LEN);

    if (sqlstate->len == NGX_PGQ_SQLSTATE_LEN) {
        ngx_memcpy(t->sqlstate, sqlstate->data, NGX_PGQ_SQLSTATE_LEN);
    }

    t->problem.data = ngx_pstrdup(batch->memory, problem);
    t->problem.len = t->problem.data ? problem->len : 0;
}
