/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file reads header fields: each function reads one rule of RFC 9110 or
 * RFC 7240 at the cursor.
 */

#include "ngx_pgq_header.h"

#include <string.h>


static int ngx_pgq_header_quoted(ngx_pgq_header_t *h,
    ngx_pgq_header_word_t *string);
static int ngx_pgq_header_member(ngx_pgq_header_t *h);
static int ngx_pgq_header_ended(ngx_pgq_header_t *h);
static int ngx_pgq_header_pair(ngx_pgq_header_t *h,
    ngx_pgq_header_word_t *name, ngx_pgq_header_word_t *value);
static int ngx_pgq_header_tchar(u_char c);
static u_char ngx_pgq_header_lower(u_char c);


void
ngx_pgq_header_start(ngx_pgq_header_t *h, const u_char *value, size_t len)
{
    h->pos = value;
    h->last = value + len;

    while (h->pos < h->last && ngx_pgq_header_space(*h->pos)) {
        h->pos++;
    }

    while (h->pos < h->last && ngx_pgq_header_space(h->last[-1])) {
        h->last--;
    }
}


int
ngx_pgq_header_skip(ngx_pgq_header_t *h, u_char c)
{
    while (h->pos < h->last && ngx_pgq_header_space(*h->pos)) {
        h->pos++;
    }

    return h->pos < h->last && *h->pos == c;
}


int
ngx_pgq_header_token(ngx_pgq_header_t *h, ngx_pgq_header_word_t *token)
{
    token->data = h->pos;
    token->quoted = 0;

    while (h->pos < h->last && ngx_pgq_header_tchar(*h->pos)) {
        h->pos++;
    }

    token->len = h->pos - token->data;

    return token->len ? 0 : -1;
}


int
ngx_pgq_header_word(ngx_pgq_header_t *h, ngx_pgq_header_word_t *word)
{
    return h->pos < h->last && *h->pos == '"'
           ? ngx_pgq_header_quoted(h, word)
           : ngx_pgq_header_token(h, word);
}


/* reads a quoted string: bytes above 0x7f are allowed, controls are not */

static int
ngx_pgq_header_quoted(ngx_pgq_header_t *h, ngx_pgq_header_word_t *string)
{
    string->data = ++h->pos;
    string->quoted = 1;

    for ( /* void */ ; h->pos < h->last; h->pos++) {

        if (*h->pos == '"') {
            string->len = h->pos++ - string->data;
            return 0;
        }

        if (*h->pos == '\\' && ++h->pos == h->last) {
            break;
        }

        if ((*h->pos < 0x20 && *h->pos != '\t') || *h->pos == 0x7f) {
            break;
        }
    }

    return -1;
}


int
ngx_pgq_header_is(const ngx_pgq_header_word_t *word, const char *name)
{
    const u_char  *p, *last;

    p = word->data;
    last = p + word->len;

    for ( /* void */ ; *name && p < last; name++, p++) {

        if (word->quoted && *p == '\\') {
            p++;
        }

        if (ngx_pgq_header_lower(*p)
            != ngx_pgq_header_lower((u_char) *name))
        {
            return 0;
        }
    }

    return *name == '\0' && p == last;
}


int
ngx_pgq_header_media_type(ngx_pgq_header_t *h, ngx_pgq_header_word_t *type,
    ngx_pgq_header_word_t *subtype)
{
    if (ngx_pgq_header_token(h, type) != 0
        || h->pos == h->last || *h->pos++ != '/')
    {
        return -1;
    }

    return ngx_pgq_header_token(h, subtype);
}


/* a semicolon without a parameter is allowed */

int
ngx_pgq_header_parameter(ngx_pgq_header_t *h, ngx_pgq_header_word_t *name,
    ngx_pgq_header_word_t *value)
{
    while (ngx_pgq_header_skip(h, ';')) {
        h->pos++;

        if (ngx_pgq_header_skip(h, ';') || h->pos == h->last) {
            continue;
        }

        if (ngx_pgq_header_token(h, name) != 0
            || h->pos == h->last || *h->pos++ != '='
            || ngx_pgq_header_word(h, value) != 0)
        {
            return -1;
        }

        return 1;
    }

    return h->pos == h->last ? 0 : -1;
}


int
ngx_pgq_header_item(ngx_pgq_header_t *h, ngx_pgq_header_word_t *token)
{
    if (!ngx_pgq_header_member(h)) {
        return 0;
    }

    return ngx_pgq_header_token(h, token) == 0 && ngx_pgq_header_ended(h)
           ? 1 : -1;
}


int
ngx_pgq_header_preference(ngx_pgq_header_t *h, ngx_pgq_header_word_t *name,
    ngx_pgq_header_word_t *value)
{
    ngx_pgq_header_word_t  parameter, ignored;

    if (!ngx_pgq_header_member(h)) {
        return 0;
    }

    if (ngx_pgq_header_pair(h, name, value) != 0) {
        return -1;
    }

    while (ngx_pgq_header_skip(h, ';')) {
        h->pos++;

        if (ngx_pgq_header_skip(h, ';') || ngx_pgq_header_ended(h)) {
            continue;
        }

        if (ngx_pgq_header_pair(h, &parameter, &ignored) != 0) {
            return -1;
        }
    }

    return ngx_pgq_header_ended(h) ? 1 : -1;
}


/* whether the list has another member; empty members are skipped */

static int
ngx_pgq_header_member(ngx_pgq_header_t *h)
{
    while (ngx_pgq_header_skip(h, ',')) {
        h->pos++;
    }

    return h->pos < h->last;
}


static int
ngx_pgq_header_ended(ngx_pgq_header_t *h)
{
    return ngx_pgq_header_skip(h, ',') || h->pos == h->last;
}


/* reads a name and an optional value, with white space around the = */

static int
ngx_pgq_header_pair(ngx_pgq_header_t *h, ngx_pgq_header_word_t *name,
    ngx_pgq_header_word_t *value)
{
    if (ngx_pgq_header_token(h, name) != 0) {
        return -1;
    }

    value->data = h->pos;
    value->len = 0;
    value->quoted = 0;

    if (!ngx_pgq_header_skip(h, '=')) {
        return 0;
    }

    h->pos++;
    (void) ngx_pgq_header_skip(h, '"');

    return ngx_pgq_header_word(h, value);
}


static int
ngx_pgq_header_tchar(u_char c)
{
    u_char  lower;

    lower = ngx_pgq_header_lower(c);

    return (c >= '0' && c <= '9') || (lower >= 'a' && lower <= 'z')
           || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}


/* used instead of tolower(), which depends on the locale */

static u_char
ngx_pgq_header_lower(u_char c)
{
    return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}
