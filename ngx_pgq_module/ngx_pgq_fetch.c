/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "fetch" is the door for GET: the newest posts, as the database
 * writes them.  It owns a small record for each such request, which outlives
 * the request while its call is under way.
 *
 * Called by nginx; a source of calls to pool.c.
 *
 * Invariants:
 *  - a fetch is in pool->fetches while it waits, and in pool->fetching while
 *    its call is under way;
 *  - reading twice does no harm, so that whatever fails is tried again
 *    until the location's pgq_timeout;
 *  - the ETag is made of the body: equal bodies, equal tags.
 */

#include "ngx_pgq_module.h"

#include <ngx_md5.h>


#define NGX_PGQ_FETCH_DEFAULT    100
#define NGX_PGQ_FETCH_MAX        1000


typedef struct {
    ngx_queue_t              queue;
    ngx_pgq_pool_t          *pool;
    ngx_http_request_t      *request;   /* NULL: answered, or left */
    ngx_pool_cleanup_t      *cleanup;
    ngx_pgq_record_t        *record;
    ngx_msec_t               start;
    ngx_msec_t               timeout;
    ngx_pgq_call_t           call;
    ngx_str_t                body;      /* in the request's pool */
    uint32_t                 limit;     /* in network byte order */
    uint64_t                 before;
    unsigned                 sent:1;
} ngx_pgq_fetch_t;


static ngx_int_t ngx_pgq_fetch_arguments(ngx_http_request_t *r,
    ngx_int_t *limit, int64_t *before);
static ngx_int_t ngx_pgq_fetch_start(ngx_http_request_t *r, ngx_int_t limit,
    int64_t before);
static void ngx_pgq_fetch_cleanup(void *data);
static ngx_pgq_call_t *ngx_pgq_fetch_next(ngx_pgq_pool_t *pool);
static ngx_msec_int_t ngx_pgq_fetch_expire(ngx_pgq_pool_t *pool,
    ngx_msec_t now);
static ngx_msec_int_t ngx_pgq_fetch_expire_list(ngx_queue_t *list,
    ngx_msec_t now);
static void ngx_pgq_fetch_clear(ngx_pgq_pool_t *pool);
static ngx_int_t ngx_pgq_fetch_encode(ngx_pgq_call_t *call);
static void ngx_pgq_fetch_row(ngx_pgq_call_t *call, ngx_str_t *fields);
static void ngx_pgq_fetch_done(ngx_pgq_call_t *call,
    ngx_pgq_outcome_e outcome);
static void ngx_pgq_fetch_answer(ngx_pgq_fetch_t *f,
    ngx_pgq_outcome_e outcome);
static ngx_int_t ngx_pgq_fetch_reply(ngx_http_request_t *r, ngx_str_t *body);


static ngx_str_t  ngx_pgq_fetch_allow = ngx_string("GET, HEAD, OPTIONS");
static ngx_str_t  ngx_pgq_fetch_type = ngx_string("application/json");
static ngx_str_t  ngx_pgq_fetch_cache = ngx_string("no-cache");


static ngx_pgq_source_t  ngx_pgq_fetch_source = {
    ngx_pgq_fetch_next,
    ngx_pgq_fetch_expire,
    ngx_pgq_fetch_clear
};


void
ngx_pgq_fetch_init(ngx_pgq_pool_t *pool)
{
    ngx_queue_init(&pool->fetches);
    ngx_queue_init(&pool->fetching);

    ngx_pgq_pool_source(pool, &ngx_pgq_fetch_source);
}


ngx_int_t
ngx_pgq_fetch_handler(ngx_http_request_t *r)
{
    int64_t              before;
    ngx_int_t            rc, limit;
    ngx_pgq_problem_t    problem = { 400, "bad_argument",
                           "limit is a number from 1 to 1000, before the id"
                           " of a post.", -1, 0 };
    ngx_pgq_record_t    *record;
    ngx_pgq_loc_conf_t  *plcf;

    record = ngx_pgq_record(r, NGX_PGQ_METRICS_GET);
    if (record == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_set_ctx(r, record, ngx_http_pgq_module);

    if (ngx_pgq_origin_foreign(r)) {
        return ngx_pgq_origin_refuse(r);
    }

    if (r->method == NGX_HTTP_OPTIONS) {
        return ngx_pgq_reply_options(r, &ngx_pgq_fetch_allow);
    }

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return ngx_pgq_reply_method(r, &ngx_pgq_fetch_allow);
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_pgq_fetch_arguments(r, &limit, &before) != NGX_OK) {
        return ngx_pgq_reply_problem(r, &problem);
    }

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    if (plcf->get->unanswered >= plcf->get->max_tickets) {
        return ngx_pgq_reply_unavailable(r, plcf->get, "queue_full",
                                         "Too many requests wait here.");
    }

    return ngx_pgq_fetch_start(r, limit, before);
}


static ngx_int_t
ngx_pgq_fetch_arguments(ngx_http_request_t *r, ngx_int_t *limit,
    int64_t *before)
{
    off_t      n;
    ngx_str_t  value;

    *limit = NGX_PGQ_FETCH_DEFAULT;
    *before = 0;

    if (ngx_http_arg(r, (u_char *) "limit", 5, &value) == NGX_OK) {
        *limit = ngx_atoi(value.data, value.len);

        if (*limit < 1 || *limit > NGX_PGQ_FETCH_MAX) {
            return NGX_ERROR;
        }
    }

    if (ngx_http_arg(r, (u_char *) "before", 6, &value) == NGX_OK) {
        n = ngx_atoof(value.data, value.len);

        if (n < 1) {
            return NGX_ERROR;
        }

        *before = (int64_t) n;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_pgq_fetch_start(ngx_http_request_t *r, ngx_int_t limit, int64_t before)
{
    ngx_pgq_fetch_t     *f;
    ngx_pool_cleanup_t  *cln;
    ngx_pgq_loc_conf_t  *plcf;

    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    f = ngx_calloc(sizeof(ngx_pgq_fetch_t), r->connection->log);
    if (f == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    f->pool = plcf->get;
    f->request = r;
    f->cleanup = cln;
    f->record = ngx_http_get_module_ctx(r, ngx_http_pgq_module);
    f->start = ngx_current_msec;
    f->timeout = plcf->timeout;
    f->limit = htonl((uint32_t) limit);
    f->before = htobe64((uint64_t) before);

    f->call.statement = NGX_PGQ_RECENT;
    f->call.encode = ngx_pgq_fetch_encode;
    f->call.row = ngx_pgq_fetch_row;
    f->call.done = ngx_pgq_fetch_done;
    f->call.data = f;

    cln->handler = ngx_pgq_fetch_cleanup;
    cln->data = f;

    r->main->count++;
    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    ngx_queue_insert_tail(&f->pool->fetches, &f->queue);
    ngx_pgq_pool_hold(f->pool, f->start + f->timeout);
    ngx_pgq_pool_wake(f->pool);

    return NGX_DONE;
}


/* the client has gone, and does not wait any more */

static void
ngx_pgq_fetch_cleanup(void *data)
{
    ngx_pgq_fetch_t  *f = data;

    f->request = NULL;
    ngx_pgq_pool_release(f->pool);

    if (!f->sent) {
        ngx_queue_remove(&f->queue);
        ngx_free(f);
    }
}


static ngx_pgq_call_t *
ngx_pgq_fetch_next(ngx_pgq_pool_t *pool)
{
    ngx_queue_t      *q;
    ngx_pgq_fetch_t  *f;

    if (ngx_queue_empty(&pool->fetches)) {
        return NULL;
    }

    q = ngx_queue_head(&pool->fetches);
    ngx_queue_remove(q);

    ngx_queue_insert_tail(&pool->fetching, q);

    f = ngx_queue_data(q, ngx_pgq_fetch_t, queue);
    f->sent = 1;

    return &f->call;
}


static ngx_msec_int_t
ngx_pgq_fetch_expire(ngx_pgq_pool_t *pool, ngx_msec_t now)
{
    ngx_msec_int_t  waiting, sent;

    waiting = ngx_pgq_fetch_expire_list(&pool->fetches, now);
    sent = ngx_pgq_fetch_expire_list(&pool->fetching, now);

    return waiting < 0 || (sent >= 0 && sent < waiting) ? sent : waiting;
}


static ngx_msec_int_t
ngx_pgq_fetch_expire_list(ngx_queue_t *list, ngx_msec_t now)
{
    ngx_queue_t      *q, expired;
    ngx_msec_int_t    wait, least;
    ngx_pgq_fetch_t  *f;

    least = -1;
    ngx_queue_init(&expired);

    for (q = ngx_queue_head(list); q != ngx_queue_sentinel(list); /* void */)
    {
        f = ngx_queue_data(q, ngx_pgq_fetch_t, queue);
        q = ngx_queue_next(q);

        if (f->request == NULL) {
            continue;
        }

        wait = (ngx_msec_int_t) (f->start + f->timeout - now);

        if (wait > 0) {
            least = least < 0 ? wait : ngx_min(least, wait);
            continue;
        }

        ngx_queue_remove(&f->queue);
        ngx_queue_insert_tail(&expired, &f->queue);
    }

    /* an answer may end a connection, and with it other requests */

    while (!ngx_queue_empty(&expired)) {
        q = ngx_queue_head(&expired);
        f = ngx_queue_data(q, ngx_pgq_fetch_t, queue);
        ngx_queue_remove(q);

        if (f->sent) {
            ngx_queue_insert_tail(list, q);
        }

        if (f->request) {
            ngx_pgq_fetch_answer(f, NGX_PGQ_AGAIN);
        }
    }

    return least;
}


static void
ngx_pgq_fetch_clear(ngx_pgq_pool_t *pool)
{
    ngx_uint_t    i;
    ngx_queue_t  *q, *lists[2];

    lists[0] = &pool->fetches;
    lists[1] = &pool->fetching;

    for (i = 0; i < 2; i++) {
        while (!ngx_queue_empty(lists[i])) {
            q = ngx_queue_head(lists[i]);
            ngx_queue_remove(q);
            ngx_free(ngx_queue_data(q, ngx_pgq_fetch_t, queue));
        }
    }
}


static ngx_int_t
ngx_pgq_fetch_encode(ngx_pgq_call_t *call)
{
    ngx_pgq_fetch_t  *f;

    f = call->data;

    call->values[0] = (char *) &f->limit;
    call->lengths[0] = sizeof(f->limit);
    call->values[1] = f->before ? (char *) &f->before : NULL;
    call->lengths[1] = sizeof(f->before);

    return NGX_OK;
}


static void
ngx_pgq_fetch_row(ngx_pgq_call_t *call, ngx_str_t *fields)
{
    ngx_pgq_fetch_t  *f;

    f = call->data;

    if (f->request == NULL) {
        return;
    }

    f->body.data = ngx_pnalloc(f->request->pool, fields[0].len);

    if (f->body.data) {
        ngx_memcpy(f->body.data, fields[0].data, fields[0].len);
        f->body.len = fields[0].len;
    }
}


static void
ngx_pgq_fetch_done(ngx_pgq_call_t *call, ngx_pgq_outcome_e outcome)
{
    ngx_pgq_fetch_t  *f;

    f = call->data;
    f->sent = 0;
    ngx_queue_remove(&f->queue);

    if (f->request == NULL) {
        ngx_free(f);
        return;
    }

    if ((outcome == NGX_PGQ_AGAIN || outcome == NGX_PGQ_UNKNOWN)
        && ngx_current_msec - f->start < f->timeout)
    {
        f->body.data = NULL;
        ngx_queue_insert_head(&f->pool->fetches, &f->queue);
        ngx_pgq_pool_wake(f->pool);
        return;
    }

    ngx_pgq_fetch_answer(f, outcome);
}


/* one whose call is under way stays, without its client, until that ends */

static void
ngx_pgq_fetch_answer(ngx_pgq_fetch_t *f, ngx_pgq_outcome_e outcome)
{
    ngx_int_t            rc;
    ngx_str_t            body;
    ngx_msec_t           wait;
    ngx_pgq_pool_t      *pool;
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = f->request;
    c = r->connection;
    pool = f->pool;
    body = f->body;

    wait = ngx_current_msec - f->start;

    f->record->answered = 1;
    f->record->wait = wait;

    f->cleanup->handler = NULL;
    f->request = NULL;
    ngx_pgq_pool_release(pool);

    if (!f->sent) {
        ngx_free(f);
    }

    if (outcome == NGX_PGQ_DONE) {
        ngx_pgq_pool_drained(pool);
        rc = ngx_pgq_fetch_reply(r, &body);

    } else if (outcome == NGX_PGQ_REFUSED) {
        rc = NGX_HTTP_INTERNAL_SERVER_ERROR;

    } else {
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "pgq fetch: no database in %M ms", wait);

        rc = ngx_pgq_reply_unavailable(r, pool, "no_database",
                                       "No database answered in time.");
    }

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


/* the not-modified filter answers 304 when it knows the tag */

static ngx_int_t
ngx_pgq_fetch_reply(ngx_http_request_t *r, ngx_str_t *body)
{
    u_char      digest[16], *tag;
    ngx_md5_t   md5;
    ngx_str_t   value;

    if (body->data == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_md5_init(&md5);
    ngx_md5_update(&md5, body->data, body->len);
    ngx_md5_final(digest, &md5);

    tag = ngx_pnalloc(r->pool, 2 * sizeof(digest) + 2);
    if (tag == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    tag[0] = '"';
    *ngx_hex_dump(tag + 1, digest, sizeof(digest)) = '"';

    value.data = tag;
    value.len = 2 * sizeof(digest) + 2;

    r->headers_out.etag = ngx_pgq_reply_header(r, "ETag", &value);

    if (r->headers_out.etag == NULL
        || ngx_pgq_reply_header(r, "Cache-Control", &ngx_pgq_fetch_cache)
           == NULL)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_pgq_reply_body(r, NGX_HTTP_OK, &ngx_pgq_fetch_type,
                              body->data, body->len);
}
