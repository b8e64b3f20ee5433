/* SPDX-License-Identifier: PostgreSQL */

/*
 * Requests, and the functions of the module that the files under test call:
 * see nginx_stub.h.
 */

#include "nginx_stub.h"

#include <ctype.h>


stub_answer_t  stub_answer;


stub_request_t *
stub_request(ngx_pgq_loc_conf_t *conf)
{
    stub_request_t  *f;

    static ngx_log_t         log;
    static ngx_connection_t  connection = {
        .log = &log, .addr_text = ngx_string(STUB_ADDRESS)
    };

    f = calloc(1, sizeof(stub_request_t));
    fuzz_check(f != NULL);

    f->conf[0] = conf;
    f->conf[1] = &f->core;
    f->request.connection = &connection;
    f->request.main = &f->request;
    f->request.ctx = f->ctx;
    f->request.loc_conf = f->conf;
    f->request.pool = ngx_create_pool(0, &log);
    f->request.headers_in.headers.part.elts = f->headers;

    return f;
}


void
stub_request_free(stub_request_t *f)
{
    ngx_destroy_pool(f->request.pool);
    free(f);
}


ngx_str_t
stub_line(fuzz_input_t *in)
{
    size_t     len, got;
    ngx_str_t  text;

    for (len = 0; len < in->len && in->p[len] != '\n'; len++) { /* void */ }

    text.data = (u_char *) fuzz_bytes(in, len, &got);
    text.len = got;
    (void) fuzz_byte(in);

    return text;
}


static void
stub_header(stub_request_t *f, ngx_table_elt_t *h, fuzz_input_t line)
{
    u_char         *p;
    const uint8_t  *colon, *end;

    end = line.p + line.len;
    colon = line.len ? memchr(line.p, ':', line.len) : NULL;
    colon = colon ? colon : end;

    h->hash = 1;
    h->key.len = colon - line.p;
    h->lowcase_key = ngx_pnalloc(f->request.pool, h->key.len);

    for (p = h->lowcase_key; line.p < colon; line.p++) {
        *p++ = (u_char) tolower(*line.p);
    }

    h->key.data = h->lowcase_key;

    line.p = colon < end ? colon + 1 : end;

    while (line.p < end && *line.p == ' ') {
        line.p++;
    }

    while (end > line.p && end[-1] == ' ') {
        end--;
    }

    h->value.len = end - line.p;
    h->value.data = ngx_pnalloc(f->request.pool, h->value.len);
    memcpy(h->value.data, line.p, h->value.len);

    if (h->key.len == 12 && memcmp(h->lowcase_key, "content-type", 12) == 0
        && f->request.headers_in.content_type == NULL)
    {
        f->request.headers_in.content_type = h;
    }
}


/* half of the headers are in a part of their own, as if the first was full */

fuzz_input_t
stub_headers(stub_request_t *f, fuzz_input_t in)
{
    size_t            n, got;
    fuzz_input_t      line;
    const uint8_t    *end;
    ngx_list_part_t  *part;

    for (n = 0; in.len && n < STUB_HEADERS; n++) {
        end = memchr(in.p, '\n', in.len);
        line.len = end ? (size_t) (end - in.p) : in.len;
        line.p = fuzz_bytes(&in, line.len, &got);
        (void) fuzz_byte(&in);

        if (line.len && line.p[line.len - 1] == '\r') {
            line.len--;
        }

        if (line.len == 0) {
            break;
        }

        stub_header(f, &f->headers[n], line);
    }

    part = &f->request.headers_in.headers.part;
    part->nelts = n / 2;
    part->next = &f->parts[0];
    f->parts[0].elts = f->headers + n / 2;
    f->parts[0].nelts = n - n / 2;
    f->parts[0].next = NULL;

    return in;
}


void
stub_body(stub_request_t *f, fuzz_input_t in, size_t piece, ngx_uint_t in_file)
{
    size_t         len, at;
    ngx_buf_t     *buf;
    ngx_chain_t   *cl, **last;
    const uint8_t  *p;

    static ngx_file_t  file;

    stub_file = ngx_pnalloc(f->request.pool, in.len);
    stub_file_len = in.len;

    f->request.request_body = &f->body;
    last = &f->body.bufs;

    for (at = 0; in.len; at += len, in_file = in_file ? 3 - in_file : 0) {
        p = fuzz_bytes(&in, piece ? piece : in.len, &len);

        cl = ngx_pcalloc(f->request.pool, sizeof(ngx_chain_t));
        buf = ngx_pcalloc(f->request.pool, sizeof(ngx_buf_t));
        cl->buf = buf;
        *last = cl;
        last = &cl->next;

        if (in_file == 1) {
            memcpy(stub_file + at, p, len);
            buf->in_file = 1;
            buf->file = &file;
            buf->file_pos = (off_t) at;
            buf->file_last = (off_t) (at + len);
            continue;
        }

        buf->temporary = 1;
        buf->start = buf->pos = ngx_pnalloc(f->request.pool, len);
        buf->end = buf->last = buf->pos + len;
        memcpy(buf->pos, p, len);
    }

    *last = NULL;
}


/* functions of the module that those files call */

void
stub_answered(void)
{
    free(stub_answer.body);
    memset(&stub_answer, 0, sizeof(stub_answer));
}


static ngx_int_t
stub_reply(ngx_http_request_t *r, ngx_uint_t status, const char *code)
{
    stub_answer.answers++;
    stub_answer.request = r;
    stub_answer.status = status;
    snprintf(stub_answer.code, sizeof(stub_answer.code), "%s", code);

    return NGX_OK;
}


ngx_int_t
ngx_pgq_reply_default(ngx_http_request_t *r, ngx_pgq_problem_e kind)
{
    fuzz_check(strlen(ngx_pgq_problems[kind].detail) > 0);

    return stub_reply(r, ngx_pgq_problems[kind].status,
                      ngx_pgq_problems[kind].code);
}


ngx_int_t
ngx_pgq_reply_problem(ngx_http_request_t *r, ngx_pgq_problem_t *problem)
{
    fuzz_check(problem->detail == NULL || strlen(problem->detail) > 0);
    stub_answer.offset = problem->offset;

    return ngx_pgq_reply_default(r, problem->kind);
}


ngx_int_t
ngx_pgq_reply_body(ngx_http_request_t *r, ngx_uint_t status, ngx_str_t *type,
    u_char *data, size_t len)
{
    fuzz_check(type->len > 0);
    free(stub_answer.body);
    stub_answer.body = fuzz_copy(data, len);
    stub_answer.len = len;

    return stub_reply(r, status, "");
}


/* no request here is from a page of another origin, or has a wrong method */

ngx_uint_t
ngx_pgq_endpoint_admits(ngx_http_request_t *r, ngx_pgq_fields_t *fields,
    ngx_uint_t methods, ngx_int_t *rc)
{
    (void) fields;
    (void) rc;
    fuzz_check(r->method & methods);

    return 1;
}


void
ngx_pgq_endpoint_wait(ngx_http_request_t *r)
{
    r->main->count++;
    r->read_event_handler = ngx_http_test_reading;
}


ngx_int_t
ngx_pgq_reply_chain(ngx_http_request_t *r, ngx_uint_t status, ngx_str_t *type,
    ngx_chain_t *out, size_t len)
{
    size_t  at, n;

    fuzz_check(type->len > 0);
    free(stub_answer.body);
    stub_answer.body = malloc(len + 1);
    stub_answer.len = len;

    for (at = 0; out; out = out->next) {
        n = out->buf->last - out->buf->pos;
        fuzz_check(n > 0 && at + n <= len);
        memcpy(stub_answer.body + at, out->buf->pos, n);
        at += n;
    }

    fuzz_check(at == len);

    return stub_reply(r, status, "");
}


ngx_int_t
ngx_pgq_reply_unavailable(ngx_http_request_t *r, ngx_pgq_pool_t *db,
    ngx_pgq_problem_e kind)
{
    fuzz_check(db != NULL);
    (void) ngx_pgq_reply_default(r, kind);
    fuzz_check(stub_answer.status == 503);

    return NGX_OK;
}


ngx_table_elt_t *
ngx_pgq_reply_header(ngx_http_request_t *r, const char *name, ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    fuzz_check(strlen(name) > 0);

    h = ngx_pcalloc(r->pool, sizeof(ngx_table_elt_t));
    h->value = *value;

    return h;
}


ngx_int_t
ngx_pgq_reply_field(ngx_http_request_t *r, const char *name, const char *fmt,
    ...)
{
    (void) r;
    fuzz_check(strlen(name) > 0 && strlen(fmt) > 0);

    return NGX_OK;
}


ngx_pgq_ctx_t *
ngx_pgq_variables_ctx(ngx_http_request_t *r, ngx_pgq_metrics_handler_e handler)
{
    ngx_pgq_ctx_t  *ctx;

    ctx = ngx_pcalloc(r->pool, sizeof(ngx_pgq_ctx_t));
    ctx->request = r;
    ctx->handler = handler;
    ngx_http_set_ctx(r, ctx, ngx_http_pgq_module);

    return ctx;
}


void
ngx_pgq_pool_open(ngx_pgq_pool_t *db)
{
    db->opened = 1;
}


ngx_uint_t
ngx_pgq_pool_connected(ngx_pgq_pool_t *db)
{
    return db->opened;
}


void
ngx_pgq_pool_count(ngx_pgq_pool_t *db, ngx_int_t tickets, ngx_int_t size)
{
    (void) tickets;
    db->size += size;
}


void
ngx_pgq_pool_hold(ngx_pgq_pool_t *db, ngx_msec_t deadline, size_t size)
{
    (void) size;
    (void) deadline;
    db->unanswered++;
}


void
ngx_pgq_pool_release(ngx_pgq_pool_t *db, size_t size)
{
    (void) size;
    fuzz_check(db->unanswered > 0);
    db->unanswered--;
}


void
ngx_pgq_pool_wake(ngx_pgq_pool_t *db)
{
    (void) db;
}


void
ngx_pgq_pool_answered(ngx_pgq_pool_t *db)
{
    (void) db;
}
