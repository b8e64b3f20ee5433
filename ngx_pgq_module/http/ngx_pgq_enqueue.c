/* SPDX-License-Identifier: PostgreSQL */

/*
 * Handles POST: makes a ticket from a request.  outcome.c sends the response
 * when the ticket is answered.  A ticket for one message and the body of its
 * response are one allocation.
 *
 * Invariants:
 *  - a request with a ticket has a cleanup that points at it; the first of
 *    the two to end clears the pointer of the other;
 *  - the ticket is the first field of the allocation: ticket.c may free it;
 *  - a request that its header fields disqualify is refused before its body
 *    is read;
 *  - the limits of the pool are checked before the body is read, and again
 *    afterwards.
 */

#include "ngx_pgq_enqueue.h"
#include "ngx_pgq_ring.h"


static void ngx_pgq_enqueue_body_handler(ngx_http_request_t *r);
static ngx_int_t ngx_pgq_enqueue_message(ngx_http_request_t *r);
static ngx_int_t ngx_pgq_enqueue_one(ngx_http_request_t *r,
    ngx_str_t *message);
static ngx_int_t ngx_pgq_enqueue_messages(ngx_http_request_t *r);
static ngx_int_t ngx_pgq_enqueue_refuse(ngx_http_request_t *r, ngx_int_t rc,
    ngx_pgq_problem_t *problem);
static ngx_pgq_enqueue_t *ngx_pgq_enqueue_create(ngx_http_request_t *r,
    size_t body);
static ngx_int_t ngx_pgq_enqueue_wait(ngx_pgq_enqueue_t *e);
static ngx_int_t ngx_pgq_enqueue_full(ngx_http_request_t *r,
    ngx_pgq_pool_t *db);
static ngx_int_t ngx_pgq_enqueue_write(ngx_pgq_ticket_t *t, u_char *p);
static void ngx_pgq_enqueue_cleanup(void *data);


static ngx_str_t  ngx_pgq_enqueue_accept =
    ngx_string("application/json, text/plain, application/x-ndjson");


ngx_int_t
ngx_pgq_enqueue_handler(ngx_http_request_t *r)
{
    size_t               len;
    ngx_int_t            rc;
    ngx_pgq_ctx_t       *ctx;
    ngx_pgq_problem_t    problem = ngx_pgq_problem_init(NGX_PGQ_PROBLEM_ERROR);
    ngx_pgq_loc_conf_t  *plcf;

    ctx = ngx_pgq_variables_ctx(r, NGX_PGQ_METRICS_POST);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (!ngx_pgq_endpoint_admits(r, &ctx->fields, NGX_HTTP_POST, &rc)) {
        return rc;
    }

    rc = ngx_pgq_message_supported(&ctx->fields, &problem);

    if (rc == NGX_OK) {
        rc = ngx_pgq_message_key(r, &ctx->key, &problem);
    }

    if (rc == NGX_OK) {
        rc = ngx_pgq_filter_topic(r, &ctx->topic, &problem);
    }

    if (rc != NGX_OK) {
        return ngx_pgq_enqueue_refuse(r, rc, &problem);
    }

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    len = r->headers_in.content_length_n > 0
          ? (size_t) r->headers_in.content_length_n : 0;

    if (len > plcf->post->max_size) {
        return ngx_pgq_reply_default(r, NGX_PGQ_PROBLEM_TOO_LARGE);
    }

    if (ngx_pgq_ticket_full(plcf->post, 1, len)) {
        return ngx_pgq_enqueue_full(r, plcf->post);
    }

    return ngx_pgq_endpoint_receive(r,
                                    ctx->fields.form != NGX_PGQ_FORM_NDJSON,
                                    ngx_pgq_enqueue_body_handler);
}


static void
ngx_pgq_enqueue_body_handler(ngx_http_request_t *r)
{
    ngx_pgq_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_pgq_module);

    ngx_http_finalize_request(r, ctx->fields.form == NGX_PGQ_FORM_NDJSON
                                 ? ngx_pgq_enqueue_messages(r)
                                 : ngx_pgq_enqueue_message(r));
}


/*
 * The next functions return the code to finalize the request with.  NGX_DONE
 * means that a ticket waits and holds a reference to the request.
 */

static ngx_int_t
ngx_pgq_enqueue_message(ngx_http_request_t *r)
{
    ngx_int_t           rc;
    ngx_str_t           message;
    ngx_pool_t         *memory;
    ngx_pgq_problem_t   problem = ngx_pgq_problem_init(NGX_PGQ_PROBLEM_ERROR);

    rc = ngx_pgq_message_read(r, &memory, &message, &problem);

    rc = rc == NGX_OK ? ngx_pgq_enqueue_one(r, &message)
                      : ngx_pgq_enqueue_refuse(r, rc, &problem);

    if (memory) {
        ngx_destroy_pool(memory);
    }

    return rc;
}


static ngx_int_t
ngx_pgq_enqueue_one(ngx_http_request_t *r, ngx_str_t *message)
{
    u_char                *p;
    ngx_pgq_ring_t        *ring;
    ngx_pgq_enqueue_t     *e;
    ngx_pgq_ring_state_t   state;

    e = ngx_pgq_enqueue_create(r, NGX_PGQ_ENQUEUE_HEAD_LEN + message->len
                                  + NGX_PGQ_ENQUEUE_TAIL_LEN);
    if (e == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_pgq_uuid_v7(e->ticket.id, ngx_pgq_now());

    p = ngx_cpymem(e->body, NGX_PGQ_ENQUEUE_HEAD,
                   sizeof(NGX_PGQ_ENQUEUE_HEAD) - 1);
    p = ngx_pgq_uuid_print(p, e->ticket.id);
    p = ngx_cpymem(p, NGX_PGQ_ENQUEUE_MIDDLE,
                   sizeof(NGX_PGQ_ENQUEUE_MIDDLE) - 1);

    e->ticket.n = 1;
    e->ticket.len = message->len;
    e->ticket.message = p;

    ngx_memcpy(p, message->data, message->len);

    e->returns = e->ctx->fields.returns;

    ring = e->ticket.base.db->ring;

    if (ring && e->ctx->fields.wait > 0) {
        ngx_pgq_ring_state(ring, &state);

        e->wait = ngx_min(e->ctx->fields.wait, NGX_PGQ_ENQUEUE_WAIT);
        e->place = state.end;
    }

    return ngx_pgq_enqueue_wait(e);
}


static ngx_int_t
ngx_pgq_enqueue_messages(ngx_http_request_t *r)
{
    ngx_int_t           rc;
    ngx_pgq_ndjson_t    ndjson;
    ngx_pgq_enqueue_t  *e;
    ngx_pgq_problem_t   problem = ngx_pgq_problem_init(NGX_PGQ_PROBLEM_ERROR);

    rc = ngx_pgq_ndjson_read(r, &ndjson, &problem);

    if (rc != NGX_OK) {
        return ngx_pgq_enqueue_refuse(r, rc, &problem);
    }

    e = ngx_pgq_enqueue_create(r, 0);
    if (e == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_pgq_uuid_v7_first(e->ticket.id, ngx_pgq_now());

    e->ndjson = ndjson;
    e->ticket.n = ndjson.n;
    e->ticket.len = ndjson.size;
    e->ticket.write = ngx_pgq_enqueue_write;

    return ngx_pgq_enqueue_wait(e);
}


/* rc and problem are from the function that has read the request */

static ngx_int_t
ngx_pgq_enqueue_refuse(ngx_http_request_t *r, ngx_int_t rc,
    ngx_pgq_problem_t *problem)
{
    const ngx_pgq_problem_row_t  *row;

    if (rc != NGX_DECLINED) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    row = &ngx_pgq_problems[problem->kind];

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "pgq enqueue: refused: %s, %s", row->code,
                  problem->detail ? problem->detail : row->detail);

    if (problem->kind == NGX_PGQ_PROBLEM_UNSUPPORTED_TYPE
        && ngx_pgq_reply_header(r, "Accept-Post", &ngx_pgq_enqueue_accept)
           == NULL)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_pgq_reply_problem(r, problem);
}


static ngx_pgq_enqueue_t *
ngx_pgq_enqueue_create(ngx_http_request_t *r, size_t body)
{
    ngx_pgq_enqueue_t   *e;
    ngx_pool_cleanup_t  *cln;
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    e = ngx_alloc(offsetof(ngx_pgq_enqueue_t, body) + body,
                  r->connection->log);
    if (e == NULL) {
        return NULL;
    }

    ngx_memzero(e, offsetof(ngx_pgq_enqueue_t, body));

    e->request = r;
    e->cleanup = cln;
    e->ctx = ngx_http_get_module_ctx(r, ngx_http_pgq_module);
    e->ticket.base.db = plcf->post;
    e->ticket.base.timeout = plcf->timeout;
    e->ticket.key = e->ctx->key;
    e->ticket.topic = e->ctx->topic;
    e->ticket.answer = ngx_pgq_outcome_answer;
    e->ticket.data = e;

    return e;
}


static ngx_int_t
ngx_pgq_enqueue_wait(ngx_pgq_enqueue_t *e)
{
    ngx_pgq_pool_t      *db;
    ngx_http_request_t  *r;

    r = e->request;
    db = e->ticket.base.db;

    /* a retry cannot succeed: therefore not 503 */

    if (e->ticket.n > db->max_tickets || e->ticket.len > db->max_size) {
        ngx_free(e);
        return ngx_pgq_reply_default(r, NGX_PGQ_PROBLEM_TOO_LARGE);
    }

    /* the pool may have filled up while the body arrived */

    if (ngx_pgq_ticket_full(db, e->ticket.n, e->ticket.len)) {
        ngx_free(e);
        return ngx_pgq_enqueue_full(r, db);
    }

    e->ctx->ticket = 1;
    ngx_memcpy(e->ctx->id, e->ticket.id, NGX_PGQ_UUID_LEN);

    e->cleanup->handler = ngx_pgq_enqueue_cleanup;
    e->cleanup->data = e;

    ngx_pgq_endpoint_wait(r);

    ngx_pgq_ticket_add(&e->ticket);

    return NGX_DONE;
}


static ngx_int_t
ngx_pgq_enqueue_full(ngx_http_request_t *r, ngx_pgq_pool_t *db)
{
    ngx_pgq_metrics_full(db->lane.metrics);

    return ngx_pgq_reply_unavailable(r, db, NGX_PGQ_PROBLEM_QUEUE_FULL);
}


static ngx_int_t
ngx_pgq_enqueue_write(ngx_pgq_ticket_t *t, u_char *p)
{
    ngx_pgq_enqueue_t  *e = t->data;

    return ngx_pgq_ndjson_write(&e->ndjson, p);
}


static void
ngx_pgq_enqueue_cleanup(void *data)
{
    ngx_pgq_enqueue_t  *e = data;

    if (e->done) {
        ngx_pgq_writes(e->ticket.base.db)->unread -= e->unread;
        ngx_free(e);

    } else {
        ngx_pgq_ticket_leave(&e->ticket);
    }
}


/* warns of a client_max_body_size that the pool can never hold */

void
ngx_pgq_enqueue_warn_size(ngx_conf_t *cf, ngx_pgq_pool_t *db)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->client_max_body_size == 0
        || clcf->client_max_body_size > (off_t) db->max_size)
    {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"client_max_body_size\" of location \"%V\""
                           " exceeds \"size=\" of pgq_pool \"%V\"",
                           &clcf->name, &db->lane.name);
    }
}


/* the directive pgq_idempotency_scope value | off */

char *
ngx_pgq_enqueue_set_scope(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_pgq_loc_conf_t  *plcf = conf;

    ngx_str_t  *value;

    if (plcf->scoped != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (value[1].len == 3 && ngx_strncmp(value[1].data, "off", 3) == 0) {
        plcf->scoped = 0;
        return NGX_CONF_OK;
    }

    plcf->scoped = 1;

    return ngx_http_set_complex_value_slot(cf, cmd, conf);
}
