/* SPDX-License-Identifier: PostgreSQL */

/*
 * Reads and checks the message of a request: its form, its idempotency key,
 * and its body.
 *
 * Invariants:
 *  - a message that is not JSON never reaches the database;
 *  - a JSON text is not changed, except that white space at its ends is
 *    removed; another text becomes a JSON string.
 */

#include "ngx_pgq_http.h"
#include "ngx_pgq_json.h"
#include "ngx_pgq_key.h"


#define NGX_PGQ_MESSAGE_SEPARATOR  0x1f    /* ends a scope */


static ngx_int_t ngx_pgq_message_body(ngx_http_request_t *r,
    ngx_pool_t **memory, ngx_str_t *message);
static ngx_int_t ngx_pgq_message_text(ngx_http_request_t *r,
    ngx_pool_t **memory, ngx_str_t *message, ngx_pgq_problem_t *problem);
static u_char *ngx_pgq_message_alloc(ngx_http_request_t *r,
    ngx_pool_t **memory, size_t len);
static ngx_int_t ngx_pgq_message_refuse(ngx_http_request_t *r,
    ngx_pgq_problem_t *problem, ngx_pgq_problem_e kind,
    ngx_pgq_json_error_t *err);


ngx_int_t
ngx_pgq_message_supported(ngx_pgq_fields_t *fields, ngx_pgq_problem_t *problem)
{
    if (fields->form == NGX_PGQ_FORM_MALFORMED) {
        problem->kind = NGX_PGQ_PROBLEM_BAD_TYPE;
        return NGX_DECLINED;
    }

    if (fields->form == NGX_PGQ_FORM_UNSUPPORTED) {
        problem->kind = NGX_PGQ_PROBLEM_UNSUPPORTED_TYPE;
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/*
 * Returns NGX_OK if the body is a message.  It is in a buffer of nginx or in
 * *memory, which the caller destroys in any case.
 */

ngx_int_t
ngx_pgq_message_read(ngx_http_request_t *r, ngx_pool_t **memory,
    ngx_str_t *message, ngx_pgq_problem_t *problem)
{
    const u_char          *p;
    ngx_pgq_ctx_t         *ctx;
    ngx_pgq_loc_conf_t    *plcf;
    ngx_pgq_json_error_t   err;

    *memory = NULL;

    if (ngx_pgq_message_body(r, memory, message) != NGX_OK) {
        return NGX_ERROR;
    }

    if (message->len == 0) {
        err.offset = 0;
        err.problem = "empty message";
        return ngx_pgq_message_refuse(r, problem, NGX_PGQ_PROBLEM_EMPTY, &err);
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_pgq_module);

    if (ctx->fields.form == NGX_PGQ_FORM_TEXT) {
        return ngx_pgq_message_text(r, memory, message, problem);
    }

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    if (ngx_pgq_json_check(message->data, message->len,
                           (unsigned) plcf->depth, &err)
        == 0)
    {
        p = message->data;
        message->len = ngx_pgq_json_trim(&p, message->len);
        message->data = (u_char *) p;
        return NGX_OK;
    }

    /* JSON that PostgreSQL cannot store does not become a string */

    if (ctx->fields.form == NGX_PGQ_FORM_JSON || err.grammatical) {
        return ngx_pgq_message_refuse(r, problem, NGX_PGQ_PROBLEM_NOT_JSON,
                                      &err);
    }

    return ngx_pgq_message_text(r, memory, message, problem);
}


/*
 * The idempotency key, in the request's memory pool: its scope and the value
 * that the client sent; len 0 without a key.
 */

ngx_int_t
ngx_pgq_message_key(ngx_http_request_t *r, ngx_str_t *key,
    ngx_pgq_problem_t *problem)
{
    ssize_t              n;
    ngx_int_t            rc;
    ngx_pgq_ctx_t       *ctx;
    ngx_pgq_fields_t    *fields;
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    ngx_str_null(key);

    if (plcf->idempotency == NGX_PGQ_IDEMPOTENCY_OFF) {
        return NGX_OK;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_pgq_module);
    fields = &ctx->fields;

    if (fields->key == NULL) {
        if (plcf->idempotency == NGX_PGQ_IDEMPOTENCY_REQUIRED) {
            problem->kind = NGX_PGQ_PROBLEM_KEY_REQUIRED;
            return NGX_DECLINED;
        }

        return NGX_OK;
    }

    rc = ngx_pgq_message_scope(r, key, problem);
    if (rc != NGX_OK) {
        return rc;
    }

    n = ngx_pgq_key_read(key->data + key->len, fields->key->data,
                         fields->key->len);

    if (n < 0 || fields->keys > 1) {
        problem->kind = NGX_PGQ_PROBLEM_BAD_KEY;
        return NGX_DECLINED;
    }

    key->len += n;

    return NGX_OK;
}


/*
 * Writes the scope, which is the beginning of a key.  A scope or a key cannot
 * imitate another scope, because neither may have control characters.
 *
 *   value 0x1f              the value of pgq_idempotency_scope
 *   user 0x1e name 0x1f     without it, the user name of basic authentication
 *   address 0x1e text 0x1f  without a user name, the client's address
 */

ngx_int_t
ngx_pgq_message_scope(ngx_http_request_t *r, ngx_str_t *key,
    ngx_pgq_problem_t *problem)
{
    u_char              *p;
    ngx_int_t            rc;
    ngx_str_t            prefix, scope;
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    ngx_str_set(&prefix, "");
    ngx_str_null(&scope);

    if (plcf->scope
        && ngx_http_complex_value(r, plcf->scope, &scope) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (plcf->scope == NULL && plcf->scoped) {
        rc = ngx_http_auth_basic_user(r);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc == NGX_OK) {
            scope = r->headers_in.user;
            ngx_str_set(&prefix, "user\x1e");
        }
    }

    if (scope.len == 0 && plcf->scoped) {
        scope = r->connection->addr_text;
        ngx_str_set(&prefix, "address\x1e");
    }

    if (scope.len && !ngx_pgq_key_scope(scope.data, scope.len)) {
        problem->kind = NGX_PGQ_PROBLEM_BAD_SCOPE;
        return NGX_DECLINED;
    }

    p = ngx_pnalloc(r->pool, prefix.len + scope.len + 1 + NGX_PGQ_KEY_MAX);
    if (p == NULL) {
        return NGX_ERROR;
    }

    key->data = p;

    if (scope.len) {
        p = ngx_cpymem(p, prefix.data, prefix.len);
        p = ngx_cpymem(p, scope.data, scope.len);
        *p++ = NGX_PGQ_MESSAGE_SEPARATOR;
    }

    key->len = p - key->data;

    return NGX_OK;
}


/* returns the body in one piece; nginx may have it in memory and in a file */

static ngx_int_t
ngx_pgq_message_body(ngx_http_request_t *r, ngx_pool_t **memory,
    ngx_str_t *message)
{
    u_char       *p;
    size_t        len;
    ssize_t       n;
    ngx_buf_t    *buf;
    ngx_chain_t  *cl;

    ngx_str_null(message);

    if (r->request_body == NULL || r->request_body->bufs == NULL) {
        return NGX_OK;
    }

    cl = r->request_body->bufs;

    if (cl->next == NULL && ngx_buf_in_memory(cl->buf)) {
        message->data = cl->buf->pos;
        message->len = cl->buf->last - cl->buf->pos;
        return NGX_OK;
    }

    len = 0;

    for ( /* void */ ; cl; cl = cl->next) {
        len += (size_t) ngx_buf_size(cl->buf);
    }

    p = ngx_pgq_message_alloc(r, memory, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    message->data = p;
    message->len = len;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        buf = cl->buf;
        len = (size_t) ngx_buf_size(buf);

        if (len == 0) {
            continue;
        }

        if (!buf->in_file) {
            p = ngx_cpymem(p, buf->pos, len);
            continue;
        }

        n = ngx_read_file(buf->file, p, len, buf->file_pos);
        if (n != (ssize_t) len) {
            return NGX_ERROR;
        }

        p += n;
    }

    return NGX_OK;
}


/* does not use the request's pool, which is kept while the ticket waits */

static u_char *
ngx_pgq_message_alloc(ngx_http_request_t *r, ngx_pool_t **memory, size_t len)
{
    if (*memory == NULL) {
        *memory = ngx_create_pool(256, r->connection->log);
        if (*memory == NULL) {
            return NULL;
        }
    }

    return ngx_pnalloc(*memory, len);
}


/* makes a JSON string of a text; client_max_body_size limits both */

static ngx_int_t
ngx_pgq_message_text(ngx_http_request_t *r, ngx_pool_t **memory,
    ngx_str_t *message, ngx_pgq_problem_t *problem)
{
    size_t                     len;
    u_char                    *json;
    ngx_pgq_json_error_t       err;
    ngx_http_core_loc_conf_t  *clcf;

    if (ngx_pgq_json_utf8(message->data, message->len, &err) != 0) {
        return ngx_pgq_message_refuse(r, problem, NGX_PGQ_PROBLEM_NOT_UTF8,
                                      &err);
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);
    len = ngx_pgq_json_quote(NULL, message->data, message->len);

    if (clcf->client_max_body_size
        && (off_t) len > clcf->client_max_body_size)
    {
        problem->kind = NGX_PGQ_PROBLEM_TOO_LARGE;
        problem->detail = "The text, as a JSON string, is longer than this"
                          " server accepts.";
        return NGX_DECLINED;
    }

    json = ngx_pgq_message_alloc(r, memory, len);
    if (json == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_pgq_json_quote(json, message->data, message->len);

    message->data = json;
    message->len = len;

    return NGX_OK;
}


static ngx_int_t
ngx_pgq_message_refuse(ngx_http_request_t *r, ngx_pgq_problem_t *problem,
    ngx_pgq_problem_e kind, ngx_pgq_json_error_t *err)
{
    problem->offset = (ngx_int_t) err->offset;

    return ngx_pgq_problem_detail(r, problem, kind, "%s, at byte %uz",
                                  err->problem, err->offset);
}
