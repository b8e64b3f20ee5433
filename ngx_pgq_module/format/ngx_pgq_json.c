/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file checks the grammar of JSON, except strings and characters, which
 * ngx_pgq_json_string.c checks.
 *
 * One loop reads a token at a time; its state is the set of tokens that may
 * follow.  The nesting is one bit per level (1: an object): 128 bytes for 1024
 * levels, and no recursion.
 *
 * Invariants:
 *  - bit n of levels[] is valid for n < depth; object equals the topmost bit;
 *  - when p is NULL, the error is set.
 */

#include "ngx_pgq_json.h"
#include "ngx_pgq_json_text.h"


static const u_char *ngx_pgq_json_scalar(ngx_pgq_json_text_t *text,
    const u_char *p);
static const u_char *ngx_pgq_json_literal(ngx_pgq_json_text_t *text,
    const u_char *p);
static const u_char *ngx_pgq_json_number(ngx_pgq_json_text_t *text,
    const u_char *p);
static const u_char *ngx_pgq_json_digits(ngx_pgq_json_text_t *text,
    const u_char *p);


#define ngx_pgq_json_space(c)                                                \
    ((c) == ' ' || (c) == '\n' || (c) == '\r' || (c) == '\t')


int
ngx_pgq_json_check(const u_char *p, size_t len, unsigned depth_max,
    ngx_pgq_json_error_t *err)
{
    u_char               c, object;
    uint64_t             levels[NGX_PGQ_JSON_DEPTH_MAX / 64];
    unsigned             depth;
    ngx_pgq_json_text_t  text;

    enum {
        sw_value = 0,
        sw_first_value,
        sw_key,
        sw_first_key,
        sw_more
    } state;

    text.start = p;
    text.end = p + len;
    text.err = err;
    text.unfit = 0;
    err->grammatical = 0;

    if (depth_max > NGX_PGQ_JSON_DEPTH_MAX) {
        depth_max = NGX_PGQ_JSON_DEPTH_MAX;
    }

    if (len >= 3 && p[0] == 0xef && p[1] == 0xbb && p[2] == 0xbf) {
        ngx_pgq_json_unfit(&text, p, "byte order mark");
        p += 3;
    }

    object = 0;
    depth = 0;
    state = sw_value;

    while (p != NULL) {

        while (p < text.end && ngx_pgq_json_space(*p)) {
            p++;
        }

        if (p == text.end) {
            if (state == sw_more && depth == 0) {
                err->grammatical = text.unfit;
                return text.unfit ? -1 : 0;
            }

            ngx_pgq_json_fail(&text, p, depth == 0 ? "empty"
                                        : object ? "unfinished object"
                                                 : "unfinished array");
            return -1;
        }

        c = *p;

        switch (state) {

        case sw_first_value:

            if (c == ']') {
                state = sw_more;
                break;
            }

            /* fall through */

        case sw_value:

            if (c != '{' && c != '[') {
                p = ngx_pgq_json_scalar(&text, p);
                state = sw_more;
                break;
            }

            if (depth >= depth_max) {
                ngx_pgq_json_unfit(&text, p, "nested too deeply");
            }

            if (depth == NGX_PGQ_JSON_DEPTH_MAX) {
                err->grammatical = 1;
                return -1;
            }

            object = (c == '{');

            if (depth % 64 == 0) {
                levels[depth / 64] = 0;
            }

            if (object) {
                levels[depth / 64] |= (uint64_t) 1 << depth % 64;

            } else {
                levels[depth / 64] &= ~((uint64_t) 1 << depth % 64);
            }

            depth++;
            p++;
            state = object ? sw_first_key : sw_first_value;
            break;

        case sw_first_key:

            if (c == '}') {
                state = sw_more;
                break;
            }

            /* fall through */

        case sw_key:

            if (c != '"') {
                p = ngx_pgq_json_unexpected(&text, p,
                                            "object key is not a string");
                break;
            }

            p = ngx_pgq_json_string(&text, p);

            while (p != NULL && p < text.end && ngx_pgq_json_space(*p)) {
                p++;
            }

            if (p == NULL || p == text.end) {
                break;
            }

            if (*p != ':') {
                p = ngx_pgq_json_unexpected(&text, p,
                                            "no colon after an object key");
                break;
            }

            p++;
            state = sw_value;
            break;

        case sw_more:

            if (depth == 0) {
                p = ngx_pgq_json_unexpected(&text, p,
                                            "more text after the JSON value");
                break;
            }

            if (c == ',') {
                p++;
                state = object ? sw_key : sw_value;
                break;
            }

            if (c != (object ? '}' : ']')) {
                p = ngx_pgq_json_unexpected(&text, p, object
                                           ? "neither comma nor } in object"
                                           : "neither comma nor ] in array");
                break;
            }

            p++;
            depth--;

            if (depth) {
                object = levels[(depth - 1) / 64] >> (depth - 1) % 64 & 1;
            }

            break;
        }
    }

    return -1;
}


size_t
ngx_pgq_json_trim(const u_char **p, size_t len)
{
    const u_char  *first, *end;

    first = *p;
    end = first + len;

    while (first < end && ngx_pgq_json_space(*first)) {
        first++;
    }

    while (end > first && ngx_pgq_json_space(end[-1])) {
        end--;
    }

    *p = first;

    return end - first;
}


static const u_char *
ngx_pgq_json_scalar(ngx_pgq_json_text_t *text, const u_char *p)
{
    switch (*p) {

    case '"':
        return ngx_pgq_json_string(text, p);

    case 't':
    case 'f':
    case 'n':
        return ngx_pgq_json_literal(text, p);

    case '-':
    case '0': case '1': case '2': case '3': case '4':
    case '5': case '6': case '7': case '8': case '9':
        return ngx_pgq_json_number(text, p);

    default:
        return ngx_pgq_json_unexpected(text, p, "not a JSON value");
    }
}


static const u_char *
ngx_pgq_json_literal(ngx_pgq_json_text_t *text, const u_char *p)
{
    const char  *word;

    word = (*p == 't') ? "true" : (*p == 'f') ? "false" : "null";

    for ( /* void */ ; *word; word++, p++) {

        if (p == text->end) {
            return ngx_pgq_json_fail(text, p, "unfinished literal");
        }

        if (*p != (u_char) *word) {
            return ngx_pgq_json_unexpected(text, p, "not a JSON value");
        }
    }

    return p;
}


static const u_char *
ngx_pgq_json_number(ngx_pgq_json_text_t *text, const u_char *p)
{
    if (*p == '-') {
        p++;
    }

    if (p < text->end && *p == '0') {
        p++;

        if (p < text->end && ngx_pgq_json_digit(*p)) {
            return ngx_pgq_json_fail(text, p, "number with a leading zero");
        }

    } else {
        p = ngx_pgq_json_digits(text, p);
    }

    if (p != NULL && p < text->end && *p == '.') {
        p = ngx_pgq_json_digits(text, p + 1);
    }

    if (p != NULL && p < text->end && (*p == 'e' || *p == 'E')) {
        p++;

        if (p < text->end && (*p == '+' || *p == '-')) {
            p++;
        }

        p = ngx_pgq_json_digits(text, p);
    }

    return p;
}


static const u_char *
ngx_pgq_json_digits(ngx_pgq_json_text_t *text, const u_char *p)
{
    if (p == text->end) {
        return ngx_pgq_json_fail(text, p, "unfinished number");
    }

    if (!ngx_pgq_json_digit(*p)) {
        return ngx_pgq_json_unexpected(text, p, "no digit in a number");
    }

    do {
        p++;
    } while (p < text->end && ngx_pgq_json_digit(*p));

    return p;
}
