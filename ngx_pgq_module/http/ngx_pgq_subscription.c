/* SPDX-License-Identifier: PostgreSQL */

/*
 * Handles requests of consumers: PUT creates a subscription, GET returns its
 * next posts with a lease, POST acknowledges them, DELETE deletes it.  Each
 * becomes a query, which consumer.c sends.
 *
 * Invariant: only JSON reaches the database; what its members mean is checked
 * there, as for consumers that use SQL.
 */

#include "ngx_pgq_http.h"


#define NGX_PGQ_SUBSCRIPTION_WAIT     60      /* s, maximum of wait */
#define NGX_PGQ_SUBSCRIPTION_POSTS    1000    /* maximum of limit */
#define NGX_PGQ_SUBSCRIPTION_DEFAULT  100     /* limit */
#define NGX_PGQ_SUBSCRIPTION_LEASE    86400   /* s, maximum of lease */
#define NGX_PGQ_SUBSCRIPTION_SECONDS  30      /* lease */
#define NGX_PGQ_SUBSCRIPTION_PARTS    64
#define NGX_PGQ_SUBSCRIPTION_BODY     65536   /* bytes of a body */
#define NGX_PGQ_SUBSCRIPTION_NAME     63      /* bytes of a name */


static ngx_uint_t ngx_pgq_subscription_path(ngx_http_request_t *r,
    ngx_str_t *name, ngx_uint_t *ack);
static ngx_int_t ngx_pgq_subscription_get(ngx_http_request_t *r,
    ngx_str_t *name);
static ngx_int_t ngx_pgq_subscription_arguments(ngx_http_request_t *r,
    ngx_pgq_read_query_t *query, ngx_int_t *wait, ngx_pgq_problem_t *problem);
static ngx_int_t ngx_pgq_subscription_read(ngx_http_request_t *r);
static void ngx_pgq_subscription_body_handler(ngx_http_request_t *r);
static ngx_int_t ngx_pgq_subscription_body(ngx_http_request_t *r);


ngx_int_t
ngx_pgq_subscription_handler(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_str_t             name;
    ngx_uint_t            ack, methods;
    ngx_pgq_ctx_t        *ctx;
    ngx_pgq_read_query_t  query;

    ctx = ngx_pgq_variables_ctx(r, NGX_PGQ_METRICS_SUBSCRIPTION);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (!ngx_pgq_subscription_path(r, &name, &ack)) {
        return ngx_pgq_reply_default(r, NGX_PGQ_PROBLEM_NOT_FOUND);
    }

    methods = ack ? NGX_HTTP_POST
                  : NGX_HTTP_GET|NGX_HTTP_PUT|NGX_HTTP_DELETE;

    if (!ngx_pgq_endpoint_admits(r, &ctx->fields, methods, &rc)) {
        return rc;
    }

    if (ngx_pgq_reply_field(r, "Cache-Control", "no-store") != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_pgq_consumer_full(r, &rc)) {
        return rc;
    }

    if (r->method == NGX_HTTP_GET) {
        return ngx_pgq_subscription_get(r, &name);
    }

    if (r->method != NGX_HTTP_DELETE) {
        return ngx_pgq_subscription_read(r);
    }

    ngx_memzero(&query, sizeof(ngx_pgq_read_query_t));
    query.special = NGX_PGQ_QUERY_UNSUBSCRIBE;
    query.name = name;

    return ngx_pgq_consumer_start(r, &query, 0);
}


/* the URI is that of the location with "name" or "name/ack" */

static ngx_uint_t
ngx_pgq_subscription_path(ngx_http_request_t *r, ngx_str_t *name,
    ngx_uint_t *ack)
{
    ngx_str_t           *prefix;
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);
    prefix = &plcf->prefix;

    /* a subrequest or an error_page may have any URI */

    if (r->uri.len <= prefix->len
        || ngx_memcmp(r->uri.data, prefix->data, prefix->len) != 0)
    {
        return 0;
    }

    name->data = r->uri.data + prefix->len;
    name->len = r->uri.len - prefix->len;

    *ack = name->len > 4
           && ngx_memcmp(name->data + name->len - 4, "/ack", 4) == 0;

    if (*ack) {
        name->len -= 4;
    }

    return name->len <= NGX_PGQ_SUBSCRIPTION_NAME
           && ngx_strlchr(name->data, name->data + name->len, '/') == NULL;
}


static ngx_int_t
ngx_pgq_subscription_get(ngx_http_request_t *r, ngx_str_t *name)
{
    ngx_int_t             rc, wait;
    ngx_pgq_read_query_t  query;
    ngx_pgq_problem_t     problem = ngx_pgq_problem_init(0);

    ngx_memzero(&query, sizeof(ngx_pgq_read_query_t));
    query.special = NGX_PGQ_QUERY_CONSUME;
    query.name = *name;

    rc = ngx_pgq_subscription_arguments(r, &query, &wait, &problem);

    if (rc != NGX_OK) {
        return rc == NGX_DECLINED ? ngx_pgq_reply_problem(r, &problem)
                                  : NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_pgq_consumer_start(r, &query, wait);
}


static ngx_int_t
ngx_pgq_subscription_arguments(ngx_http_request_t *r,
    ngx_pgq_read_query_t *query, ngx_int_t *wait, ngx_pgq_problem_t *problem)
{
    ngx_int_t       rc, generation;
    ngx_uint_t      i;
    ngx_pgq_ctx_t  *ctx;

    struct {
        const char  *name;
        ngx_int_t    least;
        ngx_int_t    most;
        ngx_int_t   *n;
    } arguments[] = {
        { "wait", 0, NGX_PGQ_SUBSCRIPTION_WAIT, wait },
        { "limit", 1, NGX_PGQ_SUBSCRIPTION_POSTS, &query->limit },
        { "lease", 1, NGX_PGQ_SUBSCRIPTION_LEASE, &query->lease },
        { "part", 1, NGX_PGQ_SUBSCRIPTION_PARTS, &query->part },
        { "generation", 1, NGX_MAX_INT_T_VALUE, &generation }
    };

    ctx = ngx_http_get_module_ctx(r, ngx_http_pgq_module);

    *wait = ngx_min(ngx_max(ctx->fields.wait, 0), NGX_PGQ_SUBSCRIPTION_WAIT);
    query->limit = NGX_PGQ_SUBSCRIPTION_DEFAULT;
    query->lease = NGX_PGQ_SUBSCRIPTION_SECONDS;
    generation = 0;

    for (i = 0; i < sizeof(arguments) / sizeof(arguments[0]); i++) {

        rc = ngx_pgq_argument_number(r, arguments[i].name, arguments[i].least,
                                     arguments[i].most, arguments[i].n,
                                     problem);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    query->id = generation;

    return NGX_OK;
}


/* of PUT and POST: reads the body */

static ngx_int_t
ngx_pgq_subscription_read(ngx_http_request_t *r)
{
    ngx_pgq_ctx_t      *ctx;
    ngx_pgq_problem_t   problem = ngx_pgq_problem_init(0);

    ctx = ngx_http_get_module_ctx(r, ngx_http_pgq_module);

    if (ngx_pgq_message_supported(&ctx->fields, &problem) != NGX_OK) {
        return ngx_pgq_reply_problem(r, &problem);
    }

    if (r->headers_in.content_length_n > NGX_PGQ_SUBSCRIPTION_BODY) {
        return ngx_pgq_reply_default(r, NGX_PGQ_PROBLEM_TOO_LARGE);
    }

    return ngx_pgq_endpoint_receive(r, 1, ngx_pgq_subscription_body_handler);
}


static void
ngx_pgq_subscription_body_handler(ngx_http_request_t *r)
{
    ngx_http_finalize_request(r, ngx_pgq_subscription_body(r));
}


/* returns the code to finalize the request with */

static ngx_int_t
ngx_pgq_subscription_body(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_str_t             body;
    ngx_uint_t            ack;
    ngx_pool_t           *memory;
    ngx_pgq_problem_t     problem = ngx_pgq_problem_init(0);
    ngx_pgq_read_query_t  query;

    ngx_memzero(&query, sizeof(ngx_pgq_read_query_t));
    (void) ngx_pgq_subscription_path(r, &query.name, &ack);
    query.special = ack ? NGX_PGQ_QUERY_ACK : NGX_PGQ_QUERY_SUBSCRIBE;

    rc = ngx_pgq_message_read(r, &memory, &body, &problem);

    if (rc == NGX_DECLINED && problem.kind == NGX_PGQ_PROBLEM_EMPTY && !ack) {
        ngx_str_set(&body, "{}");
        rc = NGX_OK;
    }

    if (rc == NGX_OK && body.len > NGX_PGQ_SUBSCRIPTION_BODY) {
        problem.kind = NGX_PGQ_PROBLEM_TOO_LARGE;
        rc = NGX_DECLINED;
    }

    if (rc == NGX_OK) {
        query.pattern = body;

        if (!ngx_pgq_consumer_full(r, &rc)) {
            rc = ngx_pgq_consumer_start(r, &query, 0);
        }

    } else {
        rc = rc == NGX_DECLINED ? ngx_pgq_reply_problem(r, &problem)
                                : NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (memory) {
        ngx_destroy_pool(memory);
    }

    return rc;
}
