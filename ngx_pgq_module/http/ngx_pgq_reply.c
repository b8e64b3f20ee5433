/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "reply" owns what goes out: headers, bodies, and every refusal as
 * application/problem+json (RFC 9457).  All memory is the request's.
 *
 * ngx_pgq_reply_handler() is the handler of pgq_problem, to which error_page
 * sends nginx's own refusals.
 *
 * Invariants:
 *  - a problem tells nothing about hosts, roles or SQL;
 *  - the body of a request that was not read is discarded before the answer.
 */

#include "ngx_pgq_http.h"

#include <cjson/cJSON.h>


typedef struct {
    ngx_uint_t   status;
    const char  *line;      /* the status line; a space after the number */
    const char  *code;      /* of nginx's own refusals */
    const char  *detail;
} ngx_pgq_reply_status_t;


static ngx_pgq_reply_status_t *ngx_pgq_reply_status(ngx_uint_t status);
static void ngx_pgq_reply_discard(ngx_http_request_t *r);
static char *ngx_pgq_reply_document(ngx_pgq_problem_t *problem);


static ngx_str_t  ngx_pgq_reply_problem_type =
    ngx_string("application/problem+json");


/* nginx's words for some of them are older than RFC 9110's */

static ngx_pgq_reply_status_t  ngx_pgq_reply_statuses[] = {
    { 400, "400 Bad Request", "bad_request",
      "The request is not valid HTTP." },
    { 401, "401 Unauthorized", "unauthorized",
      "Authentication is required." },
    { 402, "402 Payment Required", "forbidden",
      "Payment is required." },
    { 403, "403 Forbidden", "forbidden",
      "Access is denied." },
    { 404, "404 Not Found", "not_found",
      "There is no such resource." },
    { 405, "405 Method Not Allowed", "method_not_allowed",
      "The method is not one of those in Allow." },
    { 406, "406 Not Acceptable", "not_acceptable",
      "There is no such representation." },
    { 408, "408 Request Timeout", "request_timeout",
      "The request did not arrive in time." },
    { 409, "409 Conflict", "conflict",
      "Another request is in progress." },
    { 410, "410 Gone", "not_found",
      "The resource has been removed." },
    { 411, "411 Length Required", "length_required",
      "A Content-Length is required." },
    { 412, "412 Precondition Failed", "precondition_failed",
      "A precondition of the request does not hold." },
    { 413, "413 Content Too Large", "too_large",
      "The request is larger than this server accepts." },
    { 414, "414 URI Too Long", "uri_too_long",
      "The URI is too long." },
    { 415, "415 Unsupported Media Type", "unsupported_type",
      "The media type is not accepted here." },
    { 416, "416 Range Not Satisfiable", "bad_range",
      "The range is outside of the representation." },
    { 421, "421 Misdirected Request", "misdirected",
      "This server does not answer for that host." },
    { 422, "422 Unprocessable Content", "unprocessable",
      "The request contradicts an earlier one." },
    { 426, "426 Upgrade Required", "upgrade_required",
      "Another protocol is required." },
    { 429, "429 Too Many Requests", "too_many_requests",
      "There were too many requests." },
    { 431, "431 Request Header Fields Too Large", "headers_too_large",
      "The header fields are larger than this server accepts." },
    { 500, "500 Internal Server Error", "internal_error",
      "The server failed." },
    { 501, "501 Not Implemented", "not_implemented",
      "The server does not implement what the request needs." },
    { 502, "502 Bad Gateway", "bad_gateway",
      "A server behind this one failed." },
    { 503, "503 Service Unavailable", "unavailable",
      "The server is not available now; no message was queued." },
    { 504, "504 Gateway Timeout", "outcome_unknown",
      "The message may or may not have been queued." },
    { 505, "505 HTTP Version Not Supported", "bad_version",
      "The HTTP version is not supported." },
    { 507, "507 Insufficient Storage", "unavailable",
      "The server has no space left; no message was queued." },
    { 0, NULL, "error", "The request was refused." }
};


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


/* the buffers are the request's, and all of memory */

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
    char        *text;
    size_t       len;
    u_char      *body;
    const char  *line;

    ngx_pgq_metrics_reject(problem->code);

    ngx_pgq_reply_discard(r);

    text = ngx_pgq_reply_document(problem);
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

    line = ngx_pgq_reply_status(problem->status)->line;

    if (line) {
        r->headers_out.status_line.data = (u_char *) line;
        r->headers_out.status_line.len = ngx_strlen(line);
    }

    return ngx_pgq_reply_body(r, problem->status, &ngx_pgq_reply_problem_type,
                              body, len);
}


/*
 * A client that waits for "100 Continue" is not asked for its body.  After a
 * body that is not well-formed, the connection cannot be used again.
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
ngx_pgq_reply_document(ngx_pgq_problem_t *problem)
{
    char        *text;
    cJSON       *document;
    const char  *line;

    line = ngx_pgq_reply_status(problem->status)->line;
    document = cJSON_CreateObject();

    if (document == NULL) {
        return NULL;
    }

    text = NULL;

    if (cJSON_AddStringToObject(document, "type", "about:blank")
        && cJSON_AddStringToObject(document, "title",
                                   line ? line + sizeof("400 ") - 1 : "Error")
        && cJSON_AddNumberToObject(document, "status",
                                   (double) problem->status)
        && cJSON_AddStringToObject(document, "code", problem->code)
        && cJSON_AddStringToObject(document, "detail", problem->detail)
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


/* 204, for OPTIONS */

ngx_int_t
ngx_pgq_reply_options(ngx_http_request_t *r, ngx_str_t *allow)
{
    ngx_int_t  rc;

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_pgq_reply_header(r, "Allow", allow) == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->headers_out.status = NGX_HTTP_NO_CONTENT;
    r->header_only = 1;

    return ngx_http_send_header(r);
}


ngx_int_t
ngx_pgq_reply_method(ngx_http_request_t *r, ngx_str_t *allow)
{
    ngx_pgq_problem_t  problem = { 405, "method_not_allowed",
                                   "The method is not one of those in Allow.",
                                   -1, 0 };

    if (ngx_pgq_reply_header(r, "Allow", allow) == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_pgq_reply_problem(r, &problem);
}


ngx_int_t
ngx_pgq_reply_unavailable(ngx_http_request_t *r, ngx_pgq_pool_t *db,
    const char *code, const char *detail)
{
    u_char             *p;
    ngx_str_t           after;
    ngx_pgq_problem_t   problem = { 503, code, detail, -1, 0 };

    p = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    after.data = p;
    after.len = ngx_sprintf(p, "%ui", ngx_pgq_pool_retry_after(db)) - p;

    if (ngx_pgq_reply_header(r, "Retry-After", &after) == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_pgq_reply_problem(r, &problem);
}


/* the name and the value live at least as long as the request */

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


/* pgq_problem: one of nginx's own refusals, by error_page */

ngx_int_t
ngx_pgq_reply_handler(ngx_http_request_t *r)
{
    ngx_pgq_problem_t        problem;
    ngx_pgq_reply_status_t  *s;

    problem.status = r->err_status ? r->err_status : NGX_HTTP_NOT_FOUND;

    /* or nginx would take its own phrase */

    r->err_status = 0;

    s = ngx_pgq_reply_status(problem.status);

    problem.code = s->code;
    problem.detail = s->detail;
    problem.offset = -1;
    problem.line = 0;

    return ngx_pgq_reply_problem(r, &problem);
}


static ngx_pgq_reply_status_t *
ngx_pgq_reply_status(ngx_uint_t status)
{
    ngx_pgq_reply_status_t  *s;

    for (s = ngx_pgq_reply_statuses; s->status; s++) {
        if (s->status == status) {
            break;
        }
    }

    return s;
}
