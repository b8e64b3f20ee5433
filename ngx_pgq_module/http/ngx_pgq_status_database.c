/* SPDX-License-Identifier: PostgreSQL */

/*
 * Handles requests for pgq_metrics and pgq_status.  With a pool its database
 * is asked for its part of the page, the text of ngx_pgq.metrics() or of
 * subscription_status(): a read like a GET, in the memory of the request.
 *
 * Invariants:
 *  - the page is sent once: with the answer, or without it, at once if the
 *    worker has no connection, else after a second;
 *  - the cleanup of the request removes the fetch from the read.
 */

#include "ngx_pgq_status.h"
#include "ngx_pgq_read.h"


#define NGX_PGQ_STATUS_TIMEOUT   1000    /* ms; less than that of a scrape */


/* sends the page with the text of the database */

typedef ngx_int_t (*ngx_pgq_status_send_pt)(ngx_http_request_t *r,
    ngx_str_t *database);


typedef struct {
    ngx_pgq_fetch_t          fetch;
    ngx_pgq_status_send_pt   send;
    ngx_http_request_t      *request;
    ngx_pool_cleanup_t      *cleanup;
} ngx_pgq_status_database_t;


static ngx_int_t ngx_pgq_status_database_page(ngx_http_request_t *r,
    ngx_pgq_query_e text, ngx_pgq_status_send_pt send);
static ngx_int_t ngx_pgq_status_database_ask(ngx_http_request_t *r,
    ngx_pgq_pool_t *db, ngx_pgq_query_e text, ngx_pgq_status_send_pt send);
static void ngx_pgq_status_database_done(ngx_pgq_fetch_t *f,
    ngx_pgq_read_result_e result, ngx_pgq_answer_t *answer);
static void ngx_pgq_status_database_cleanup(void *data);


ngx_int_t
ngx_pgq_status_metrics_handler(ngx_http_request_t *r)
{
    return ngx_pgq_status_database_page(r, NGX_PGQ_QUERY_METRICS,
                                        ngx_pgq_status_send_metrics);
}


ngx_int_t
ngx_pgq_status_handler(ngx_http_request_t *r)
{
    return ngx_pgq_status_database_page(r, NGX_PGQ_QUERY_SUBSCRIPTIONS,
                                        ngx_pgq_status_send_health);
}


static ngx_int_t
ngx_pgq_status_database_page(ngx_http_request_t *r, ngx_pgq_query_e text,
    ngx_pgq_status_send_pt send)
{
    ngx_int_t            rc;
    ngx_str_t            none = ngx_null_string;
    ngx_pgq_pool_t      *db;
    ngx_pgq_fields_t     fields;
    ngx_pgq_loc_conf_t  *plcf;

    ngx_pgq_fields_read(r, &fields);

    if (!ngx_pgq_endpoint_admits(r, &fields, NGX_HTTP_GET|NGX_HTTP_HEAD, &rc))
    {
        return rc;
    }

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    if (plcf->metrics == NULL) {
        return send(r, NULL);
    }

    db = plcf->metrics->reads;

    return ngx_pgq_pool_connected(plcf->metrics)
           && db->unanswered < db->max_tickets
           ? ngx_pgq_status_database_ask(r, db, text, send)
           : send(r, &none);
}


static ngx_int_t
ngx_pgq_status_database_ask(ngx_http_request_t *r, ngx_pgq_pool_t *db,
    ngx_pgq_query_e text, ngx_pgq_status_send_pt send)
{
    ngx_pool_cleanup_t         *cln;
    ngx_pgq_read_query_t        query;
    ngx_pgq_status_database_t  *f;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_pgq_status_database_t));
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memzero(&query, sizeof(ngx_pgq_read_query_t));
    query.special = text;
    query.limit = 1;

    f = cln->data;
    f->send = send;
    f->request = r;
    f->cleanup = cln;
    f->fetch.base.db = db;
    f->fetch.base.timeout = NGX_PGQ_STATUS_TIMEOUT;
    f->fetch.done = ngx_pgq_status_database_done;
    f->fetch.data = f;

    if (ngx_pgq_read_join(&f->fetch, &query) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    cln->handler = ngx_pgq_status_database_cleanup;

    ngx_pgq_endpoint_wait(r);

    return NGX_DONE;
}


static void
ngx_pgq_status_database_done(ngx_pgq_fetch_t *fetch,
    ngx_pgq_read_result_e result, ngx_pgq_answer_t *answer)
{
    ngx_int_t                   rc;
    ngx_str_t                   text;
    ngx_connection_t           *c;
    ngx_http_request_t         *r;
    ngx_pgq_answer_post_t      *post;
    ngx_pgq_status_database_t  *f;

    f = fetch->data;
    r = f->request;
    c = r->connection;

    f->cleanup->handler = NULL;
    ngx_str_null(&text);

    if (result == NGX_PGQ_READ_DONE && answer->posts.nelts) {
        post = answer->posts.elts;
        text.data = post->object;
        text.len = post->len;
    }

    rc = f->send(r, &text);

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


static void
ngx_pgq_status_database_cleanup(void *data)
{
    ngx_pgq_status_database_t  *f = data;

    ngx_pgq_read_leave(&f->fetch);
}
