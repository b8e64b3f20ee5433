/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file chooses the statement of a batch, writes its parameters just
 * before it is sent, and reads the results of its messages.
 *
 * ngx_pgq.enqueue(), enqueue_keyed() and enqueue_all() return a row for each
 * message that they do not accept: its ordinal, an SQLSTATE and an error
 * message.  All results are valid only if the transaction is committed.  A
 * batch that is sent again must be unchanged, and returns the same results.
 *
 * Invariant: a ticket with many messages, which are queued all or none, is
 * alone in its batch.
 */

#include "ngx_pgq_batch.h"
#include "ngx_pgq_array.h"


/* errors of a message with an idempotency key; any other is a refusal */

static const struct {
    const char              *sqlstate;
    ngx_pgq_outcome_e        outcome;
} ngx_pgq_batch_io_results[] = {
    { "PQ200", NGX_PGQ_REPLAYED },      /* the error message is an id */
    { "PQ409", NGX_PGQ_IN_FLIGHT },
    { "PQ422", NGX_PGQ_REUSED },
    { "PQ503", NGX_PGQ_KEYS_FULL },
    { NULL, NGX_PGQ_REFUSED }
};


static ngx_int_t ngx_pgq_batch_io_all(ngx_pgq_batch_t *batch,
    ngx_pgq_ticket_t *t);
static ngx_int_t ngx_pgq_batch_io_tickets(ngx_pgq_batch_t *batch);
static u_char *ngx_pgq_batch_io_array(ngx_pgq_batch_t *batch, ngx_uint_t n,
    u_char **p, uint32_t oid, size_t len);
static u_char *ngx_pgq_batch_io_text(u_char *p, ngx_str_t *text);
static void ngx_pgq_batch_io_param(ngx_pgq_call_t *call, ngx_uint_t n,
    u_char *data, size_t len);
static void ngx_pgq_batch_io_result_ticket(ngx_pgq_batch_t *batch,
    ngx_pgq_ticket_t *t, ngx_str_t *sqlstate, ngx_str_t *error_text);


ngx_int_t
ngx_pgq_batch_io_encode(ngx_pgq_batch_t *batch)
{
    ngx_queue_t       *q;
    ngx_pgq_ticket_t  *t;

    ngx_pgq_batch_io_param(&batch->call, 0, batch->id, NGX_PGQ_UUID_LEN);

    ngx_pgq_batch_io_free(batch);

    if (batch->fencing) {
        batch->call.statement = NGX_PGQ_FENCE;
        return NGX_OK;
    }

    q = ngx_queue_head(&batch->tickets);
    t = ngx_queue_data(q, ngx_pgq_ticket_t, queue);

    return t->write ? ngx_pgq_batch_io_all(batch, t)
                    : ngx_pgq_batch_io_tickets(batch);
}


void
ngx_pgq_batch_io_free(ngx_pgq_batch_t *batch)
{
    if (batch->params) {
        ngx_pfree(batch->memory, batch->params);
        batch->params = NULL;
    }
}


/* encodes a ticket with many messages */

static ngx_int_t
ngx_pgq_batch_io_all(ngx_pgq_batch_t *batch, ngx_pgq_ticket_t *t)
{
    u_char  *p;
    size_t   len;

    len = ngx_pgq_array_len(t->n, t->len);

    p = ngx_pnalloc(batch->memory, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    batch->params = p;
    batch->call.statement = t->topic.len ? NGX_PGQ_ENQUEUE_ALL_TOPIC
                                         : NGX_PGQ_ENQUEUE_ALL;

    ngx_pgq_batch_io_param(&batch->call, 1, t->id, NGX_PGQ_UUID_LEN);
    ngx_pgq_batch_io_param(&batch->call, 2, p, len);
    ngx_pgq_batch_io_param(&batch->call, 3, t->key.len ? t->key.data : NULL,
                           t->key.len);
    ngx_pgq_batch_io_param(&batch->call, 4, t->topic.data, t->topic.len);

    return t->write(t, ngx_pgq_array_head(p, NGX_PGQ_OID_TEXT, t->n));
}


/*
 * The statement for topics has keys too, which may all be null.  A batch
 * without topics does not use it.
 */

static ngx_int_t
ngx_pgq_batch_io_tickets(ngx_pgq_batch_t *batch)
{
    u_char            *p, *ids, *messages, *keys, *topics;
    size_t             ids_len, messages_len, keys_len, topics_len;
    ngx_queue_t       *q;
    ngx_pgq_ticket_t  *t;

    ids_len = ngx_pgq_array_len(batch->n, batch->n * NGX_PGQ_UUID_LEN);
    messages_len = ngx_pgq_array_len(batch->n, batch->size);
    keys_len = batch->keys || batch->topics
               ? ngx_pgq_array_len(batch->n, batch->keys_size) : 0;
    topics_len = batch->topics
                 ? ngx_pgq_array_len(batch->n, batch->topics_size) : 0;

    p = ngx_pnalloc(batch->memory,
                    ids_len + messages_len + keys_len + topics_len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    batch->params = p;
    batch->call.statement = batch->topics ? NGX_PGQ_ENQUEUE_TOPICS
                            : batch->keys ? NGX_PGQ_ENQUEUE_KEYED
                                          : NGX_PGQ_ENQUEUE;

    ids = ngx_pgq_batch_io_array(batch, 1, &p, NGX_PGQ_OID_UUID, ids_len);
    messages = ngx_pgq_batch_io_array(batch, 2, &p, NGX_PGQ_OID_TEXT,
                                      messages_len);
    keys = ngx_pgq_batch_io_array(batch, 3, &p, NGX_PGQ_OID_TEXT, keys_len);
    topics = ngx_pgq_batch_io_array(batch, 4, &p, NGX_PGQ_OID_TEXT,
                                    topics_len);

    for (q = ngx_queue_head(&batch->tickets);
         q != ngx_queue_sentinel(&batch->tickets);
         q = ngx_queue_next(q))
    {
        t = ngx_queue_data(q, ngx_pgq_ticket_t, queue);

        ids = ngx_pgq_array_item(ids, t->id, NGX_PGQ_UUID_LEN);
        messages = ngx_pgq_array_item(messages, t->message, t->len);

        if (keys) {
            keys = ngx_pgq_batch_io_text(keys, &t->key);
        }

        if (topics) {
            topics = ngx_pgq_batch_io_text(topics, &t->topic);
        }
    }

    return NGX_OK;
}


/*
 * Makes the next len bytes an array, the parameter n.  Returns the position of
 * its first item, or NULL if len is 0.
 */

static u_char *
ngx_pgq_batch_io_array(ngx_pgq_batch_t *batch, ngx_uint_t n, u_char **p,
    uint32_t oid, size_t len)
{
    u_char  *array;

    if (len == 0) {
        return NULL;
    }

    array = *p;
    *p += len;

    ngx_pgq_batch_io_param(&batch->call, n, array, len);

    return ngx_pgq_array_head(array, oid, batch->n);
}


static u_char *
ngx_pgq_batch_io_text(u_char *p, ngx_str_t *text)
{
    return text->len ? ngx_pgq_array_item(p, text->data, text->len)
                     : ngx_pgq_array_null(p);
}


static void
ngx_pgq_batch_io_param(ngx_pgq_call_t *call, ngx_uint_t n, u_char *data,
    size_t len)
{
    call->values[n] = (char *) data;
    call->lengths[n] = (int) len;
}


/*
 * The ordinal is the position of a ticket in its batch, or of a message in a
 * ticket with many messages; there 0 stands for all of them.
 */

void
ngx_pgq_batch_io_result(ngx_pgq_batch_t *batch, ngx_str_t *fields)
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

        ngx_pgq_batch_io_result_ticket(batch, t, &fields[1], &fields[2]);
        return;
    }
}


static void
ngx_pgq_batch_io_result_ticket(ngx_pgq_batch_t *batch, ngx_pgq_ticket_t *t,
    ngx_str_t *sqlstate, ngx_str_t *error_text)
{
    ngx_uint_t  i;

    ngx_memset(t->sqlstate, '0', NGX_PGQ_SQLSTATE_LEN);

    if (sqlstate->len == NGX_PGQ_SQLSTATE_LEN) {
        ngx_memcpy(t->sqlstate, sqlstate->data, NGX_PGQ_SQLSTATE_LEN);
    }

    for (i = 0; ngx_pgq_batch_io_results[i].sqlstate; i++) {
        if (ngx_memcmp(t->sqlstate, ngx_pgq_batch_io_results[i].sqlstate,
                       NGX_PGQ_SQLSTATE_LEN)
            == 0)
        {
            break;
        }
    }

    t->result = ngx_pgq_batch_io_results[i].outcome;

    t->error_text.data = ngx_pstrdup(batch->memory, error_text);
    t->error_text.len = t->error_text.data ? error_text->len : 0;
}
