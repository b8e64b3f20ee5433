/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "batch" owns the batches that tickets travel in.  A batch has a
 * memory pool of its own.
 *
 * A source of calls to pool.c; calls ticket.c.
 *
 * Invariants:
 *  - a batch is in exactly one place: pool->sent, while a lane has its call,
 *    or pool->again;
 *  - a batch keeps its id and its tickets until its outcome is known, so that
 *    the database can tell that it has seen it; tickets that were answered
 *    or left in the meantime do not travel again;
 *  - a message the database refuses takes no other with it: a batch that is
 *    refused as a whole is halved, under new ids, until the message stands
 *    alone.
 */

#include "ngx_pgq_module.h"
#include "ngx_pgq_array.h"
#include "ngx_pgq_uuid.h"


struct ngx_pgq_batch_s {
    ngx_queue_t              queue;     /* in pool->sent or pool->again */
    ngx_queue_t              tickets;
    ngx_uint_t               n;
    size_t                   size;
    ngx_msec_t               start;     /* of the last time it was sent */
    ngx_pgq_pool_t          *pool;
    ngx_pool_t              *memory;
    ngx_pgq_call_t           call;
    u_char                  *params;
    u_char                   id[NGX_PGQ_UUID_LEN];
    unsigned                 sent:1;
    unsigned                 again:1;   /* was sent before */
    unsigned                 unknown:1; /* may have been committed */
};


static ngx_pgq_call_t *ngx_pgq_batch_next(ngx_pgq_pool_t *pool);
static ngx_msec_int_t ngx_pgq_batch_expire(ngx_pgq_pool_t *pool,
    ngx_msec_t now);
static void ngx_pgq_batch_clear(ngx_pgq_pool_t *pool);
static ngx_pgq_batch_t *ngx_pgq_batch_create(ngx_pgq_pool_t *pool);
static void ngx_pgq_batch_put(ngx_pgq_batch_t *batch, ngx_pgq_ticket_t *t);
static void ngx_pgq_batch_free(ngx_pgq_batch_t *batch);
static ngx_int_t ngx_pgq_batch_encode(ngx_pgq_call_t *call);
static void ngx_pgq_batch_row(ngx_pgq_call_t *call, ngx_str_t *fields);
static void ngx_pgq_batch_done(ngx_pgq_call_t *call,
    ngx_pgq_outcome_e outcome);
static void ngx_pgq_batch_answer(ngx_pgq_batch_t *batch,
    ngx_pgq_outcome_e outcome, ngx_str_t *problem);
static void ngx_pgq_batch_halve(ngx_pgq_batch_t *batch);
static void ngx_pgq_batch_drop_left(ngx_pgq_batch_t *batch);


static ngx_pgq_source_t  ngx_pgq_batch_source = {
    ngx_pgq_batch_next,
    ngx_pgq_batch_expire,
    ngx_pgq_batch_clear
};


void
ngx_pgq_batch_init(ngx_pgq_pool_t *pool)
{
    ngx_queue_init(&pool->waiting);
    ngx_queue_init(&pool->again);
    ngx_queue_init(&pool->sent);

    ngx_pgq_pool_source(pool, &ngx_pgq_batch_source);
}


static ngx_pgq_call_t *
ngx_pgq_batch_next(ngx_pgq_pool_t *pool)
{
    ngx_queue_t       *q;
    ngx_pgq_batch_t   *batch;
    ngx_pgq_ticket_t  *t;

    while (!ngx_queue_empty(&pool->again)) {
        q = ngx_queue_head(&pool->again);
        batch = ngx_queue_data(q, ngx_pgq_batch_t, queue);

        ngx_pgq_batch_drop_left(batch);

        ngx_queue_remove(q);

        if (batch->n == 0) {
            ngx_pgq_batch_free(batch);
            continue;
        }

        ngx_queue_insert_tail(&pool->sent, &batch->queue);
        return &batch->call;
    }

    if (ngx_queue_empty(&pool->waiting)) {
        return NULL;
    }

    batch = ngx_pgq_batch_create(pool);
    if (batch == NULL) {
        return NULL;
    }

    while (!ngx_queue_empty(&pool->waiting)
           && batch->n < pool->batch_tickets)
    {
        q = ngx_queue_head(&pool->waiting);
        t = ngx_queue_data(q, ngx_pgq_ticket_t, queue);

        if (batch->n && batch->size + t->len > pool->batch_size) {
            break;
        }

        ngx_queue_remove(q);
        ngx_pgq_batch_put(batch, t);

        ngx_pgq_metrics_observe(NGX_PGQ_METRICS_WAIT_SECONDS,
                                ngx_pgq_ticket_wait(t));
    }

    ngx_queue_insert_tail(&pool->sent, &batch->queue);

    return &batch->call;
}


static ngx_msec_int_t
ngx_pgq_batch_expire(ngx_pgq_pool_t *pool, ngx_msec_t now)
{
    ngx_queue_t      *q, *lists[2];
    ngx_uint_t        i;
    ngx_msec_int_t    next, wait;
    ngx_pgq_batch_t  *batch;

    next = ngx_pgq_ticket_expire(&pool->waiting, now, NGX_PGQ_AGAIN);

    lists[0] = &pool->again;
    lists[1] = &pool->sent;

    for (i = 0; i < 2; i++) {
        for (q = ngx_queue_head(lists[i]);
             q != ngx_queue_sentinel(lists[i]);
             q = ngx_queue_next(q))
        {
            batch = ngx_queue_data(q, ngx_pgq_batch_t, queue);

            wait = ngx_pgq_ticket_expire(&batch->tickets, now,
                                         batch->sent || batch->unknown
                                         ? NGX_PGQ_UNKNOWN : NGX_PGQ_AGAIN);

            if (wait >= 0 && (next < 0 || wait < next)) {
                next = wait;
            }
        }
    }

    return next;
}


static ngx_pgq_batch_t *
ngx_pgq_batch_create(ngx_pgq_pool_t *pool)
{
    ngx_pool_t       *memory;
    ngx_pgq_batch_t  *batch;

    memory = ngx_create_pool(1024, pool->log);
    if (memory == NULL) {
        return NULL;
    }

    batch = ngx_pcalloc(memory, sizeof(ngx_pgq_batch_t));
    if (batch == NULL) {
        ngx_destroy_pool(memory);
        return NULL;
    }

    batch->pool = pool;
    batch->memory = memory;
    ngx_queue_init(&batch->tickets);
    ngx_pgq_uuid_v7(batch->id, ngx_pgq_now());

    batch->call.statement = NGX_PGQ_ENQUEUE;
    batch->call.encode = ngx_pgq_batch_encode;
    batch->call.row = ngx_pgq_batch_row;
    batch->call.done = ngx_pgq_batch_done;
    batch->call.data = batch;

    return batch;
}


static void
ngx_pgq_batch_put(ngx_pgq_batch_t *batch, ngx_pgq_ticket_t *t)
{
    t->batch = batch;
    ngx_queue_insert_tail(&batch->tickets, &t->queue);

    batch->n++;
    batch->size += t->len;
}


static void
ngx_pgq_batch_free(ngx_pgq_batch_t *batch)
{
    ngx_pgq_ticket_free(&batch->tickets);
    ngx_destroy_pool(batch->memory);
}


static void
ngx_pgq_batch_clear(ngx_pgq_pool_t *pool)
{
    ngx_uint_t    i;
    ngx_queue_t  *q, *lists[2];

    lists[0] = &pool->again;
    lists[1] = &pool->sent;

    for (i = 0; i < 2; i++) {
        while (!ngx_queue_empty(lists[i])) {
            q = ngx_queue_head(lists[i]);
            ngx_queue_remove(q);
            ngx_pgq_batch_free(ngx_queue_data(q, ngx_pgq_batch_t, queue));
        }
    }

    ngx_pgq_ticket_free(&pool->waiting);
}


/* tickets that were answered, or left, do not travel again */

static void
ngx_pgq_batch_drop_left(ngx_pgq_batch_t *batch)
{
    ngx_queue_t       *q, *next;
    ngx_pgq_ticket_t  *t;

    for (q = ngx_queue_head(&batch->tickets);
         q != ngx_queue_sentinel(&batch->tickets);
         q = next)
    {
        next = ngx_queue_next(q);
        t = ngx_queue_data(q, ngx_pgq_ticket_t, queue);

        if (t->answer == NULL) {
            ngx_queue_remove(q);
            batch->n--;
            batch->size -= t->len;
            ngx_free(t);
        }
    }
}


static ngx_int_t
ngx_pgq_batch_encode(ngx_pgq_call_t *call)
{
    u_char            *p, *ids, *messages;
    size_t             ids_len, messages_len;
    ngx_queue_t       *q;
    ngx_pgq_batch_t   *batch;
    ngx_pgq_ticket_t  *t;

    batch = call->data;

    ids_len = ngx_pgq_array_len(batch->n, batch->n * NGX_PGQ_UUID_LEN);
    messages_len = ngx_pgq_array_len(batch->n, batch->size);

    if (batch->params) {
        ngx_pfree(batch->memory, batch->params);
    }

    p = ngx_pnalloc(batch->memory, ids_len + messages_len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    batch->params = p;

    ids = ngx_pgq_array_head(p, NGX_PGQ_OID_UUID, batch->n);
    messages = ngx_pgq_array_head(p + ids_len, NGX_PGQ_OID_TEXT, batch->n);

    for (q = ngx_queue_head(&batch->tickets);
         q != ngx_queue_sentinel(&batch->tickets);
         q = ngx_queue_next(q))
    {
        t = ngx_queue_data(q, ngx_pgq_ticket_t, queue);
        t->mates = batch->n;
        ids = ngx_pgq_array_item(ids, t->id, NGX_PGQ_UUID_LEN);
        messages = ngx_pgq_array_item(messages, t->message, t->len);
    }

    call->values[0] = (char *) batch->id;
    call->lengths[0] = NGX_PGQ_UUID_LEN;
    call->values[1] = (char *) p;
    call->lengths[1] = (int) ids_len;
    call->values[2] = (char *) p + ids_len;
    call->lengths[2] = (int) messages_len;

    ngx_pgq_metrics_sent(batch->n, batch->again);

    batch->again = 1;
    batch->sent = 1;
    batch->start = ngx_current_msec;

    return NGX_OK;
}


/* a verdict: ordinal, SQLSTATE, and what is wrong in words */

static void
ngx_pgq_batch_row(ngx_pgq_call_t *call, ngx_str_t *fields)
{
    ngx_int_t          ordinal;
    ngx_queue_t       *q;
    ngx_pgq_batch_t   *batch;
    ngx_pgq_ticket_t  *t;

    batch = call->data;
    ordinal = ngx_atoi(fields[0].data, fields[0].len);

    for (q = ngx_queue_head(&batch->tickets);
         q != ngx_queue_sentinel(&batch->tickets);
         q = ngx_queue_next(q))
    {
        if (--ordinal) {
            continue;
        }

        t = ngx_queue_data(q, ngx_pgq_ticket_t, queue);

        t->problem.data = ngx_pstrdup(batch->memory, &fields[2]);
        t->problem.len = t->problem.data ? fields[2].len : 0;
        t->refused = 1;
        return;
    }
}


static void
ngx_pgq_batch_done(ngx_pgq_call_t *call, ngx_pgq_outcome_e outcome)
{
    ngx_pgq_batch_t  *batch;

    batch = call->data;

    ngx_queue_remove(&batch->queue);

    if (batch->sent) {
        batch->sent = 0;
        ngx_pgq_metrics_observe(NGX_PGQ_METRICS_BATCH_SECONDS,
                                ngx_current_msec - batch->start);
    }

    switch (outcome) {

    case NGX_PGQ_DONE:
        ngx_pgq_batch_answer(batch, NGX_PGQ_DONE, NULL);
        return;

    case NGX_PGQ_REFUSED:
        ngx_pgq_batch_drop_left(batch);

        if (batch->n > 1) {
            ngx_pgq_batch_halve(batch);
            return;
        }

        ngx_pgq_batch_answer(batch, NGX_PGQ_REFUSED, &call->problem);
        return;

    case NGX_PGQ_UNKNOWN:
        batch->unknown = 1;
        ngx_pgq_metrics_count(NGX_PGQ_METRICS_UNKNOWN);
        break;

    default: /* NGX_PGQ_AGAIN */
        break;
    }

    ngx_queue_insert_tail(&batch->pool->again, &batch->queue);
    ngx_pgq_pool_wake(batch->pool);
}


static void
ngx_pgq_batch_answer(ngx_pgq_batch_t *batch, ngx_pgq_outcome_e outcome,
    ngx_str_t *problem)
{
    ngx_queue_t       *q;
    ngx_pgq_ticket_t  *t;

    while (!ngx_queue_empty(&batch->tickets)) {
        q = ngx_queue_head(&batch->tickets);
        ngx_queue_remove(q);

        t = ngx_queue_data(q, ngx_pgq_ticket_t, queue);
        t->batch = NULL;

        if (t->answer == NULL) {
            ngx_free(t);

        } else if (t->refused) {
            ngx_pgq_ticket_answer(t, NGX_PGQ_REFUSED, &t->problem);

        } else {
            ngx_pgq_ticket_answer(t, outcome, problem);
        }
    }

    ngx_pgq_batch_free(batch);
}


static void
ngx_pgq_batch_halve(ngx_pgq_batch_t *batch)
{
    ngx_uint_t         i, half;
    ngx_queue_t       *q;
    ngx_pgq_batch_t   *other;
    ngx_pgq_ticket_t  *t;

    other = ngx_pgq_batch_create(batch->pool);

    ngx_queue_insert_head(&batch->pool->again, &batch->queue);
    ngx_pgq_pool_wake(batch->pool);

    if (other == NULL) {
        return;
    }

    half = batch->n / 2;

    for (i = 0; i < half; i++) {
        q = ngx_queue_head(&batch->tickets);
        ngx_queue_remove(q);

        t = ngx_queue_data(q, ngx_pgq_ticket_t, queue);
        batch->n--;
        batch->size -= t->len;

        ngx_pgq_batch_put(other, t);
    }

    /* what stays is another batch now */

    ngx_pgq_uuid_v7(batch->id, ngx_pgq_now());
    batch->unknown = 0;
    batch->again = 0;

    ngx_queue_insert_head(&batch->pool->again, &other->queue);
}
