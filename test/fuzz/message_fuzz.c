/* SPDX-License-Identifier: PostgreSQL */

/*
 * Requests with any headers and any body, in pieces, in memory or on disk.
 * The message must be the one that the reference parsers of the unit tests
 * find.
 *
 * An input is three bytes, headers up to an empty line, and the body.  The
 * bytes are: the length of a piece; whether pieces are in a file; the depth of
 * JSON and, in the upper bits, the length of a string.
 */

#include "nginx_stub.h"
#include "header_oracle.h"
#include "json_oracle.h"
#include "ngx_pgq_key.h"


typedef enum {
    JSON, TEXT, ANY, LINES, NEITHER, MALFORMED
} form_e;


/* The meaning of the headers by the reference parser. */

typedef struct {
    form_e            form;
    int               coded;
    ngx_pgq_return_e  returns;
    int               keys;
    long              key_len;              /* -1: malformed */
    ngx_str_t         scope;                /* its value, or no data */
    char              key[HEADER_ORACLE_MAX];
} said_t;


static form_e
form(const ngx_table_elt_t *h)
{
    int     i, utf8;
    char    name[HEADER_ORACLE_MAX];
    size_t  n;

    static const char  *json[] = { "application/json", "application/x-json",
                                   "text/json", "text/x-json", NULL };
    static const char  *lines[] = { "ndjson", "jsonl", "jsonlines",
                                    "json-lines", "ldjson", NULL };

    if (header_oracle_type((char *) h->value.data, h->value.len, name, &utf8)
        != 0)
    {
        return MALFORMED;
    }

    if (!utf8) {
        return NEITHER;
    }

    n = strlen(strchr(name, '/') + 1);

    if (n > 5 && strcmp(name + strlen(name) - 5, "+json") == 0) {
        return JSON;
    }

    for (i = 0; json[i]; i++) {
        if (strcmp(name, json[i]) == 0) {
            return JSON;
        }
    }

    n = strncmp(name, "application/", 12) == 0 ? 12
        : strncmp(name, "text/", 5) == 0 ? 5 : 0;
    n += n && strncmp(name + n, "x-", 2) == 0 ? 2 : 0;

    for (i = 0; n && lines[i]; i++) {
        if (strcmp(name + n, lines[i]) == 0) {
            return LINES;
        }
    }

    return strcmp(name, "text/plain") == 0 ? TEXT : ANY;
}


static int
named(const ngx_table_elt_t *h, const char *name)
{
    return h->key.len == strlen(name)
           && memcmp(h->key.data, name, h->key.len) == 0;
}


static void
read_headers(stub_request_t *f, said_t *said)
{
    int               i, rc, types, returns;
    char              value[HEADER_ORACLE_MAX];
    ngx_table_elt_t  *h;

    memset(said, 0, offsetof(said_t, key));
    said->form = ANY;
    types = returns = 0;

    for (i = 0; i < STUB_HEADERS; i++) {
        h = &f->headers[i];

        if (named(h, "content-type")) {
            said->form = types++ ? MALFORMED : form(h);

        } else if (named(h, "content-encoding")) {
            said->coded |= header_oracle_codings((char *) h->value.data,
                                                 h->value.len) != 0;

        } else if (named(h, "idempotency-key")) {
            said->keys++;
            said->key_len = header_oracle_key((char *) h->value.data,
                                              h->value.len, said->key);

        } else if (named(h, "x-scope")) {
            said->scope = h->value;

        } else if (named(h, "prefer") && returns >= 0) {
            rc = header_oracle_prefer((char *) h->value.data, h->value.len,
                                      value);

            if (rc < 0) {
                returns = -1;
                said->returns = NGX_PGQ_RETURN_DEFAULT;

            } else if (rc && returns++ == 0) {
                said->returns = strcmp(value, "minimal") == 0
                                ? NGX_PGQ_RETURN_MINIMAL
                                : strcmp(value, "representation") == 0
                                ? NGX_PGQ_RETURN_REPRESENTATION
                                : NGX_PGQ_RETURN_DEFAULT;
            }
        }
    }
}


/* Writes the prefix of a key.  Returns its length, -1 for an invalid scope. */

static long
scope(const said_t *said, int scoped, char *text)
{
    long    n;
    size_t  i;

    n = 0;

    for (i = 0; i < said->scope.len; i++) {
        text[n++] = (char) said->scope.data[i];

        if (said->scope.data[i] < ' ' || said->scope.data[i] == 0x7f) {
            return -1;
        }
    }

    if (n > 255 || json_oracle_utf8((u_char *) text, (size_t) n) != 0) {
        return -1;
    }

    if (n) {
        text[n++] = 0x1f;
        return n;
    }

    return scoped ? sprintf(text, "address\x1e%s\x1f", STUB_ADDRESS) : 0;
}


static void
read_key(stub_request_t *f, const said_t *said)
{
    long                       n;
    char                       begin[HEADER_ORACLE_MAX];
    ngx_int_t                  rc;
    ngx_str_t                  key;
    ngx_pgq_problem_t          problem = ngx_pgq_problem_init(NGX_PGQ_PROBLEM_ERROR);
    ngx_pgq_loc_conf_t        *conf = f->conf[0];
    ngx_http_complex_value_t   value;

    memset(&value, 0, sizeof(value));
    value.value = said->scope;
    conf->scoped = f->request.request_body->bufs != NULL || said->scope.data;
    conf->scope = said->scope.data ? &value : NULL;

    n = scope(said, (int) conf->scoped, begin);
    rc = ngx_pgq_message_key(&f->request, &key, &problem);
    conf->scope = NULL;

    if (said->keys == 0) {
        fuzz_check(rc == NGX_OK && key.len == 0);

    } else if (n < 0) {
        fuzz_check(rc == NGX_DECLINED
                   && problem.kind == NGX_PGQ_PROBLEM_BAD_SCOPE);
        fuzz_check(ngx_pgq_problems[problem.kind].status == 400);

    } else if (said->keys > 1 || said->key_len < 0
               || said->key_len > NGX_PGQ_KEY_MAX)
    {
        fuzz_check(rc == NGX_DECLINED
                   && problem.kind == NGX_PGQ_PROBLEM_BAD_KEY);
        fuzz_check(ngx_pgq_problems[problem.kind].status == 400);

    } else {
        fuzz_check(rc == NGX_OK && key.len == (size_t) (n + said->key_len));
        fuzz_check(memcmp(key.data, begin, (size_t) n) == 0);
        fuzz_check(memcmp(key.data + n, said->key, (size_t) said->key_len)
                   == 0);
    }
}


/* The text of a JSON string, with its escapes decoded. */

static size_t
unescaped(u_char *dst, const u_char *p, size_t len)
{
    u_char       *start;
    char          hex[5];
    unsigned      code;
    const char   *c;

    static const char  from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";

    fuzz_check(len >= 2 && p[0] == '"' && p[len - 1] == '"');

    for (start = dst, p++, len -= 2; len; p++, len--) {

        if (*p != '\\') {
            *dst++ = *p;
            continue;
        }

        p++;
        len--;

        if (*p != 'u') {
            c = strchr(from, *p);
            fuzz_check(c != NULL);
            *dst++ = (u_char) to[c - from];
            continue;
        }

        memcpy(hex, p + 1, 4);
        hex[4] = '\0';
        code = (unsigned) strtoul(hex, NULL, 16);
        fuzz_check(code < 0x80);
        *dst++ = (u_char) code;
        p += 4;
        len -= 4;
    }

    return dst - start;
}


/* The length of a text as a JSON string. */

static size_t
quoted(fuzz_input_t body)
{
    size_t  n;

    for (n = 2; body.len; body.len--, body.p++) {
        n += strchr("\"\\\b\f\n\r\t", *body.p) ? 2
             : *body.p < 0x20 ? 6 : 1;
    }

    return n;
}


static void
taken_as_text(ngx_str_t *message, fuzz_input_t body)
{
    size_t   len;
    u_char  *text;

    fuzz_check(json_oracle(message->data, message->len, 1) == 0);

    text = malloc(message->len);
    len = unescaped(text, message->data, message->len);
    fuzz_check(len == body.len && memcmp(text, body.p, len) == 0);
    free(text);
}


static void
taken_as_json(ngx_str_t *message, fuzz_input_t body)
{
    while (body.len && strchr(" \t\r\n", body.p[0])) {
        (void) fuzz_byte(&body);
    }

    while (body.len && strchr(" \t\r\n", body.p[body.len - 1])) {
        body.len--;
    }

    fuzz_check(message->len == body.len
               && memcmp(message->data, body.p, body.len) == 0);
}


static void
read_message(stub_request_t *f, form_e wanted, fuzz_input_t body, int depth)
{
    int                 json, text, utf8;
    ngx_int_t           rc;
    ngx_str_t           message;
    ngx_pool_t         *memory;
    ngx_pgq_problem_t   problem = ngx_pgq_problem_init(NGX_PGQ_PROBLEM_ERROR);

    rc = ngx_pgq_message_read(&f->request, &memory, &message, &problem);

    if (body.len == 0) {
        fuzz_check(rc == NGX_DECLINED
                   && problem.kind == NGX_PGQ_PROBLEM_EMPTY);
        fuzz_check(ngx_pgq_problems[problem.kind].status == 400);
        fuzz_check(memory == NULL);
        return;
    }

    json = wanted != TEXT && json_oracle(body.p, body.len, depth) == 0;
    utf8 = json_oracle_utf8(body.p, body.len) == 0;
    text = utf8 && wanted != JSON
           && (wanted == TEXT
               || json_oracle_grammatical(body.p, body.len) != 0);

    if (text && !json
        && quoted(body) > (size_t) f->core.client_max_body_size)
    {
        fuzz_check(rc == NGX_DECLINED
                   && problem.kind == NGX_PGQ_PROBLEM_TOO_LARGE);

    } else if (json || text) {
        fuzz_check(rc == NGX_OK && problem.kind == NGX_PGQ_PROBLEM_ERROR);
        json ? taken_as_json(&message, body) : taken_as_text(&message, body);
    }

    if (memory) {
        ngx_destroy_pool(memory);
    }

    if (json || text) {
        return;
    }

    fuzz_check(rc == NGX_DECLINED
               && (problem.kind == NGX_PGQ_PROBLEM_NOT_UTF8
                   || problem.kind == NGX_PGQ_PROBLEM_NOT_JSON));
    fuzz_check(problem.offset >= 0
               && problem.offset <= (ngx_int_t) body.len);

    if (wanted == TEXT) {
        fuzz_check(problem.kind == NGX_PGQ_PROBLEM_NOT_UTF8);

    } else if (wanted == JSON || utf8) {
        fuzz_check(problem.kind == NGX_PGQ_PROBLEM_NOT_JSON);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    size_t               piece;
    said_t               said;
    ngx_int_t            rc;
    unsigned             limits;
    ngx_uint_t           in_file;
    fuzz_input_t         in = { p, len };
    ngx_pgq_ctx_t       *ctx;
    stub_request_t       *f;
    ngx_pgq_problem_t    problem = ngx_pgq_problem_init(NGX_PGQ_PROBLEM_ERROR);
    ngx_pgq_loc_conf_t   conf;

    memset(&conf, 0, sizeof(conf));

    piece = fuzz_byte(&in);
    in_file = fuzz_byte(&in) % 3;
    limits = fuzz_byte(&in);
    conf.depth = limits % 64 + 1;
    conf.idempotency = NGX_PGQ_IDEMPOTENCY_ON;

    f = stub_request(&conf);
    f->core.client_max_body_size = 16 << limits / 64 * 4;
    ctx = ngx_pgq_variables_ctx(&f->request, NGX_PGQ_METRICS_POST);
    in = stub_headers(f, in);
    stub_body(f, in, piece, in_file);

    read_headers(f, &said);
    ngx_pgq_fields_read(&f->request, &ctx->fields);
    rc = ngx_pgq_message_supported(&ctx->fields, &problem);

    if (said.form == MALFORMED) {
        fuzz_check(rc == NGX_DECLINED
                   && problem.kind == NGX_PGQ_PROBLEM_BAD_TYPE);

    } else if (said.form == NEITHER || said.coded) {
        fuzz_check(rc == NGX_DECLINED
                   && problem.kind == NGX_PGQ_PROBLEM_UNSUPPORTED_TYPE);

    } else {
        fuzz_check(rc == NGX_OK && problem.kind == NGX_PGQ_PROBLEM_ERROR);
        fuzz_check((ctx->fields.form == NGX_PGQ_FORM_NDJSON)
                   == (said.form == LINES));
        fuzz_check(ctx->fields.returns == said.returns);
        read_key(f, &said);

        if (said.form != LINES) {
            read_message(f, said.form, in, (int) conf.depth);
        }
    }

    stub_request_free(f);
    stub_answered();

    return 0;
}
