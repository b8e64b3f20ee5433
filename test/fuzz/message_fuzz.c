/* SPDX-License-Identifier: PostgreSQL */

/*
 * Requests with any headers and any body, in any pieces, in memory or on disk:
 * what the message room makes of them.  It has to be what the unit tests'
 * second opinion on JSON and a plain reading of the headers say.
 *
 * An input is three bytes (how long a piece is, whether pieces are in a file,
 * how deep JSON may be), headers up to an empty line, and the body.
 */

#include "few.h"
#include "json_oracle.h"

#include <ctype.h>
#include <strings.h>


typedef enum {
    JSON, TEXT, ANY, LINES, NEITHER, UNCLEAR
} form_e;


typedef struct {
    const char  *p;
    size_t       len;
} text_t;


static text_t
trim(text_t text)
{
    while (text.len && text.p[0] == ' ') {
        text.p++;
        text.len--;
    }

    while (text.len && text.p[text.len - 1] == ' ') {
        text.len--;
    }

    return text;
}


static int
is(text_t text, const char *word)
{
    return text.len == strlen(word)
           && strncasecmp(text.p, word, text.len) == 0;
}


static int
begins(text_t text, const char *word)
{
    return text.len >= strlen(word)
           && strncasecmp(text.p, word, strlen(word)) == 0;
}


/* The first header of that name. */

static int
header(few_request_t *f, const char *name, text_t *value)
{
    int  i;

    for (i = 0; i < FEW_HEADERS; i++) {
        if (f->headers[i].key.len == strlen(name)
            && strncasecmp((char *) f->headers[i].key.data, name, strlen(name))
               == 0)
        {
            value->p = (char *) f->headers[i].value.data;
            value->len = f->headers[i].value.len;
            return 1;
        }
    }

    return 0;
}


/*
 * 1: UTF-8, or not said; 0: something else.  -1 where the parameters are not
 * such as a client would write, and either is right.
 */

static int
charset(text_t parameters)
{
    size_t  i, found;
    text_t  name, value;

    for (found = 0, i = 0; i + 8 <= parameters.len; i++) {
        found += strncasecmp(parameters.p + i, "charset=", 8) == 0;
    }

    if (found == 0) {
        return 1;
    }

    name = trim(parameters);

    if (found > 1 || !begins(name, "charset=")) {
        return -1;
    }

    value.p = name.p + 8;
    value.len = name.len - 8;

    if (value.len >= 2 && value.p[0] == '"' && value.p[value.len - 1] == '"') {
        value.p++;
        value.len -= 2;
    }

    for (i = 0; i < value.len; i++) {
        if (!isalnum((unsigned char) value.p[i]) && value.p[i] != '-') {
            return -1;
        }
    }

    if (is(value, "utf-8") || is(value, "utf8") || is(value, "us-ascii")) {
        return 1;
    }

    /* a longer word that begins so is no charset that there is */

    return begins(value, "utf8") || begins(value, "utf-8")
           || begins(value, "us-ascii") ? -1 : 0;
}


static form_e
form(few_request_t *f)
{
    int          known;
    text_t       type, parameters;
    const char  *end;

    if (header(f, "content-encoding", &type) && type.len
        && !is(type, "identity"))
    {
        return NEITHER;
    }

    if (!header(f, "content-type", &type)) {
        return ANY;
    }

    parameters.len = 0;
    end = type.len ? memchr(type.p, ';', type.len) : NULL;

    if (end) {
        parameters.p = end + 1;
        parameters.len = type.p + type.len - parameters.p;
        type.len = end - type.p;
    }

    type = trim(type);
    known = parameters.len ? charset(parameters) : 1;

    return known < 0 ? UNCLEAR
           : !known ? NEITHER
           : is(type, "application/x-ndjson") ? LINES
           : is(type, "application/json") ? JSON
           : type.len > 5 && strncasecmp(type.p + type.len - 5, "+json", 5) == 0
             ? JSON
           : is(type, "text/plain") ? TEXT
           : ANY;
}


/* The text that a JSON string is of: escapes are undone, all else is as is. */

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
read_message(few_request_t *f, form_e wanted, fuzz_input_t body, int depth)
{
    int                 json, text;
    ngx_int_t           rc;
    ngx_str_t           message;
    ngx_pool_t         *memory;
    ngx_pgq_problem_t   problem = ngx_pgq_problem_init;

    rc = ngx_pgq_message_read(&f->request, &memory, &message, &problem);

    if (body.len == 0) {
        fuzz_check(rc == NGX_DECLINED && problem.status == 400);
        fuzz_check(strcmp(problem.code, "empty") == 0);
        fuzz_check(memory == NULL);
        return;
    }

    json = wanted != TEXT && json_oracle(body.p, body.len, depth) == 0;
    text = wanted != JSON && json_oracle_utf8(body.p, body.len) == 0;

    if (json || text) {
        fuzz_check(rc == NGX_OK && problem.status == 0);
        json ? taken_as_json(&message, body) : taken_as_text(&message, body);
    }

    if (memory) {
        ngx_destroy_pool(memory);
    }

    if (json || text) {
        return;
    }

    fuzz_check(rc == NGX_DECLINED && problem.status == 400);
    fuzz_check(problem.offset >= 0
               && problem.offset <= (ngx_int_t) body.len);
    fuzz_check(strcmp(problem.code, wanted == JSON ? "not_json" : "not_utf8")
               == 0);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    size_t               piece;
    form_e               wanted;
    ngx_int_t            rc;
    ngx_uint_t           in_file;
    fuzz_input_t         in = { p, len };
    few_request_t       *f;
    ngx_pgq_problem_t    problem = ngx_pgq_problem_init;
    ngx_pgq_loc_conf_t   conf;

    memset(&conf, 0, sizeof(conf));

    piece = fuzz_byte(&in);
    in_file = fuzz_byte(&in) % 3;
    conf.depth = fuzz_byte(&in) % 64 + 1;

    f = few_request(&conf);
    in = few_headers(f, in);
    few_body(f, in, piece, in_file);

    wanted = form(f);
    rc = ngx_pgq_message_announced(&f->request, &problem);

    fuzz_check(rc == NGX_OK ? problem.status == 0
               : rc == NGX_DECLINED && problem.status == 415);

    if (wanted == NEITHER) {
        fuzz_check(rc == NGX_DECLINED);

    } else if (wanted != UNCLEAR && wanted != LINES) {
        fuzz_check(rc == NGX_OK);
        read_message(f, wanted, in, (int) conf.depth);
    }

    few_request_free(f);
    few_answered();

    return 0;
}
