/* SPDX-License-Identifier: PostgreSQL */

/*
 * What the endpoints have in common: the first checks of a request (origin,
 * path and method), its body, and that it waits.  Each handler calls
 * ngx_pgq_endpoint_admits() first.  It returns 0 when the request is answered;
 * *rc is the code to finalize it with.
 */

#include "ngx_pgq_http.h"


static ngx_uint_t ngx_pgq_endpoint_other(ngx_http_request_t *r);
static ngx_int_t ngx_pgq_endpoint_options(ngx_http_request_t *r,
    const char *allow);


ngx_uint_t
ngx_pgq_endpoint_admits(ngx_http_request_t *r, ngx_pgq_fields_t *fields,
    ngx_uint_t methods, ngx_int_t *rc)
{
    const char  *allow;

    switch (methods) {
    case NGX_HTTP_POST:
        allow = "POST, OPTIONS";
        break;
    case NGX_HTTP_GET|NGX_HTTP_HEAD:
        allow = "GET, HEAD, OPTIONS";
        break;
    default: /* of a subscription */
        allow = "GET, PUT, DELETE, OPTIONS";
    }

    if (ngx_pgq_origin_foreign(r, fields)) {
        *rc = ngx_pgq_reply_default(r, NGX_PGQ_PROBLEM_FOREIGN_ORIGIN);
        return 0;
    }

    if (ngx_pgq_endpoint_other(r)) {
        *rc = ngx_pgq_reply_default(r, NGX_PGQ_PROBLEM_NOT_FOUND);
        return 0;
    }

    if (r->method == NGX_HTTP_OPTIONS) {
        *rc = ngx_pgq_endpoint_options(r, allow);
        return 0;
    }

    if (!(r->method & methods)) {
        *rc = ngx_pgq_reply_field(r, "Allow", allow) == NGX_OK
              ? ngx_pgq_reply_default(r, NGX_PGQ_PROBLEM_METHOD_NOT_ALLOWED)
              : NGX_HTTP_INTERNAL_SERVER_ERROR;
        return 0;
    }

    if (r->method & (NGX_HTTP_POST|NGX_HTTP_PUT)) {
        return 1;
    }

    *rc = ngx_http_discard_request_body(r);

    return *rc == NGX_OK;
}


/* reads the body; the handler that is called then finalizes the request */

ngx_int_t
ngx_pgq_endpoint_receive(ngx_http_request_t *r, ngx_uint_t single,
    ngx_http_client_body_handler_pt handler)
{
    ngx_int_t  rc;

    if (r->main->reading_body) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "pgq endpoint: another handler has read a part of the"
                      " body; check proxy_request_buffering");
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->request_body_in_single_buf = single;

    rc = ngx_http_read_client_request_body(r, handler);

    return rc >= NGX_HTTP_SPECIAL_RESPONSE ? rc : NGX_DONE;
}


/* the request waits until its handler finalizes it, or its client leaves */

void
ngx_pgq_endpoint_wait(ngx_http_request_t *r)
{
    r->main->count++;
    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;
}


/* "location /post" has /posted too: the rest of the path is not a topic */

static ngx_uint_t
ngx_pgq_endpoint_other(ngx_http_request_t *r)
{
    ngx_str_t           *prefix;
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);
    prefix = &plcf->prefix;

    return plcf->topic == NULL && prefix->len && r->uri.len > prefix->len
           && ngx_memcmp(r->uri.data, prefix->data, prefix->len) == 0
           && prefix->data[prefix->len - 1] != '/'
           && r->uri.data[prefix->len] != '/';
}


/* answers OPTIONS with 204 */

static ngx_int_t
ngx_pgq_endpoint_options(ngx_http_request_t *r, const char *allow)
{
    ngx_int_t  rc;

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_pgq_reply_field(r, "Allow", allow) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->headers_out.status = NGX_HTTP_NO_CONTENT;
    r->header_only = 1;

    return ngx_http_send_header(r);
}
