/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file reads the value of an Idempotency-Key.
 *
 * Invariant: a key consists of visible ASCII characters and spaces.
 */

#include "ngx_pgq_key.h"
#include "ngx_pgq_header.h"
#include "ngx_pgq_json.h"


static ssize_t ngx_pgq_key_item(u_char *key, ngx_pgq_header_t *h);


/* parameters of the field are ignored, but must be well-formed */

ssize_t
ngx_pgq_key_read(u_char *key, const u_char *value, size_t len)
{
    ssize_t                n;
    ngx_pgq_header_t       h;
    ngx_pgq_header_word_t  name;

    ngx_pgq_header_start(&h, value, len);

    n = ngx_pgq_key_item(key, &h);

    while (n > 0 && ngx_pgq_header_skip(&h, ';')) {
        h.pos++;
        (void) ngx_pgq_header_skip(&h, ';');

        if (ngx_pgq_header_token(&h, &name) != 0) {
            return -1;
        }

        if (h.pos < h.last && *h.pos == '=') {
            h.pos++;

            if (ngx_pgq_key_item(NULL, &h) < 0) {
                return -1;
            }
        }
    }

    return n > 0 && h.pos == h.last ? n : -1;
}


int
ngx_pgq_key_scope(const u_char *text, size_t len)
{
    size_t                i;
    ngx_pgq_json_error_t  err;

    if (len > NGX_PGQ_KEY_SCOPE_MAX
        || ngx_pgq_json_utf8(text, len, &err) != 0)
    {
        return 0;
    }

    for (i = 0; i < len; i++) {
        if (text[i] < 0x20 || text[i] == 0x7f) {
            return 0;
        }
    }

    return 1;
}


/*
 * Reads a quoted string, or a token.  Returns its length without quotes and
 * backslashes, which is not limited if key is NULL.
 */

static ssize_t
ngx_pgq_key_item(u_char *key, ngx_pgq_header_t *h)
{
    int      quoted;
    u_char   c;
    ssize_t  n;

    quoted = h->pos < h->last && *h->pos == '"';
    h->pos += quoted;

    for (n = 0; h->pos < h->last; n++, h->pos++) {
        c = *h->pos;

        if (quoted ? c == '"' : (ngx_pgq_header_space(c) || c == ';')) {
            break;
        }

        if (quoted && c == '\\') {

            if (++h->pos == h->last || (*h->pos != '"' && *h->pos != '\\')) {
                return -1;
            }

            c = *h->pos;

        } else if (c == '"' || (!quoted && (c == ',' || c == '\\'))) {
            return -1;
        }

        if (c < 0x20 || c > 0x7e || (key && n == NGX_PGQ_KEY_MAX)) {
            return -1;
        }

        if (key) {
            key[n] = c;
        }
    }

    if (!quoted) {
        return n ? n : -1;
    }

    return h->pos++ < h->last ? n : -1;
}
