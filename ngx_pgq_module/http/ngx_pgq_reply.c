/* SPDX-License-Identifier: PostgreSQL */

/*
 * Sends responses: header fields, bodies, and problems as
 * application/problem+json (RFC 9457).  All memory is from the request's pool.
 *
 * Invariants:
 *  - a problem names no hosts, roles or SQL;
 *  - a request body that was not read is discarded before the response.
 */

#include "ngx_pgq_http.h"

#include <cjson/cJSON.h>


static ngx_int_t ngx_pgq_reply_send(ngx_http_request_t *r, ngx_uint_t status,
    ngx_pgq_problem_t *problem);
static void ngx_pgq_reply_discard(ngx_http_request_t *r);
static char *ngx_pgq_reply_document(ngx_uint_t status,
    ngx_pgq_problem_t *problem);


static ngx_str_t  ngx_pgq_reply_problem_type =
    ngx_string("application/problem+json");


ngx_int_t
ngx_pgq_reply_body(ngx_http_request_t *r, ngx_uint_t status, ngx_str_t *type,
    u_char *data, size_t len)
{
    ngx_buf_t    *buf;
    ngx_chain_t   out;

    buf = ngx_calloc_buf(r->pool);
    if (buf == NULL) {
        return NGX_ERROR;
    }

    buf->pos = data;
    buf->last = data + len;
    buf->memory = len > 0;

    out.buf = buf;
    out.next = NULL;

    return ngx_pgq_reply_chain(r, status, type, &out, len);
}


/* the buffers are in memory, and belong to the request */

ngx_int_t
ngx_pgq_reply_chain(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *type, ngx_chain_t *out, size_t len)
{
    ngx_int_t     rc;
    ngx_chain_t  *last;

    r->headers_out.status = status;
    r->headers_out.content_length_n = len;
    r->headers_out.content_type = *type;
    r->headers_out.content_type_len = type->len;
    r->headers_out.content_type_lowcase = NULL;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    for (last = out; last->next; last = last->next) { /* void */ }

    last->buf->last_buf = (r == r->main);
    last->buf->last_in_chain = 1;

    return ngx_http_output_filter(r, out);
}


ngx_int_t
ngx_pgq_reply_problem(ngx_http_request_t *r, ngx_pgq_problem_t *problem)
{
    return ngx_pgq_reply_send(r, ngx_pgq_problems[problem->kind].status,
                              problem);
}


ngx_int_t
ngx_pgq_reply_default(ngx_http_request_t *r, ngx_pgq_problem_e kind)
{
    ngx_pgq_problem_t  problem = ngx_pgq_problem_init(kind);

    return ngx_pgq_reply_problem(r, &problem);
}


static ngx_int_t
ngx_pgq_reply_send(ngx_http_request_t *r, ngx_uint_t status,
    ngx_pgq_problem_t *problem)
{
    char                         *text;
    size_t                        len;
    u_char                       *body;
    const ngx_pgq_problem_row_t  *row;

    ngx_pgq_metrics_reject(problem->kind);

    ngx_pgq_reply_discard(r);

    text = ngx_pgq_reply_document(status, problem);
    if (text == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    len = ngx_strlen(text);

    body = ngx_pnalloc(r->pool, len);
    if (body == NULL) {
        cJSON_free(text);
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memcpy(body, text, len);
    cJSON_free(text);

    row = &ngx_pgq_problems[problem->kind];

    if (row->status) {
        r->headers_out.status_line.data = (u_char *) row->status_line;
        r->headers_out.status_line.len = ngx_strlen(row->status_line);
    }

    return ngx_pgq_reply_body(r, status, &ngx_pgq_reply_problem_type, body,
                              len);
}


/*
 * A client that waits for "100 Continue" does not get it.  After a malformed
 * body the connection cannot be used again.
 */

static void
ngx_pgq_reply_discard(ngx_http_request_t *r)
{
    if (r->request_body) {
        return;
    }

    if (r->headers_in.expect && !r->expect_tested) {
        r->expect_tested = 1;
        r->keepalive = 0;
    }

    if (ngx_http_discard_request_body(r) != NGX_OK) {
        r->keepalive = 0;
    }
}


static char *
ngx_pgq_reply_document(ngx_uint_t status, ngx_pgq_problem_t *problem)
{
    char                         *text;
    cJSON                        *document;
    const ngx_pgq_problem_row_t  *row;

    document = cJSON_CreateObject();

    if (document == NULL) {
        return NULL;
    }

    text = NULL;
    row = &ngx_pgq_problems[problem->kind];

    if (cJSON_AddStringToObject(document, "type", "about:blank")
        && cJSON_AddStringToObject(document, "title", row->title)
        && cJSON_AddNumberToObject(document, "status", (double) status)
        && cJSON_AddStringToObject(document, "code", row->code)
        && cJSON_AddStringToObject(document, "detail",
                                   problem->detail ? problem->detail
                                                   : row->detail)
        && (problem->offset < 0
            || cJSON_AddNumberToObject(document, "offset",
                                       (double) problem->offset))
        && (problem->line == 0
            || cJSON_AddNumberToObject(document, "line",
                                       (double) problem->line)))
    {
        text = cJSON_PrintUnformatted(document);
    }

    cJSON_Delete(document);

    return text;
}


ngx_int_t
ngx_pgq_reply_unavailable(ngx_http_request_t *r, ngx_pgq_pool_t *db,
    ngx_pgq_problem_e kind)
{
    if (ngx_pgq_reply_field(r, "Retry-After", "%ui",
                            ngx_pgq_pool_retry_after(db))
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_pgq_reply_default(r, kind);
}


/* name and value must be valid until the request ends */

ngx_table_elt_t *
ngx_pgq_reply_header(ngx_http_request_t *r, const char *name,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NULL;
    }

    h->hash = 1;
    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);
    h->value = *value;

#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    return h;
}


/* the value is formatted as by ngx_sprintf(), and has at most 255 bytes */

ngx_int_t
ngx_pgq_reply_field(ngx_http_request_t *r, const char *name, const char *fmt,
    ...)
{
    u_char     text[255];
    va_list    args;
    ngx_str_t  value;

    va_start(args, fmt);
    value.len = ngx_vslprintf(text, text + sizeof(text), fmt, args) - text;
    va_end(args);

    value.data = ngx_pnalloc(r->pool, value.len);
    if (value.data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(value.data, text, value.len);

    return ngx_pgq_reply_header(r, name, &value) ? NGX_OK : NGX_ERROR;
}


/* pgq_problem: error_page redirects nginx's own refusals here */

ngx_int_t
ngx_pgq_reply_handler(ngx_http_request_t *r)
{
    ngx_uint_t         status;
    ngx_pgq_problem_t  problem = ngx_pgq_problem_init(0);

    status = r->err_status ? r->err_status : NGX_HTTP_NOT_FOUND;

    r->err_status = 0;      /* else nginx uses its own status line */

    while (problem.kind < NGX_PGQ_PROBLEM_ERROR
           && ngx_pgq_problems[problem.kind].status != status)
    {
        problem.kind++;
    }

    return ngx_pgq_reply_send(r, status, &problem);
}
