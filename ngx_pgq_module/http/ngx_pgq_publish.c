/* SPDX-License-Identifier: PostgreSQL */

/*
 * Posts that a client sends over its WebSocket.  A message is
 *
 *   {"post":<JSON>,"topic":"…","key":"…","ref":<number or string>}
 *
 * where all members but post can be left out.  Its answer is
 * {"ref":…,"id":"…"} when the post is committed, or
 * {"ref":…,"error":"…","status":…,"detail":"…"}.
 *
 * Invariants:
 *  - the bytes of the post reach the database unchanged;
 *  - each message gets one answer, unless the connection ends before;
 *  - a ticket is in the list of its connection until it is answered; if the
 *    connection ends before, its ticket goes on as that of a POST does;
 *  - messages without an answer, and answers that the client has not read, are
 *    limited: above the limit nothing more is read from the connection;
 *  - the memory of the request does not grow.
 */

#include "ngx_pgq_publish.h"
#include "ngx_pgq_enqueue.h"
#include "ngx_pgq_json.h"
#include "ngx_pgq_websocket.h"


#define NGX_PGQ_PUBLISH_ANSWER   2560    /* bytes of an answer */


typedef struct {
    ngx_pgq_ticket_t         ticket;        /* the first field */
    ngx_pgq_publish_t       *publish;
    ngx_queue_t              queue;         /* in publish->tickets */
    ngx_str_t                ref;
    u_char                   data[1];       /* its texts */
} ngx_pgq_publish_ticket_t;


typedef struct {
    ngx_queue_t              queue;         /* in publish->answers */
    size_t                   len;
    u_char                   data[1];       /* a frame */
} ngx_pgq_publish_answer_t;


static ngx_int_t ngx_pgq_publish_append(ngx_pgq_publish_t *p, u_char *data,
    size_t len);
static void ngx_pgq_publish_forget(ngx_pgq_publish_t *p);
static void ngx_pgq_publish_message(ngx_pgq_publish_t *p, u_char *data,
    size_t len);
static ngx_int_t ngx_pgq_publish_add(ngx_pgq_publish_t *p,
    ngx_pgq_publish_message_t *m, ngx_pgq_problem_t *problem);
static u_char *ngx_pgq_publish_copy(ngx_str_t *copy, u_char *p,
    ngx_str_t *text);
static void ngx_pgq_publish_outcome(ngx_pgq_ticket_t *t,
    ngx_pgq_outcome_e outcome, ngx_str_t *error_text);
static void ngx_pgq_publish_problem(ngx_pgq_publish_t *p, ngx_str_t *ref,
    ngx_pgq_problem_t *problem);
static u_char *ngx_pgq_publish_begin(u_char *dst, ngx_str_t *ref);
static void ngx_pgq_publish_answer(ngx_pgq_publish_t *p, u_char *text,
    size_t len);
static void ngx_pgq_publish_cleanup(void *data);


/* bytes of all partial messages of the worker */

static size_t  ngx_pgq_publish_partials;


/* what the posts need of the request is evaluated once */

ngx_int_t
ngx_pgq_publish_create(ngx_pgq_reader_t *rd, size_t max,
    ngx_pgq_publish_t **out, ngx_pgq_problem_t *problem)
{
    ngx_int_t            rc;
    ngx_str_t            all = ngx_null_string;
    ngx_pool_cleanup_t  *cln;
    ngx_pgq_publish_t   *p;
    ngx_pgq_loc_conf_t  *plcf;

    *out = NULL;
    plcf = ngx_http_get_module_loc_conf(rd->request, ngx_http_pgq_module);

    if (!plcf->stream_post) {
        return NGX_OK;
    }

    cln = ngx_pool_cleanup_add(rd->request->pool, sizeof(ngx_pgq_publish_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    p = cln->data;
    ngx_memzero(p, sizeof(ngx_pgq_publish_t));

    cln->handler = ngx_pgq_publish_cleanup;

    p->reader = rd;
    p->max = max;
    ngx_queue_init(&p->tickets);
    ngx_queue_init(&p->answers);

    *out = p;

    rc = ngx_pgq_filter_read(rd->request, &all, &p->rights, problem);

    if (rc == NGX_OK && plcf->idempotency != NGX_PGQ_IDEMPOTENCY_OFF) {
        rc = ngx_pgq_message_scope(rd->request, &p->scope, problem);
    }

    return rc;
}


/* a message that comes in one piece is not copied */

ngx_int_t
ngx_pgq_publish_piece(ngx_pgq_publish_t *p, u_char *data, size_t len,
    ngx_uint_t last)
{
    if (last && p->partial == NULL) {
        ngx_pgq_publish_message(p, data, len);
        return NGX_OK;
    }

    if (ngx_pgq_publish_append(p, data, len) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (last) {
        ngx_pgq_publish_message(p, p->partial, p->partial_len);
        ngx_pgq_publish_forget(p);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_pgq_publish_append(ngx_pgq_publish_t *p, u_char *data, size_t len)
{
    u_char              *partial;
    size_t               size;
    ngx_pgq_loc_conf_t  *plcf;

    if (len == 0) {
        return NGX_OK;
    }

    if (p->partial_len + len > p->partial_size) {
        plcf = ngx_http_get_module_loc_conf(p->reader->request,
                                            ngx_http_pgq_module);

        size = ngx_min(2 * p->partial_size, p->max);
        size = ngx_max(size, p->partial_len + len);

        if (ngx_pgq_publish_partials + size - p->partial_size
            > plcf->stream->max_size)
        {
            return NGX_DECLINED;
        }

        partial = realloc(p->partial, size);
        if (partial == NULL) {
            return NGX_DECLINED;
        }

        ngx_pgq_publish_partials += size - p->partial_size;

        p->partial = partial;
        p->partial_size = size;
    }

    ngx_memcpy(p->partial + p->partial_len, data, len);
    p->partial_len += len;

    return NGX_OK;
}


static void
ngx_pgq_publish_forget(ngx_pgq_publish_t *p)
{
    ngx_pgq_publish_partials -= p->partial_size;

    ngx_free(p->partial);
    p->partial = NULL;
    p->partial_len = 0;
    p->partial_size = 0;
}


static void
ngx_pgq_publish_message(ngx_pgq_publish_t *p, u_char *data, size_t len)
{
    ngx_int_t                  rc;
    ngx_pgq_problem_t          problem = ngx_pgq_problem_init(0);
    ngx_pgq_publish_message_t  m;

    rc = ngx_pgq_publish_read(p, &m, data, len, &problem);

    if (rc == NGX_OK) {
        rc = ngx_pgq_publish_add(p, &m, &problem);
    }

    if (rc != NGX_OK) {
        ngx_log_error(NGX_LOG_INFO, p->reader->request->connection->log, 0,
                      "pgq publish: refused: %s, %s",
                      ngx_pgq_problems[problem.kind].code,
                      problem.detail ? problem.detail
                                     : ngx_pgq_problems[problem.kind].detail);

        ngx_pgq_publish_problem(p, &m.ref, &problem);
    }
}


static ngx_int_t
ngx_pgq_publish_add(ngx_pgq_publish_t *p, ngx_pgq_publish_message_t *m,
    ngx_pgq_problem_t *problem)
{
    u_char                    *last;
    ngx_pgq_pool_t            *db;
    ngx_pgq_loc_conf_t        *plcf;
    ngx_pgq_publish_ticket_t  *e;

    plcf = ngx_http_get_module_loc_conf(p->reader->request,
                                        ngx_http_pgq_module);
    db = plcf->stream;

    if (ngx_pgq_ticket_full(db, 1, m->post.len)) {
        ngx_pgq_metrics_full(db->lane.metrics);
        problem->kind = NGX_PGQ_PROBLEM_QUEUE_FULL;
        return NGX_DECLINED;
    }

    e = ngx_alloc(offsetof(ngx_pgq_publish_ticket_t, data) + m->post.len
                  + m->topic.len + m->key.len + m->ref.len,
                  p->reader->request->connection->log);
    if (e == NULL) {
        problem->kind = NGX_PGQ_PROBLEM_INTERNAL_ERROR;
        return NGX_DECLINED;
    }

    ngx_memzero(e, offsetof(ngx_pgq_publish_ticket_t, data));

    e->ticket.message = e->data;
    e->ticket.len = m->post.len;
    last = ngx_cpymem(e->data, m->post.data, m->post.len);
    last = ngx_pgq_publish_copy(&e->ticket.topic, last, &m->topic);
    last = ngx_pgq_publish_copy(&e->ticket.key, last, &m->key);
    (void) ngx_pgq_publish_copy(&e->ref, last, &m->ref);

    ngx_pgq_uuid_v7(e->ticket.id, ngx_pgq_now());

    e->ticket.n = 1;
    e->ticket.base.db = db;
    e->ticket.base.timeout = plcf->timeout;
    e->ticket.answer = ngx_pgq_publish_outcome;
    e->ticket.data = e;

    e->publish = p;
    p->n++;
    ngx_queue_insert_tail(&p->tickets, &e->queue);

    ngx_pgq_ticket_add(&e->ticket);

    return NGX_OK;
}


static u_char *
ngx_pgq_publish_copy(ngx_str_t *copy, u_char *p, ngx_str_t *text)
{
    copy->data = p;
    copy->len = text->len;

    return text->len ? ngx_cpymem(p, text->data, text->len) : p;
}


static void
ngx_pgq_publish_outcome(ngx_pgq_ticket_t *t, ngx_pgq_outcome_e outcome,
    ngx_str_t *error_text)
{
    u_char                    *last, text[NGX_PGQ_PUBLISH_ANSWER];
    ngx_pgq_problem_t          problem = ngx_pgq_problem_init(0);
    ngx_pgq_publish_t         *p;
    ngx_pgq_publish_ticket_t  *e;

    e = t->data;
    p = e->publish;

    ngx_queue_remove(&e->queue);
    p->n--;

    if (outcome != NGX_PGQ_DONE && outcome != NGX_PGQ_REPLAYED) {
        ngx_pgq_outcome_problem(p->reader->request, t, outcome, error_text,
                                text, &problem);
        ngx_pgq_publish_problem(p, &e->ref, &problem);
        return;
    }

    last = ngx_pgq_publish_begin(text, &e->ref);
    last = ngx_sprintf(last, "\"id\":\"");

    /* after a replay, the id of the first message */

    last = outcome == NGX_PGQ_REPLAYED ? ngx_sprintf(last, "%V", error_text)
                                       : ngx_pgq_uuid_print(last, t->id);
    last = ngx_sprintf(last, "\"}");

    ngx_pgq_publish_answer(p, text, last - text);
    ngx_free(e);
}


static void
ngx_pgq_publish_problem(ngx_pgq_publish_t *p, ngx_str_t *ref,
    ngx_pgq_problem_t *problem)
{
    u_char      *last, text[NGX_PGQ_PUBLISH_ANSWER];
    const char  *detail;

    const ngx_pgq_problem_row_t  *row;

    row = &ngx_pgq_problems[problem->kind];
    detail = problem->detail ? problem->detail : row->detail;

    ngx_pgq_metrics_reject(problem->kind);

    last = ngx_pgq_publish_begin(text, ref);
    last = ngx_sprintf(last, "\"error\":\"%s\",\"status\":%ui,\"detail\":",
                       row->code, row->status);
    last += ngx_pgq_json_quote(last, (u_char *) detail, ngx_strlen(detail));
    *last++ = '}';

    ngx_pgq_publish_answer(p, text, last - text);
}


static u_char *
ngx_pgq_publish_begin(u_char *dst, ngx_str_t *ref)
{
    *dst++ = '{';

    return ref->len ? ngx_sprintf(dst, "\"ref\":%V,", ref) : dst;
}


/* an answer is sent by the next step of the reader, with others */

static void
ngx_pgq_publish_answer(ngx_pgq_publish_t *p, u_char *text, size_t len)
{
    u_char                    *last;
    ngx_pgq_reader_t          *rd;
    ngx_pgq_publish_answer_t  *answer;

    rd = p->reader;

    if (rd->left) {
        return;
    }

    answer = ngx_alloc(offsetof(ngx_pgq_publish_answer_t, data)
                       + NGX_PGQ_WEBSOCKET_HEADER_MAX + len,
                       rd->request->connection->log);
    if (answer == NULL) {
        ngx_pgq_reader_end_at(rd, ngx_current_msec, NGX_PGQ_READER_ERROR);
        return;
    }

    last = ngx_pgq_websocket_header(answer->data, NGX_PGQ_WEBSOCKET_TEXT, len);
    last = ngx_cpymem(last, text, len);

    answer->len = last - answer->data;
    p->n++;
    ngx_queue_insert_tail(&p->answers, &answer->queue);

    if (!rd->blocked) {
        ngx_pgq_reader_ready(rd);
    }
}


ngx_int_t
ngx_pgq_publish_step(ngx_pgq_publish_t *p)
{
    u_char                    *last, text[2 * NGX_PGQ_PUBLISH_ANSWER];
    ngx_uint_t                 full;
    ngx_queue_t               *q;
    ngx_pgq_publish_answer_t  *answer;

    if (ngx_queue_empty(&p->answers)) {
        return NGX_DECLINED;
    }

    last = text;
    full = ngx_pgq_publish_full(p);

    while (!ngx_queue_empty(&p->answers)) {
        q = ngx_queue_head(&p->answers);
        answer = ngx_queue_data(q, ngx_pgq_publish_answer_t, queue);

        if (last + answer->len > text + sizeof(text)) {
            break;
        }

        last = ngx_cpymem(last, answer->data, answer->len);

        ngx_queue_remove(q);
        ngx_free(answer);
        p->n--;
    }

    /* the client may go on; also the time of a partial message does */

    if (full && !ngx_pgq_publish_full(p)) {
        ngx_post_event(p->reader->request->connection->read,
                       &ngx_posted_events);
    }

    return ngx_pgq_delivery_text(p->reader, text, last);
}


static void
ngx_pgq_publish_cleanup(void *data)
{
    ngx_pgq_publish_t  *p = data;

    ngx_queue_t               *q;
    ngx_pgq_publish_answer_t  *answer;
    ngx_pgq_publish_ticket_t  *e;

    while (!ngx_queue_empty(&p->tickets)) {
        q = ngx_queue_head(&p->tickets);
        e = ngx_queue_data(q, ngx_pgq_publish_ticket_t, queue);

        ngx_queue_remove(q);
        ngx_pgq_ticket_leave(&e->ticket);
    }

    while (!ngx_queue_empty(&p->answers)) {
        q = ngx_queue_head(&p->answers);
        answer = ngx_queue_data(q, ngx_pgq_publish_answer_t, queue);

        ngx_queue_remove(q);
        ngx_free(answer);
    }

    ngx_pgq_publish_forget(p);
}
