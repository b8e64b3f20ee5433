/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "reply" owns what goes out: headers, bodies, and every refusal as
 * application/problem+json (RFC 9457).  All memory is the request's.
 *
 * Called by enqueue.c, fetch.c and page.c, and by nginx as the handler of
 * pgq_problem, to which error_page sends nginx's own refusals.
 *
 * Invariants:
 *  - a problem tells nothing about hosts, roles or SQL;
 *  - the body of a request that was not read is discarded before the answer.
 */

#include "ngx_pgq_module.h"

#include <cjson/cJSON.h>


typedef struct {
    ngx_uint_t   status;
    const char  *title;
    const char  *code;      /* of nginx's own refusals */
    const char  *detail;
} ngx_pgq_reply_status_t;


static const char *ngx_pgq_reply_title(ngx_uint_t status);
static char *ngx_pgq_reply_document(ngx_pgq_problem_t *problem);


static ngx_str_t  ngx_pgq_reply_problem_type =
    ngx_string("application/problem+json");


static ngx_pgq_reply_status_t  ngx_pgq_reply_statuses[] = {
    { 400, "Bad Request", "bad_request",
      "The request is not one that HTTP allows." },
    { 401, "Unauthorized", "unauthorized", "Say who you are." },
    { 403, "Forbidden", "forbidden", "This is not for you." },
    { 404, "Not Found", "not_found", "There is nothing here." },
    { 405, "Method Not Allowed", "method_not_allowed",
      "The method is not one of those in Allow." },
    { 408, "Request Timeout", "request_timeout",
      "The request did not arrive in time." },
    { 409, "Conflict", "conflict", "Something else is under way." },
    { 412, "Precondition Failed", "precondition_failed",
      "What the request was made to depend on is not so." },
    { 413, "Content Too Large", "too_large",
      "The message is longer than this server takes." },
    { 414, "URI Too Long", "uri_too_long", "The address is too long." },
    { 415, "Unsupported Media Type", "unsupported_type",
      "The message is of a kind that is not taken." },
    { 421, "Misdirected Request", "misdirected",
      "This server does not answer for that host." },
    { 422, "Unprocessable Content", "unprocessable",
      "The request contradicts an earlier one." },
    { 429, "Too Many Requests", "too_many_requests",
      "Too many requests: slow down." },
    { 500, "Internal Server Error", "internal_error",
      "The server failed; nothing was queued." },
    { 503, "Service Unavailable", "unavailable",
      "The server cannot take it now; nothing was queued." },
    { 504, "Gateway Timeout", "outcome_unknown",
      "The message may or may not have been queued." },
    { 0, "Error", "error", "The request was refused." }
};


ngx_int_t
ngx_pgq_reply_body(ngx_http_request_t *r, ngx_uint_t status, ngx_str_t *type,
    u_char *data, size_t len)
{
    ngx_int_t     rc;
    ngx_buf_t    *buf;
    ngx_chain_t   out;

    r->headers_out.status = status;
    r->headers_out.content_length_n = len;
    r->headers_out.content_type = *type;
    r->headers_out.content_type_len = type->len;
    r->headers_out.content_type_lowcase = NULL;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    buf = ngx_calloc_buf(r->pool);
    if (buf == NULL) {
        return NGX_ERROR;
    }

    buf->pos = data;
    buf->last = data + len;
    buf->memory = len > 0;
    buf->last_buf = (r == r->main);
    buf->last_in_chain = 1;

    out.buf = buf;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


ngx_int_t
ngx_pgq_reply_problem(ngx_http_request_t *r, ngx_pgq_problem_t *problem)
{
    char    *text;
    size_t   len;
    u_char  *body;

    ngx_pgq_metrics_reject(problem->code);

    if (r->request_body == NULL && ngx_http_discard_request_body(r) != NGX_OK)
    {
        return NGX_ERROR;
    }

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

    if (problem->status == 422) {
        /* nginx has no words for it */
        ngx_str_set(&r->headers_out.status_line, "422 Unprocessable Content");
    }

    return ngx_pgq_reply_body(r, problem->status, &ngx_pgq_reply_problem_type,
                              body, len);
}


static char *
ngx_pgq_reply_document(ngx_pgq_problem_t *problem)
{
    char   *text;
    cJSON  *document;

    document = cJSON_CreateObject();

    if (document == NULL) {
        return NULL;
    }

    text = NULL;

    if (cJSON_AddStringToObject(document, "type", "about:blank")
        && cJSON_AddStringToObject(document, "title",
                                   ngx_pgq_reply_title(problem->status))
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
ngx_pgq_reply_unavailable(ngx_http_request_t *r, ngx_pgq_pool_t *pool,
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
    after.len = ngx_sprintf(p, "%ui", ngx_pgq_pool_retry_after(pool)) - p;

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

    for (s = ngx_pgq_reply_statuses; s->status; s++) {
        if (s->status == problem.status) {
            break;
        }
    }

    problem.code = s->code;
    problem.detail = s->detail;
    problem.offset = -1;
    problem.line = 0;

    return ngx_pgq_reply_problem(r, &problem);
}


static const char *
ngx_pgq_reply_title(ngx_uint_t status)
{
    ngx_pgq_reply_status_t  *s;

    for (s = ngx_pgq_reply_statuses; s->status; s++) {
        if (s->status == status) {
            break;
        }
    }

    return s->title;
}
