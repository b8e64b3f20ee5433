/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file checks and writes strings and characters of JSON.  Most bytes of a
 * message are plain ASCII in strings: these are checked eight at a time.
 *
 * Invariant: the lowest bit that ngx_pgq_json_special() sets is correct.  The
 * higher bits may be wrong, because a subtraction borrows.
 */

#include "ngx_pgq_json.h"
#include "ngx_pgq_json_text.h"

#include <string.h>


static const u_char *ngx_pgq_json_escape(ngx_pgq_json_text_t *text,
    const u_char *p);
static const u_char *ngx_pgq_json_hex(ngx_pgq_json_text_t *text,
    const u_char *p, unsigned *code);
static const u_char *ngx_pgq_json_plain(const u_char *p, const u_char *end);
static size_t ngx_pgq_json_append(u_char *dst, size_t n, const void *from,
    size_t len);


#define ngx_pgq_json_repeat(byte)  ((uint64_t) (byte) * 0x0101010101010101)


int
ngx_pgq_json_utf8(const u_char *p, size_t len, ngx_pgq_json_error_t *err)
{
    uint64_t             word;
    const u_char        *next;
    ngx_pgq_json_text_t  text;

    text.start = p;
    text.end = p + len;
    text.err = err;
    text.unfit = 0;

    while (p < text.end) {

        if (text.end - p >= 8) {
            memcpy(&word, p, 8);

            if (((word | (word - ngx_pgq_json_repeat(0x01)))
                 & ngx_pgq_json_repeat(0x80)) == 0)
            {
                p += 8;
                continue;
            }
        }

        if (*p == '\0') {
            ngx_pgq_json_fail(&text, p, "zero byte");
            return -1;
        }

        next = ngx_pgq_json_character(p, text.end);

        if (next == NULL) {
            ngx_pgq_json_fail(&text, p, "not UTF-8");
            return -1;
        }

        p = next;
    }

    return 0;
}


size_t
ngx_pgq_json_quote(u_char *dst, const u_char *p, size_t len)
{
    u_char         c, escape[6] = "\\u00";
    size_t         n;
    const u_char  *end, *next;

    static const char  hex[] = "0123456789abcdef", letters[] = "btnvfr";

    end = p + len;
    n = ngx_pgq_json_append(dst, 0, "\"", 1);

    for ( /* void */ ; p < end; p = next + 1) {
        next = ngx_pgq_json_plain(p, end);
        n = ngx_pgq_json_append(dst, n, p, next - p);

        if (next == end) {
            break;
        }

        c = *next;

        if (c >= 0x80) {
            n = ngx_pgq_json_append(dst, n, next, 1);

        } else if (c >= 0x20) {
            n = ngx_pgq_json_append(dst, n, "\\", 1);
            n = ngx_pgq_json_append(dst, n, next, 1);

        } else if (c >= '\b' && c <= '\r' && c != '\v') {
            n = ngx_pgq_json_append(dst, n, "\\", 1);
            n = ngx_pgq_json_append(dst, n, &letters[c - '\b'], 1);

        } else {
            escape[4] = (u_char) hex[c >> 4];
            escape[5] = (u_char) hex[c & 15];
            n = ngx_pgq_json_append(dst, n, escape, 6);
        }
    }

    return ngx_pgq_json_append(dst, n, "\"", 1);
}


static size_t
ngx_pgq_json_append(u_char *dst, size_t n, const void *from, size_t len)
{
    if (dst) {
        memcpy(dst + n, from, len);
    }

    return n + len;
}


const u_char *
ngx_pgq_json_string(ngx_pgq_json_text_t *text, const u_char *p)
{
    const u_char  *next;

    p++;

    for ( ;; ) {
        p = ngx_pgq_json_plain(p, text->end);

        if (p == text->end) {
            return ngx_pgq_json_fail(text, p, "unfinished string");
        }

        if (*p == '"') {
            return p + 1;
        }

        if (*p == '\\') {
            p = ngx_pgq_json_escape(text, p);

            if (p == NULL) {
                return NULL;
            }

            continue;
        }

        if (*p < 0x20) {
            return ngx_pgq_json_fail(text, p, "control character in a string");
        }

        do {
            next = ngx_pgq_json_character(p, text->end);

            if (next == NULL) {
                return ngx_pgq_json_fail(text, p, "not UTF-8");
            }

            p = next;

        } while (p < text->end && *p >= 0x80);
    }
}


/*
 * p is at the backslash.  A high surrogate is read together with the low one
 * that must follow.  After a lone surrogate reading continues as after any
 * character.
 */

static const u_char *
ngx_pgq_json_escape(ngx_pgq_json_text_t *text, const u_char *p)
{
    unsigned       code;
    const u_char  *escape, *next;

    escape = p++;

    if (p == text->end) {
        return ngx_pgq_json_fail(text, p, "unfinished string");
    }

    if (*p != 'u') {

        if (*p == '\0' || strchr("\"\\/bfnrt", *p) == NULL) {
            return ngx_pgq_json_unexpected(text, p, "unknown escape");
        }

        return p + 1;
    }

    p = ngx_pgq_json_hex(text, p + 1, &code);

    if (p == NULL) {
        return NULL;
    }

    if (code == 0) {
        ngx_pgq_json_unfit(text, escape, "escape \\u0000");
    }

    if (code < 0xd800 || code > 0xdfff) {
        return p;
    }

    if (code < 0xdc00 && p == text->end) {
        return ngx_pgq_json_fail(text, p, "unfinished string");
    }

    if (code >= 0xdc00 || p[0] != '\\'
        || (text->end - p > 1 && p[1] != 'u'))
    {
        ngx_pgq_json_unfit(text, escape, "lone surrogate escape");
        return p;
    }

    if (text->end - p == 1) {
        return ngx_pgq_json_fail(text, text->end, "unfinished string");
    }

    next = ngx_pgq_json_hex(text, p + 2, &code);

    if (next != NULL && (code < 0xdc00 || code > 0xdfff)) {
        ngx_pgq_json_unfit(text, escape, "lone surrogate escape");
        return p;
    }

    return next;
}


static const u_char *
ngx_pgq_json_hex(ngx_pgq_json_text_t *text, const u_char *p, unsigned *code)
{
    unsigned  c, n;

    *code = 0;

    for (n = 0; n < 4; n++, p++) {

        if (p == text->end) {
            return ngx_pgq_json_fail(text, p, "unfinished string");
        }

        c = *p;

        if (ngx_pgq_json_digit(c)) {
            c -= '0';

        } else {
            c |= 0x20;

            if (c < 'a' || c > 'f') {
                return ngx_pgq_json_unexpected(text, p,
                                               "no hexadecimal digit in \\u");
            }

            c -= 'a' - 10;
        }

        *code = *code << 4 | c;
    }

    return p;
}


/* Sets the high bit of each byte that is not plain ASCII of a string. */

static inline uint64_t
ngx_pgq_json_special(uint64_t word)
{
    uint64_t  quote, backslash;

    quote = word ^ ngx_pgq_json_repeat('"');
    backslash = word ^ ngx_pgq_json_repeat('\\');

    return (word
            | ((word - ngx_pgq_json_repeat(0x20)) & ~word)
            | ((quote - ngx_pgq_json_repeat(0x01)) & ~quote)
            | ((backslash - ngx_pgq_json_repeat(0x01)) & ~backslash))
           & ngx_pgq_json_repeat(0x80);
}


/* Returns the first byte that is not plain, or end. */

static const u_char *
ngx_pgq_json_plain(const u_char *p, const u_char *end)
{
    uint64_t  word, special;

    while (end - p >= 8) {
        memcpy(&word, p, 8);

        special = ngx_pgq_json_special(word);

        if (special) {
#if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
            return p + (__builtin_ctzll(special) >> 3);
#else
            break;
#endif
        }

        p += 8;
    }

    while (p < end && *p >= 0x20 && *p < 0x80 && *p != '"' && *p != '\\') {
        p++;
    }

    return p;
}


const u_char *
ngx_pgq_json_character(const u_char *p, const u_char *end)
{
#define ngx_pgq_json_tail(c)  (((c) & 0xc0) == 0x80)

    if (p[0] < 0x80) {
        return p + 1;
    }

    if (p[0] < 0xc2 || p[0] > 0xf4) {
        return NULL;
    }

    if (p[0] < 0xe0) {
        return (end - p >= 2 && ngx_pgq_json_tail(p[1])) ? p + 2 : NULL;
    }

    if (p[0] < 0xf0) {
        if (end - p < 3
            || !ngx_pgq_json_tail(p[1]) || !ngx_pgq_json_tail(p[2])
            || (p[0] == 0xe0 && p[1] < 0xa0)
            || (p[0] == 0xed && p[1] > 0x9f))
        {
            return NULL;
        }

        return p + 3;
    }

    if (end - p < 4
        || !ngx_pgq_json_tail(p[1]) || !ngx_pgq_json_tail(p[2])
        || !ngx_pgq_json_tail(p[3])
        || (p[0] == 0xf0 && p[1] < 0x90)
        || (p[0] == 0xf4 && p[1] > 0x8f))
    {
        return NULL;
    }

    return p + 4;

#undef ngx_pgq_json_tail
}


void
ngx_pgq_json_unfit(ngx_pgq_json_text_t *text, const u_char *p,
    const char *problem)
{
    (void) ngx_pgq_json_fail(text, p, problem);
    text->unfit = 1;
}


const u_char *
ngx_pgq_json_fail(ngx_pgq_json_text_t *text, const u_char *p,
    const char *problem)
{
    if (!text->unfit) {
        text->err->offset = p - text->start;
        text->err->problem = problem;
    }

    return NULL;
}


const u_char *
ngx_pgq_json_unexpected(ngx_pgq_json_text_t *text, const u_char *p,
    const char *problem)
{
    if (ngx_pgq_json_character(p, text->end) == NULL) {
        problem = "not UTF-8";
    }

    return ngx_pgq_json_fail(text, p, problem);
}
