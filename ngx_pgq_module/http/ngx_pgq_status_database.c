/* SPDX-License-Identifier: PostgreSQL */

/*
 * Handles requests for pgq_metrics.  With a pool its database is asked for
 * ngx_pgq.metrics(), which is its part of the page: a read like a GET, in the
 * memory of the request.
 *
 * Invariants:
 *  - the page is sent once: with the answer, or without it after a second;
 *  - the cleanup of the request removes the fetch from the read.
 */

#include "ngx_pgq_status.h"
#include "ngx_pgq_read.h"


#define NGX_PGQ_STATUS_TIMEOUT   1000    /* ms; less than that of a scrape */


typedef struct {
    ngx_pgq_fetch_t          fetch;
    ngx_http_request_t      *request;
    ngx_pool_cleanup_t      *cleanup;
} ngx_pgq_status_database_t;


static ngx_int_t ngx_pgq_status_database_ask(ngx_http_request_t *r,
    ngx_pgq_pool_t *db);
static void ngx_pgq_status_database_done(ngx_pgq_fetch_t *f,
    ngx_pgq_read_result_e result, ngx_pgq_answer_t *answer);
static void ngx_pgq_status_database_cleanup(void *data);


ngx_int_t
ngx_pgq_status_metrics_handler(ngx_http_request_t *r)
{
    ngx_int_t            rc;
    ngx_str_t            none = ngx_null_string;
    ngx_pgq_pool_t      *db;
    ngx_pgq_loc_conf_t  *plcf;

    if (!ngx_pgq_status_admits(r, &rc)) {
        return rc;
    }

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    if (plcf->metrics == NULL) {
        return ngx_pgq_status_send(r, NULL);
    }

    db = plcf->metrics->reads;

    return db->unanswered < db->max_tickets
           ? ngx_pgq_status_database_ask(r, db)
           : ngx_pgq_status_send(r, &none);
}


static ngx_int_t
ngx_pgq_status_database_ask(ngx_http_request_t *r, ngx_pgq_pool_t *db)
{
    ngx_pool_cleanup_t         *cln;
    ngx_pgq_read_query_t        query;
    ngx_pgq_status_database_t  *f;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_pgq_status_database_t));
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memzero(&query, sizeof(ngx_pgq_read_query_t));
    query.special = NGX_PGQ_QUERY_METRICS;
    query.limit = 1;

    f = cln->data;
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

    r->main->count++;
    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

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

    rc = ngx_pgq_status_send(r, &text);

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


static void
ngx_pgq_status_database_cleanup(void *data)
{
    ngx_pgq_status_database_t  *f = data;

    ngx_pgq_read_leave(&f->fetch);
}
