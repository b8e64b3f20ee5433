/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file reads and writes WebSocket frames.  wslay, the packaged library
 * for this, has the same checks but needs 9 kB for each connection.
 *
 * Invariants:
 *  - header[0 .. filled) is valid; payload is set if it is a whole header;
 *  - rest is at most max, and at most 125 in a control frame;
 *  - a control frame changes neither size, text nor utf8.
 */

#include "ngx_pgq_websocket.h"

#include <string.h>


#define NGX_PGQ_WEBSOCKET_FIN       0x80
#define NGX_PGQ_WEBSOCKET_RESERVED  0x70
#define NGX_PGQ_WEBSOCKET_MASKED    0x80


static int ngx_pgq_websocket_start(ngx_pgq_websocket_t *ws, u_char **p,
    u_char *end, unsigned *code);
static unsigned ngx_pgq_websocket_first_bytes(ngx_pgq_websocket_t *ws);
static unsigned ngx_pgq_websocket_length(ngx_pgq_websocket_t *ws);
static size_t ngx_pgq_websocket_header_len(ngx_pgq_websocket_t *ws);
static void ngx_pgq_websocket_unmask(ngx_pgq_websocket_t *ws, u_char *p,
    size_t len);
static ngx_pgq_websocket_event_e ngx_pgq_websocket_piece(
    ngx_pgq_websocket_t *ws, ngx_pgq_websocket_event_t *event);
static ngx_pgq_websocket_event_e ngx_pgq_websocket_control(
    ngx_pgq_websocket_t *ws, ngx_pgq_websocket_event_t *event);
static unsigned ngx_pgq_websocket_close_code(const u_char *p, size_t len,
    unsigned *code);
static int ngx_pgq_websocket_utf8(ngx_pgq_websocket_utf8_t *utf8,
    const u_char *p, size_t len);
static int ngx_pgq_websocket_utf8_first(ngx_pgq_websocket_utf8_t *utf8,
    u_char c);


#define ngx_pgq_websocket_opcode(ws)  ((ws)->header[0] & 0x0f)
#define ngx_pgq_websocket_is_control(ws)                                      \
    (ngx_pgq_websocket_opcode(ws) >= NGX_PGQ_WEBSOCKET_CLOSE)
#define ngx_pgq_websocket_is_last(ws)                                         \
    (((ws)->header[0] & NGX_PGQ_WEBSOCKET_FIN) != 0)


ngx_pgq_websocket_event_e
ngx_pgq_websocket_read(ngx_pgq_websocket_t *ws, u_char **p, u_char *end,
    ngx_pgq_websocket_event_t *event)
{
    size_t  len;

    while (*p < end || (ws->payload && ws->rest == 0)) {

        if (!ws->payload) {

            if (ngx_pgq_websocket_start(ws, p, end, &event->code) != 0) {
                return NGX_PGQ_WEBSOCKET_ERROR;
            }

            continue;
        }

        len = (size_t) (end - *p) < ws->rest ? (size_t) (end - *p)
                                             : (size_t) ws->rest;

        event->data = *p;
        event->len = len;

        ngx_pgq_websocket_unmask(ws, *p, len);

        *p += len;
        ws->rest -= len;

        if (!ngx_pgq_websocket_is_control(ws)) {
            return ngx_pgq_websocket_piece(ws, event);
        }

        memcpy(ws->control + ws->control_len, event->data, len);
        ws->control_len += (u_char) len;

        if (ws->rest == 0) {
            return ngx_pgq_websocket_control(ws, event);
        }
    }

    return NGX_PGQ_WEBSOCKET_MORE;
}


/* Reads bytes of a header; returns -1, with the close code, if it is wrong. */

static int
ngx_pgq_websocket_start(ngx_pgq_websocket_t *ws, u_char **p, u_char *end,
    unsigned *code)
{
    while (*p < end) {
        ws->header[ws->filled++] = *(*p)++;

        if (ws->filled < 2) {
            continue;
        }

        if (ws->filled == 2) {
            *code = ngx_pgq_websocket_first_bytes(ws);

            if (*code) {
                return -1;
            }
        }

        if (ws->filled < ngx_pgq_websocket_header_len(ws)) {
            continue;
        }

        *code = ngx_pgq_websocket_length(ws);

        if (*code) {
            return -1;
        }

        ws->payload = 1;
        ws->shift = 0;
        ws->control_len = 0;
        return 0;
    }

    return 0;
}


/* Checks all but the length; returns 0 or a close code. */

static unsigned
ngx_pgq_websocket_first_bytes(ngx_pgq_websocket_t *ws)
{
    unsigned  opcode;

    opcode = ngx_pgq_websocket_opcode(ws);

    if (ws->header[0] & NGX_PGQ_WEBSOCKET_RESERVED
        || !(ws->header[1] & NGX_PGQ_WEBSOCKET_MASKED))
    {
        return NGX_PGQ_WEBSOCKET_PROTOCOL;
    }

    switch (opcode) {

    case NGX_PGQ_WEBSOCKET_CONTINUATION:
        return ws->message ? 0 : NGX_PGQ_WEBSOCKET_PROTOCOL;

    case NGX_PGQ_WEBSOCKET_TEXT:
    case NGX_PGQ_WEBSOCKET_BINARY:
        return ws->message ? NGX_PGQ_WEBSOCKET_PROTOCOL : 0;

    case NGX_PGQ_WEBSOCKET_CLOSE:
    case NGX_PGQ_WEBSOCKET_PING:
    case NGX_PGQ_WEBSOCKET_PONG:
        return ngx_pgq_websocket_is_last(ws)
               && (ws->header[1] & 0x7f) <= NGX_PGQ_WEBSOCKET_CONTROL_MAX
               ? 0 : NGX_PGQ_WEBSOCKET_PROTOCOL;

    default:
        return NGX_PGQ_WEBSOCKET_PROTOCOL;
    }
}


/* Reads the length, which must have the shortest form. */

static unsigned
ngx_pgq_websocket_length(ngx_pgq_websocket_t *ws)
{
    size_t    i, n;
    uint64_t  len, least;

    len = ws->header[1] & 0x7f;
    n = ngx_pgq_websocket_header_len(ws) - 4;

    if (n > 2) {
        least = n == 4 ? 126 : 65536;
        len = 0;

        for (i = 2; i < n; i++) {
            len = len << 8 | ws->header[i];
        }

        if (len < least || len >> 63) {
            return NGX_PGQ_WEBSOCKET_PROTOCOL;
        }
    }

    ws->rest = len;

    if (ngx_pgq_websocket_is_control(ws)) {
        return 0;
    }

    if (ngx_pgq_websocket_opcode(ws) != NGX_PGQ_WEBSOCKET_CONTINUATION) {
        ws->text = ngx_pgq_websocket_opcode(ws) == NGX_PGQ_WEBSOCKET_TEXT;
        ws->message = 1;
        ws->size = 0;
    }

    if (len > ws->max - ws->size) {
        return NGX_PGQ_WEBSOCKET_TOO_LARGE;
    }

    ws->size += len;

    return 0;
}


/* The first two bytes tell the length of a header; the mask ends it. */

static size_t
ngx_pgq_websocket_header_len(ngx_pgq_websocket_t *ws)
{
    unsigned  len;

    len = ws->header[1] & 0x7f;

    return len < 126 ? 6 : len == 126 ? 8 : 14;
}


static void
ngx_pgq_websocket_unmask(ngx_pgq_websocket_t *ws, u_char *p, size_t len)
{
    size_t     i;
    u_char     mask[8], *key;
    uint64_t   word, mask_word;

    key = ws->header + ngx_pgq_websocket_header_len(ws) - 4;

    for (i = 0; i < 8; i++) {
        mask[i] = key[(i + ws->shift) & 3];
    }

    memcpy(&mask_word, mask, 8);

    for (i = 0; len - i >= 8; i += 8) {
        memcpy(&word, p + i, 8);
        word ^= mask_word;
        memcpy(p + i, &word, 8);
    }

    for ( /* void */ ; i < len; i++) {
        p[i] ^= mask[i & 7];
    }

    ws->shift = (ws->shift + len) & 3;
}


static ngx_pgq_websocket_event_e
ngx_pgq_websocket_piece(ngx_pgq_websocket_t *ws,
    ngx_pgq_websocket_event_t *event)
{
    event->opcode = ws->text ? NGX_PGQ_WEBSOCKET_TEXT
                             : NGX_PGQ_WEBSOCKET_BINARY;
    event->last = 0;

    if (ws->rest == 0) {
        event->last = ngx_pgq_websocket_is_last(ws);
        ws->message = !event->last;
        ws->payload = 0;
        ws->filled = 0;
    }

    if (ws->text
        && (ngx_pgq_websocket_utf8(&ws->utf8, event->data, event->len) != 0
            || (event->last && ws->utf8.need)))
    {
        event->code = NGX_PGQ_WEBSOCKET_BAD_TEXT;
        return NGX_PGQ_WEBSOCKET_ERROR;
    }

    return NGX_PGQ_WEBSOCKET_PIECE;
}


static ngx_pgq_websocket_event_e
ngx_pgq_websocket_control(ngx_pgq_websocket_t *ws,
    ngx_pgq_websocket_event_t *event)
{
    unsigned  error;

    event->data = ws->control;
    event->len = ws->control_len;
    event->opcode = ngx_pgq_websocket_opcode(ws);
    event->last = 1;

    ws->payload = 0;
    ws->filled = 0;

    if (event->opcode != NGX_PGQ_WEBSOCKET_CLOSE) {
        return NGX_PGQ_WEBSOCKET_CONTROL;
    }

    error = ngx_pgq_websocket_close_code(event->data, event->len,
                                         &event->code);
    if (error) {
        event->code = error;
        return NGX_PGQ_WEBSOCKET_ERROR;
    }

    return NGX_PGQ_WEBSOCKET_CONTROL;
}


/* Reads the payload of a Close frame: nothing, or a code and a text. */

static unsigned
ngx_pgq_websocket_close_code(const u_char *p, size_t len, unsigned *code)
{
    ngx_pgq_websocket_utf8_t  utf8 = { 0, 0, 0 };

    if (len == 0) {
        *code = NGX_PGQ_WEBSOCKET_NO_CODE;
        return 0;
    }

    if (len == 1) {
        return NGX_PGQ_WEBSOCKET_PROTOCOL;
    }

    *code = (unsigned) p[0] << 8 | p[1];

    if (!ngx_pgq_websocket_code_valid(*code)) {
        return NGX_PGQ_WEBSOCKET_PROTOCOL;
    }

    if (ngx_pgq_websocket_utf8(&utf8, p + 2, len - 2) != 0 || utf8.need) {
        return NGX_PGQ_WEBSOCKET_BAD_TEXT;
    }

    return 0;
}


/* 1012 to 1014 are registered after the RFC; 3000 to 4999 are applications' */

int
ngx_pgq_websocket_code_valid(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014)
           || (code >= 3000 && code <= 4999);
}


/* Most texts are ASCII: eight bytes of it are checked at a time. */

static int
ngx_pgq_websocket_utf8(ngx_pgq_websocket_utf8_t *utf8, const u_char *p,
    size_t len)
{
    uint64_t       word;
    const u_char  *end;

    end = p + len;

    while (p < end) {

        if (utf8->need) {
            if (*p < utf8->least || *p > utf8->most) {
                return -1;
            }

            utf8->need--;
            utf8->least = 0x80;
            utf8->most = 0xbf;
            p++;
            continue;
        }

        if (end - p >= 8) {
            memcpy(&word, p, 8);

            if ((word & 0x8080808080808080) == 0) {
                p += 8;
                continue;
            }
        }

        if (*p >= 0x80 && ngx_pgq_websocket_utf8_first(utf8, *p) != 0) {
            return -1;
        }

        p++;
    }

    return 0;
}


/*
 * Sets the limits of the second byte, which exclude overlong forms,
 * surrogates and what is greater than U+10FFFF.
 */

static int
ngx_pgq_websocket_utf8_first(ngx_pgq_websocket_utf8_t *utf8, u_char c)
{
    if (c < 0xc2 || c > 0xf4) {
        return -1;
    }

    utf8->need = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    utf8->least = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    utf8->most = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;

    return 0;
}


u_char *
ngx_pgq_websocket_header(u_char *dst, unsigned opcode, uint64_t len)
{
    int  bits;

    *dst++ = (u_char) (NGX_PGQ_WEBSOCKET_FIN | opcode);

    if (len <= NGX_PGQ_WEBSOCKET_CONTROL_MAX) {
        *dst++ = (u_char) len;
        return dst;
    }

    *dst++ = len < 65536 ? 126 : 127;

    for (bits = len < 65536 ? 8 : 56; bits >= 0; bits -= 8) {
        *dst++ = (u_char) (len >> bits);
    }

    return dst;
}


u_char *
ngx_pgq_websocket_close(u_char *dst, unsigned code, const char *reason)
{
    size_t  len;

    len = strlen(reason);

    dst = ngx_pgq_websocket_header(dst, NGX_PGQ_WEBSOCKET_CLOSE, len + 2);
    *dst++ = (u_char) (code >> 8);
    *dst++ = (u_char) code;
    memcpy(dst, reason, len);

    return dst + len;
}
