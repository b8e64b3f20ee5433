/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file owns the batches, each in its own memory pool, and is the source
 * of the calls of a pool of POSTs.
 *
 * Invariants:
 *  - a batch is in exactly one list: writes->sent while a lane has its call,
 *    or writes->again;
 *  - a batch keeps its id until its outcome is known, so that the database can
 *    recognise it.  Answered tickets are not sent again;
 *  - a bad message does not cause others to be refused: a refused batch is
 *    halved, with new ids, until the message is alone.  If the error does not
 *    tell the cause, ngx_pgq_trial.c decides;
 *  - a batch whose outcome was unknown is fenced before it is refused: only
 *    its last attempt was refused, and an earlier one may be committed, even
 *    later.  fence() returns whether the batch is not committed, and ensures
 *    that it never will be;
 *  - a batch that was first sent more than NGX_PGQ_MAX_TIMEOUT ago is neither
 *    sent nor fenced: the database keeps its id for ten minutes only.  Timers
 *    end its tickets before that, but they stop while the host is suspended;
 *    the clock of ngx_pgq_resend.c does not.
 */

#include "ngx_pgq_batch.h"
#include "ngx_pgq_uuid.h"


/* limit of the keys in a batch: each key is a lock in the server */

#define NGX_PGQ_BATCH_KEYS  64


static ngx_pgq_call_t *ngx_pgq_batch_next(ngx_pgq_pool_t *db);
static ngx_msec_int_t ngx_pgq_batch_expire(ngx_pgq_pool_t *db);
static void ngx_pgq_batch_expired(ngx_pgq_waiting_t *w);
static void ngx_pgq_batch_clear(ngx_pgq_pool_t *db);
static ngx_pgq_batch_t *ngx_pgq_batch_create(ngx_pgq_pool_t *db);
static ngx_uint_t ngx_pgq_batch_fits(ngx_pgq_batch_t *batch,
    ngx_pgq_ticket_t *t);
static void ngx_pgq_batch_put(ngx_pgq_batch_t *batch, ngx_pgq_ticket_t *t);
static void ngx_pgq_batch_remove(ngx_pgq_batch_t *batch,
    ngx_pgq_ticket_t *t);
static void ngx_pgq_batch_free(ngx_pgq_batch_t *batch);
static ngx_int_t ngx_pgq_batch_encode(ngx_pgq_call_t *call);
static void ngx_pgq_batch_row(ngx_pgq_call_t *call, ngx_str_t *fields);
static void ngx_pgq_batch_done(ngx_pgq_call_t *call,
    ngx_pgq_outcome_e outcome);
static void ngx_pgq_batch_fenced(ngx_pgq_batch_t *batch,
    ngx_pgq_outcome_e outcome);
static void ngx_pgq_batch_refused(ngx_pgq_batch_t *batch);
static void ngx_pgq_batch_answer(ngx_pgq_batch_t *batch,
    ngx_pgq_outcome_e outcome, ngx_str_t *error_text);
static void ngx_pgq_batch_halve(ngx_pgq_batch_t *batch);
static void ngx_pgq_batch_drop_answered(ngx_pgq_batch_t *batch);


static ngx_pgq_source_t  ngx_pgq_batch_source = {
    ngx_pgq_batch_next,
    ngx_pgq_batch_expire,
    ngx_pgq_batch_clear,
    NULL
};


ngx_int_t
ngx_pgq_batch_init(ngx_pgq_pool_t *db, ngx_pool_t *memory)
{
    ngx_pgq_writes_t  *writes;

    writes = ngx_pcalloc(memory, sizeof(ngx_pgq_writes_t));
    if (writes == NULL) {
        return NGX_ERROR;
    }

    ngx_queue_init(&writes->unanswered);
    ngx_queue_init(&writes->waiting);
    ngx_queue_init(&writes->again);
    ngx_queue_init(&writes->sent);

    db->source = &ngx_pgq_batch_source;
    db->data = writes;

    return NGX_OK;
}


static ngx_pgq_call_t *
ngx_pgq_batch_next(ngx_pgq_pool_t *db)
{
    ngx_queue_t       *q;
    ngx_pgq_batch_t   *batch;
    ngx_pgq_ticket_t  *t;
    ngx_pgq_writes_t  *writes;

    writes = ngx_pgq_writes(db);

    if (!ngx_pgq_trial_ready(db)) {
        return NULL;
    }

    while ((batch = ngx_pgq_resend_next(db)) != NULL) {

        ngx_pgq_batch_drop_answered(batch);

        if (batch->n == 0) {
            ngx_pgq_batch_free(batch);
            continue;
        }

        if (ngx_pgq_resend_is_old(batch)) {
            ngx_pgq_batch_answer(batch, NGX_PGQ_UNKNOWN, NULL);
            continue;
        }

        ngx_queue_insert_tail(&writes->sent, &batch->queue);
        return &batch->call;
    }

    if (ngx_queue_empty(&writes->waiting) || ngx_pgq_gather(db)) {
        return NULL;
    }

    batch = ngx_pgq_batch_create(db);
    if (batch == NULL) {
        return NULL;
    }

    while (!ngx_queue_empty(&writes->waiting)
           && batch->n < db->batch_tickets)
    {
        q = ngx_queue_head(&writes->waiting);
        t = ngx_queue_data(q, ngx_pgq_ticket_t, queue);

        if (batch->n && !ngx_pgq_batch_fits(batch, t)) {
            break;
        }

        ngx_queue_remove(q);
        ngx_pgq_batch_put(batch, t);

        ngx_pgq_metrics_observe(NGX_PGQ_METRICS_WAIT_SECONDS,
                                ngx_pgq_ticket_wait(t));
    }

    writes->full = !ngx_queue_empty(&writes->waiting);
    writes->turns = 0;
    writes->gathered = 0;

    ngx_queue_insert_tail(&writes->sent, &batch->queue);

    return &batch->call;
}


static ngx_msec_int_t
ngx_pgq_batch_expire(ngx_pgq_pool_t *db)
{
    ngx_queue_t       *q;
    ngx_msec_int_t     next, pause;
    ngx_pgq_batch_t   *batch;
    ngx_pgq_writes_t  *writes;

    writes = ngx_pgq_writes(db);
    next = ngx_pgq_ticket_expire(&writes->unanswered, ngx_pgq_batch_expired);

    for (q = ngx_queue_head(&writes->again);
         q != ngx_queue_sentinel(&writes->again);
         /* void */ )
    {
        batch = ngx_queue_data(q, ngx_pgq_batch_t, queue);
        q = ngx_queue_next(q);

        /* the batch may wait long: free their memory now */

        ngx_pgq_batch_drop_answered(batch);

        if (batch->n == 0) {
            ngx_queue_remove(&batch->queue);
            ngx_pgq_batch_free(batch);
            continue;
        }

        pause = (ngx_msec_int_t) (batch->due - ngx_current_msec);

        if (pause > 0) {
            next = ngx_pgq_sooner(next, pause);
        }
    }

    return next;
}


static void
ngx_pgq_batch_expired(ngx_pgq_waiting_t *w)
{
    ngx_pgq_batch_t   *batch;
    ngx_pgq_ticket_t  *t;

    t = (ngx_pgq_ticket_t *) w;
    batch = t->batch;

    if (batch == NULL) {
        ngx_queue_remove(&t->queue);
    }

    ngx_pgq_ticket_answer(t, batch && (batch->sent || batch->unknown)
                             ? NGX_PGQ_UNKNOWN : NGX_PGQ_AGAIN, NULL);
}


static ngx_pgq_batch_t *
ngx_pgq_batch_create(ngx_pgq_pool_t *db)
{
    ngx_pool_t       *memory;
    ngx_pgq_batch_t  *batch;

    memory = ngx_create_pool(1024, db->lane.log);
    if (memory == NULL) {
        return NULL;
    }

    batch = ngx_pcalloc(memory, sizeof(ngx_pgq_batch_t));
    if (batch == NULL) {
        ngx_destroy_pool(memory);
        return NULL;
    }

    batch->db = db;
    batch->memory = memory;
    batch->due = ngx_current_msec;
    ngx_queue_init(&batch->tickets);
    ngx_pgq_uuid_v7(batch->id, ngx_pgq_now());

    batch->call.statement = NGX_PGQ_ENQUEUE;
    batch->call.encode = ngx_pgq_batch_encode;
    batch->call.row = ngx_pgq_batch_row;
    batch->call.done = ngx_pgq_batch_done;
    batch->call.data = batch;

    return batch;
}


static ngx_uint_t
ngx_pgq_batch_fits(ngx_pgq_batch_t *batch, ngx_pgq_ticket_t *t)
{
    ngx_pgq_ticket_t  *first;

    first = ngx_queue_data(ngx_queue_head(&batch->tickets), ngx_pgq_ticket_t,
                           queue);

    return first->write == NULL && t->write == NULL
           && batch->size + t->len <= batch->db->batch_size
           && (t->key.len == 0 || batch->keys < NGX_PGQ_BATCH_KEYS);
}


static void
ngx_pgq_batch_put(ngx_pgq_batch_t *batch, ngx_pgq_ticket_t *t)
{
    t->batch = batch;
    ngx_queue_insert_tail(&batch->tickets, &t->queue);

    batch->n++;
    batch->messages += t->n;
    batch->size += t->len;
    batch->keys += t->key.len > 0;
    batch->keys_size += t->key.len;
    batch->topics += t->topic.len > 0;
    batch->topics_size += t->topic.len;
}


static void
ngx_pgq_batch_remove(ngx_pgq_batch_t *batch, ngx_pgq_ticket_t *t)
{
    ngx_queue_remove(&t->queue);

    batch->n--;
    batch->messages -= t->n;
    batch->size -= t->len;
    batch->keys -= t->key.len > 0;
    batch->keys_size -= t->key.len;
    batch->topics -= t->topic.len > 0;
    batch->topics_size -= t->topic.len;
}


static void
ngx_pgq_batch_free(ngx_pgq_batch_t *batch)
{
    ngx_pgq_ticket_free(&batch->tickets);
    ngx_destroy_pool(batch->memory);
}


static void
ngx_pgq_batch_clear(ngx_pgq_pool_t *db)
{
    ngx_queue_t       *q;
    ngx_pgq_writes_t  *writes;

    writes = ngx_pgq_writes(db);

    ngx_queue_add(&writes->again, &writes->sent);

    while (!ngx_queue_empty(&writes->again)) {
        q = ngx_queue_head(&writes->again);
        ngx_queue_remove(q);
        ngx_pgq_batch_free(ngx_queue_data(q, ngx_pgq_batch_t, queue));
    }

    ngx_pgq_ticket_free(&writes->waiting);
}


/* removes tickets that were answered or whose client has left */

static void
ngx_pgq_batch_drop_answered(ngx_pgq_batch_t *batch)
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
            ngx_pgq_batch_remove(batch, t);
            ngx_free(t);
        }
    }
}


static ngx_int_t
ngx_pgq_batch_encode(ngx_pgq_call_t *call)
{
    ngx_queue_t       *q;
    ngx_pgq_batch_t   *batch;
    ngx_pgq_ticket_t  *t;

    batch = call->data;

    if (ngx_pgq_batch_io_encode(batch) != NGX_OK) {
        return NGX_ERROR;
    }

    if (batch->fencing) {
        return NGX_OK;
    }

    for (q = ngx_queue_head(&batch->tickets);
         q != ngx_queue_sentinel(&batch->tickets);
         q = ngx_queue_next(q))
    {
        t = ngx_queue_data(q, ngx_pgq_ticket_t, queue);
        t->batch_messages = batch->messages;
        t->result = NGX_PGQ_DONE;
        t->ordinal = 0;
    }

    ngx_pgq_metrics_sent(batch->messages, batch->repeated);

    if (!batch->repeated) {
        batch->first_sent = ngx_pgq_resend_clock();
    }

    batch->repeated = 1;
    batch->sent = 1;
    batch->sent_at = ngx_current_msec;

    return NGX_OK;
}


static void
ngx_pgq_batch_row(ngx_pgq_call_t *call, ngx_str_t *fields)
{
    ngx_pgq_batch_t  *batch;

    batch = call->data;

    if (fields[0].data == NULL) {
        /* ngx_pgq_call.c adds a row of nulls as the last row */
        return;
    }

    if (batch->fencing) {
        batch->fenced = fields[0].len == 1 && fields[0].data[0] == 't';
        return;
    }

    ngx_pgq_batch_io_result(batch, fields);
}


static void
ngx_pgq_batch_done(ngx_pgq_call_t *call, ngx_pgq_outcome_e outcome)
{
    ngx_pgq_batch_t   *batch;
    ngx_pgq_writes_t  *writes;

    batch = call->data;

    ngx_queue_remove(&batch->queue);

    if (batch->sent) {
        batch->sent = 0;
        ngx_pgq_metrics_observe(NGX_PGQ_METRICS_BATCH_SECONDS,
                                ngx_current_msec - batch->sent_at);
    }

    if (outcome == NGX_PGQ_UNKNOWN) {
        batch->unknown = 1;
        ngx_pgq_metrics_add(NGX_PGQ_METRICS_UNKNOWN, 1);
    }

    if (outcome == NGX_PGQ_UNKNOWN
        || (outcome == NGX_PGQ_AGAIN
            && (batch->fencing || !ngx_pgq_trial_again(batch)))
        || (outcome == NGX_PGQ_FAILED
            && (batch->fencing || !ngx_pgq_trial_failed(batch))))
    {
        ngx_pgq_batch_io_free(batch);
        ngx_pgq_resend(batch);
        return;
    }

    if (batch->fencing) {
        ngx_pgq_batch_fenced(batch, outcome);
        return;
    }

    if (outcome == NGX_PGQ_DONE) {
        writes = ngx_pgq_writes(batch->db);
        writes->committed++;
        writes->failures = 0;
        ngx_pgq_gather_committed(batch);
        ngx_pgq_batch_answer(batch, NGX_PGQ_DONE, NULL);
        return;
    }

    if (outcome == NGX_PGQ_REFUSED) {
        batch->bad = batch->n == 1;
    }

    if (outcome != NGX_PGQ_AGAIN) {
        /* empty if the call could not be sent */
        batch->error_text.data = ngx_pstrdup(batch->memory, &call->error_text);
        batch->error_text.len = batch->error_text.data
                                ? call->error_text.len : 0;
        ngx_memcpy(batch->sqlstate, call->sqlstate, NGX_PGQ_SQLSTATE_LEN);
    }

    if (batch->unknown) {
        batch->fencing = 1;
        ngx_queue_insert_head(&ngx_pgq_writes(batch->db)->again,
                              &batch->queue);
        ngx_pgq_pool_wake(batch->db);
        return;
    }

    ngx_pgq_batch_refused(batch);
}


static void
ngx_pgq_batch_fenced(ngx_pgq_batch_t *batch, ngx_pgq_outcome_e outcome)
{
    batch->fencing = 0;

    if (outcome == NGX_PGQ_REFUSED) {
        /* fence() failed, and would fail again */
        ngx_pgq_batch_answer(batch, NGX_PGQ_UNKNOWN, NULL);
        return;
    }

    if (batch->fenced) {
        batch->unknown = 0;
        ngx_pgq_batch_refused(batch);
        return;
    }

    /* an earlier attempt was committed: sent again, it returns its results */

    ngx_pgq_resend(batch);
}


/* called when it is known that the batch is not committed */

static void
ngx_pgq_batch_refused(ngx_pgq_batch_t *batch)
{
    ngx_pgq_batch_drop_answered(batch);

    if (batch->n && batch->bad) {
        ngx_pgq_batch_answer(batch, NGX_PGQ_REFUSED, &batch->error_text);
        return;
    }

    ngx_pgq_uuid_v7(batch->id, ngx_pgq_now());
    batch->repeated = 0;
    batch->resends = 0;
    batch->due = ngx_current_msec;

    ngx_queue_insert_head(&ngx_pgq_writes(batch->db)->again, &batch->queue);
    ngx_pgq_pool_wake(batch->db);

    if (batch->n > 1) {
        ngx_pgq_batch_halve(batch);
    }
}


static void
ngx_pgq_batch_answer(ngx_pgq_batch_t *batch, ngx_pgq_outcome_e outcome,
    ngx_str_t *error_text)
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

        } else if (outcome == NGX_PGQ_DONE) {
            ngx_pgq_ticket_answer(t, t->result, &t->error_text);

        } else {
            ngx_memcpy(t->sqlstate, batch->sqlstate, NGX_PGQ_SQLSTATE_LEN);
            ngx_pgq_ticket_answer(t, outcome, error_text);
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

    other = ngx_pgq_batch_create(batch->db);
    if (other == NULL) {
        return;
    }

    ngx_pgq_trial_halved(batch, other);
    half = batch->n / 2;

    for (i = 0; i < half; i++) {
        q = ngx_queue_head(&batch->tickets);
        t = ngx_queue_data(q, ngx_pgq_ticket_t, queue);

        ngx_pgq_batch_remove(batch, t);
        ngx_pgq_batch_put(other, t);
    }

    ngx_queue_insert_head(&ngx_pgq_writes(batch->db)->again, &other->queue);
}
