/* SPDX-License-Identifier: PostgreSQL */

/*
 * Reads a key: see ngx_pgq_key.h for what is one.
 *
 * Invariants
 * - A key consists of visible ASCII characters and spaces: nothing else gets
 *   out of here.
 */

#include "ngx_pgq_key.h"

#include <string.h>


static ssize_t ngx_pgq_key_string(u_char *key, const u_char *p,
    const u_char *last, const u_char **end);
static ssize_t ngx_pgq_key_token(u_char *key, const u_char *p,
    const u_char *last, const u_char **end);


ssize_t
ngx_pgq_key_read(u_char *key, const u_char *value, size_t len)
{
    ssize_t        n;
    const u_char  *p, *last, *end;

    p = value;
    last = value + len;

    while (p < last && *p == ' ') {
        p++;
    }

    if (p < last && *p == '"') {
        n = ngx_pgq_key_string(key, p + 1, last, &end);

    } else {
        n = ngx_pgq_key_token(key, p, last, &end);
    }

    if (n <= 0) {
        return -1;
    }

    while (end < last && *end == ' ') {
        end++;
    }

    return end == last || *end == ';' ? n : -1;
}


/* behind the first quote, to behind the last one */

static ssize_t
ngx_pgq_key_string(u_char *key, const u_char *p, const u_char *last,
    const u_char **end)
{
    ssize_t  n;

    for (n = 0; p < last; p++) {

        if (*p == '"') {
            *end = p + 1;
            return n;
        }

        if (*p == '\\') {
            p++;

            if (p == last || (*p != '"' && *p != '\\')) {
                return -1;
            }
        }

        if (*p < 0x20 || *p > 0x7e || n == NGX_PGQ_KEY_MAX) {
            return -1;
        }

        key[n++] = *p;
    }

    return -1;
}


static ssize_t
ngx_pgq_key_token(u_char *key, const u_char *p, const u_char *last,
    const u_char **end)
{
    ssize_t  n;

    for (n = 0; p < last && *p != ' ' && *p != ';'; p++) {

        if (*p < 0x21 || *p > 0x7e || strchr("\",\\", *p)
            || n == NGX_PGQ_KEY_MAX)
        {
            return -1;
        }

        key[n++] = *p;
    }

    *end = p;

    return n;
}
