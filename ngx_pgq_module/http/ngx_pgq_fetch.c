/* SPDX-License-Identifier: PostgreSQL */

/*
 * Handles GET: sends the newest posts, or those after an id.  A request that
 * the ring cannot answer has a fetch in its memory pool.
 *
 * Invariant: a request waits while its fetch belongs to a read; the cleanup of
 * the request removes the fetch from the read.
 */

#include "ngx_pgq_http.h"
#include "ngx_pgq_read.h"
#include "ngx_pgq_ring.h"


#define NGX_PGQ_FETCH_DEFAULT    100
#define NGX_PGQ_FETCH_MAX        1000


typedef struct {
    ngx_pgq_fetch_t          fetch;
    ngx_http_request_t      *request;
    ngx_pool_cleanup_t      *cleanup;
    ngx_pgq_ctx_t           *ctx;
} ngx_pgq_fetch_request_t;


typedef struct {
    ngx_pgq_problem_e        kind;
    const char              *text;      /* for the log; NULL: logged before */
} ngx_pgq_fetch_problem_t;


static ngx_int_t ngx_pgq_fetch_arguments(ngx_http_request_t *r,
    ngx_pgq_read_query_t *query, ngx_pgq_problem_t *problem);
static ngx_int_t ngx_pgq_fetch_ring(ngx_http_request_t *r,
    ngx_pgq_read_query_t *query, ngx_pgq_filter_t *filter);
static ngx_int_t ngx_pgq_fetch_start(ngx_http_request_t *r,
    ngx_pgq_read_query_t *query);
static void ngx_pgq_fetch_cleanup(void *data);
static void ngx_pgq_fetch_done(ngx_pgq_fetch_t *f,
    ngx_pgq_read_result_e result, ngx_pgq_answer_t *answer);
static ngx_int_t ngx_pgq_fetch_reply(ngx_http_request_t *r,
    ngx_pgq_answer_t *answer, ngx_str_t *status);
static ngx_int_t ngx_pgq_fetch_headers(ngx_http_request_t *r,
    ngx_pgq_answer_t *answer, ngx_str_t *status);
static ngx_int_t ngx_pgq_fetch_cache_control(ngx_http_request_t *r,
    ngx_pgq_answer_t *answer);
static ngx_uint_t ngx_pgq_fetch_final(ngx_pgq_answer_t *answer);
static ngx_uint_t ngx_pgq_fetch_public(ngx_pgq_loc_conf_t *plcf);


static ngx_str_t  ngx_pgq_fetch_type = ngx_string("application/json");

/* readers with different rights share no cache */

static ngx_str_t  ngx_pgq_fetch_cache = ngx_string("no-cache");
static ngx_str_t  ngx_pgq_fetch_private = ngx_string("private, no-cache");

/* Cache-Status (RFC 9211), of pools that have a ring */

static ngx_str_t  ngx_pgq_fetch_hit = ngx_string("pgq; hit");
static ngx_str_t  ngx_pgq_fetch_miss = ngx_string("pgq; fwd=miss");


/* indexed by ngx_pgq_read_result_e */

static ngx_pgq_fetch_problem_t  ngx_pgq_fetch_problems[] = {
    { NGX_PGQ_PROBLEM_ERROR, NULL },
    { NGX_PGQ_PROBLEM_NO_DATABASE, "no database" },
    { NGX_PGQ_PROBLEM_READ_TIMEOUT, "no answer" },
    { NGX_PGQ_PROBLEM_READ_FAILED, NULL },
    { NGX_PGQ_PROBLEM_UNAVAILABLE, NULL },
    { NGX_PGQ_PROBLEM_READ_FAILED, NULL }
};


ngx_int_t
ngx_pgq_fetch_handler(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_pgq_ctx_t        *ctx;
    ngx_pgq_pool_t       *db;
    ngx_pgq_loc_conf_t   *plcf;
    ngx_pgq_filter_t     *filter;
    ngx_pgq_read_query_t  query;
    ngx_pgq_problem_t     problem =
        ngx_pgq_problem_init(NGX_PGQ_PROBLEM_BAD_ARGUMENT);

    ctx = ngx_pgq_variables_ctx(r, NGX_PGQ_METRICS_GET);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (!ngx_pgq_endpoint_admits(r, &ctx->fields, NGX_HTTP_GET|NGX_HTTP_HEAD,
                               &rc))
    {
        return rc;
    }

    ngx_memzero(&query, sizeof(ngx_pgq_read_query_t));

    rc = ngx_pgq_fetch_arguments(r, &query, &problem);

    if (rc == NGX_OK) {
        rc = ngx_pgq_fetch_filter(r, &filter, &query.topics, &query.pattern,
                                  &problem);
    }

    if (rc != NGX_OK) {
        return rc == NGX_DECLINED ? ngx_pgq_reply_problem(r, &problem)
                                  : NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    db = plcf->get->reads;
    query.size = db->answer_size;

    if (db->size >= db->unread_size) {
        return ngx_pgq_reply_unavailable(r, db, NGX_PGQ_PROBLEM_READS_FULL);
    }

    if (plcf->get->ring) {
        rc = ngx_pgq_fetch_ring(r, &query, filter);

        if (rc != NGX_DECLINED) {
            return rc;
        }
    }

    if (db->unanswered >= db->max_tickets) {
        return ngx_pgq_reply_unavailable(r, db, NGX_PGQ_PROBLEM_QUEUE_FULL);
    }

    if (query.ascending && ngx_pgq_fetch_public(plcf)) {
        /* also tells whether retention has deleted posts of the page */
        query.special = NGX_PGQ_QUERY_HISTORY;
    }

    return ngx_pgq_fetch_start(r, &query);
}


ngx_int_t
ngx_pgq_fetch_filter(ngx_http_request_t *r, ngx_pgq_filter_t **filter,
    ngx_str_t *topics, ngx_str_t *pattern, ngx_pgq_problem_t *problem)
{
    ngx_int_t  rc;
    ngx_str_t  asked;

    rc = ngx_pgq_filter_asked(r, &asked);

    if (rc == NGX_OK) {
        rc = ngx_pgq_filter_read(r, &asked, filter, problem);
    }

    if (rc == NGX_OK) {
        rc = ngx_pgq_filter_sql(*filter, r->pool, topics, pattern);
    }

    return rc;
}


/* NGX_DECLINED: the problem is set */

static ngx_int_t
ngx_pgq_fetch_arguments(ngx_http_request_t *r, ngx_pgq_read_query_t *query,
    ngx_pgq_problem_t *problem)
{
    ngx_str_t  value;

    query->limit = NGX_PGQ_FETCH_DEFAULT;

    if (ngx_http_arg(r, (u_char *) "limit", 5, &value) == NGX_OK) {
        query->limit = ngx_atoi(value.data, value.len);

        if (query->limit < 1 || query->limit > NGX_PGQ_FETCH_MAX) {
            return NGX_DECLINED;
        }
    }

    if (ngx_http_arg(r, (u_char *) "before", 6, &value) == NGX_OK) {
        query->id = ngx_atoof(value.data, value.len);

        if (query->id < 1) {
            return NGX_DECLINED;
        }
    }

    if (ngx_http_arg(r, (u_char *) "after", 5, &value) == NGX_OK) {

        if (query->id) {
            problem->detail = "before and after cannot be combined.";
            return NGX_DECLINED;
        }

        query->ascending = 1;
        query->id = ngx_atoof(value.data, value.len);

        if (query->id < 0) {
            return NGX_DECLINED;
        }
    }

    return NGX_OK;
}


/* NGX_DECLINED: only PostgreSQL has the answer */

static ngx_int_t
ngx_pgq_fetch_ring(ngx_http_request_t *r, ngx_pgq_read_query_t *query,
    ngx_pgq_filter_t *filter)
{
    ngx_int_t            rc;
    ngx_str_t            value;
    ngx_msec_t           age;
    ngx_pgq_ctx_t       *ctx;
    ngx_pgq_pool_t      *db;
    ngx_pgq_answer_t    *answer;
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);
    db = plcf->get;

    rc = ngx_pgq_newest_answer(db, query, filter, &answer, &age);

    if (rc != NGX_OK) {
        ngx_pgq_metrics_ring(db->lane.metrics, NGX_PGQ_METRICS_RING_MISSES);
        return rc;
    }

    if (age > db->ring->stale) {
        return ngx_pgq_reply_unavailable(r, db->reads,
                                         NGX_PGQ_PROBLEM_RING_STALE);
    }

    ngx_pgq_metrics_ring(db->lane.metrics, NGX_PGQ_METRICS_RING_READS);

    ctx = ngx_http_get_module_ctx(r, ngx_http_pgq_module);
    ctx->answered = 1;

    value.data = ngx_pnalloc(r->pool, NGX_INT_T_LEN);

    if (value.data == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    value.len = ngx_sprintf(value.data, "%M", age / 1000) - value.data;

    if (ngx_pgq_reply_header(r, "Age", &value) == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_pgq_fetch_reply(r, answer, &ngx_pgq_fetch_hit);
}


static ngx_int_t
ngx_pgq_fetch_start(ngx_http_request_t *r, ngx_pgq_read_query_t *query)
{
    ngx_pool_cleanup_t       *cln;
    ngx_pgq_loc_conf_t       *plcf;
    ngx_pgq_fetch_request_t  *f;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_pgq_fetch_request_t));
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    f = cln->data;

    f->request = r;
    f->cleanup = cln;
    f->ctx = ngx_http_get_module_ctx(r, ngx_http_pgq_module);

    f->fetch.base.db = plcf->get->reads;
    f->fetch.base.timeout = plcf->timeout;
    f->fetch.done = ngx_pgq_fetch_done;
    f->fetch.data = f;

    if (ngx_pgq_read_join(&f->fetch, query) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    cln->handler = ngx_pgq_fetch_cleanup;

    ngx_pgq_endpoint_wait(r);

    return NGX_DONE;
}


static void
ngx_pgq_fetch_cleanup(void *data)
{
    ngx_pgq_fetch_request_t  *f = data;

    ngx_pgq_read_leave(&f->fetch);
}


static void
ngx_pgq_fetch_done(ngx_pgq_fetch_t *fetch, ngx_pgq_read_result_e result,
    ngx_pgq_answer_t *answer)
{
    ngx_int_t                 rc;
    ngx_connection_t         *c;
    ngx_http_request_t       *r;
    ngx_pgq_loc_conf_t       *plcf;
    ngx_pgq_fetch_request_t  *f;

    f = fetch->data;
    r = f->request;
    c = r->connection;

    f->cleanup->handler = NULL;
    f->ctx->answered = 1;
    f->ctx->wait = ngx_current_msec - fetch->base.start;

    if (result == NGX_PGQ_READ_DONE) {
        plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

        rc = ngx_pgq_fetch_reply(r, answer,
                                 plcf->get->ring ? &ngx_pgq_fetch_miss : NULL);

    } else {
        rc = ngx_pgq_fetch_failed(r, fetch, result);
    }

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


/* sends the response after a read without an answer */

ngx_int_t
ngx_pgq_fetch_failed(ngx_http_request_t *r, ngx_pgq_fetch_t *fetch,
    ngx_pgq_read_result_e result)
{
    ngx_pgq_fetch_problem_t  *problem;

    problem = &ngx_pgq_fetch_problems[result];

    if (problem->text) {
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "pgq fetch: %s within %M ms", problem->text,
                      ngx_current_msec - fetch->base.start);
    }

    return ngx_pgq_reply_unavailable(r, fetch->base.db, problem->kind);
}


/*
 * nginx's not-modified filter compares the ETag and sends 304.  No part of an
 * answer is sent for Range: the parts of a resource that changes do not fit
 * together.
 */

static ngx_int_t
ngx_pgq_fetch_reply(ngx_http_request_t *r, ngx_pgq_answer_t *answer,
    ngx_str_t *status)
{
    if (ngx_pgq_fetch_headers(r, answer, status) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_pgq_fetch_body(r, answer);
}


/* sends the response with this body, which the request holds */

ngx_int_t
ngx_pgq_fetch_body(ngx_http_request_t *r, ngx_pgq_answer_t *answer)
{
    ngx_str_t    *pieces;
    ngx_uint_t    i;
    ngx_chain_t  *out, *cl, **last;

    if (ngx_pgq_answer_hold(answer, r->pool) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    out = NULL;
    last = &out;
    pieces = answer->pieces.elts;

    for (i = 0; i < answer->pieces.nelts; i++) {

        cl = ngx_alloc_chain_link(r->pool);
        if (cl == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        cl->buf = ngx_calloc_buf(r->pool);
        if (cl->buf == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        cl->buf->pos = pieces[i].data;
        cl->buf->last = pieces[i].data + pieces[i].len;
        cl->buf->memory = 1;
        cl->next = NULL;

        *last = cl;
        last = &cl->next;
    }

    return ngx_pgq_reply_chain(r, NGX_HTTP_OK, &ngx_pgq_fetch_type, out,
                               answer->len);
}


static ngx_int_t
ngx_pgq_fetch_headers(ngx_http_request_t *r, ngx_pgq_answer_t *answer,
    ngx_str_t *status)
{
    r->headers_out.etag = ngx_pgq_reply_header(r, "ETag", &answer->etag);

    if (r->headers_out.etag == NULL
        || ngx_pgq_fetch_cache_control(r, answer) != NGX_OK
        || (status
            && ngx_pgq_reply_header(r, "Cache-Status", status) == NULL))
    {
        return NGX_ERROR;
    }

    /*
     * The answer has no Last-Modified, so that nginx would take it as modified
     * though the ETag is the same.
     */

    r->headers_in.if_modified_since = NULL;

    return NGX_OK;
}


static ngx_int_t
ngx_pgq_fetch_cache_control(ngx_http_request_t *r, ngx_pgq_answer_t *answer)
{
    ngx_str_t            value;
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    value = plcf->topics ? ngx_pgq_fetch_private : ngx_pgq_fetch_cache;

    if (ngx_pgq_fetch_public(plcf) && ngx_pgq_fetch_final(answer)) {

        value.data = ngx_pnalloc(r->pool, NGX_TIME_T_LEN
                                 + sizeof("public, max-age=, immutable"));
        if (value.data == NULL) {
            return NGX_ERROR;
        }

        value.len = ngx_sprintf(value.data, "public, max-age=%T, immutable",
                                plcf->log_cache)
                    - value.data;
    }

    return ngx_pgq_reply_header(r, "Cache-Control", &value) ? NGX_OK
                                                            : NGX_ERROR;
}


/*
 * Ids follow the order of commits, so that nothing is added before the last
 * post of a page; a full page can only lose posts to retention.  A page after
 * 0 counts as one that has lost none if it begins with the post 1.
 */

static ngx_uint_t
ngx_pgq_fetch_final(ngx_pgq_answer_t *answer)
{
    ngx_pgq_answer_post_t  *posts;

    posts = answer->posts.elts;

    return answer->query.ascending
           && answer->complete
           && answer->posts.nelts > 0
           && (answer->more
               || answer->posts.nelts == (ngx_uint_t) answer->query.limit)
           && (answer->query.id > 0 || posts[0].id == 1);
}


/* rights that depend on the request make the answer private */

static ngx_uint_t
ngx_pgq_fetch_public(ngx_pgq_loc_conf_t *plcf)
{
    return plcf->log_cache > 0
           && (plcf->topics == NULL || plcf->topics->lengths == NULL);
}
