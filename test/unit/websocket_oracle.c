/* SPDX-License-Identifier: PostgreSQL */

#include "websocket_oracle.h"

#include <stdlib.h>
#include <string.h>

#include "ngx_pgq_websocket.h"


typedef struct {
    const unsigned char     *in;
    size_t                   len;
    size_t                   pos;
    uint64_t                 max;
    websocket_transcript_t  *out;

    int                      type;      /* 0, 't' or 'b': the open message */
    uint64_t                 size;
    unsigned char            character[4];
    int                      have;      /* bytes of an unfinished character */
} oracle_t;


void
websocket_transcript_add(websocket_transcript_t *out, unsigned c)
{
    if (out->len == out->size) {
        out->size = 2 * out->size + 256;
        out->data = realloc(out->data, out->size);

        if (out->data == NULL) {
            abort();
        }
    }

    out->data[out->len++] = (unsigned char) c;
}


void
websocket_transcript_free(websocket_transcript_t *out)
{
    free(out->data);
    memset(out, 0, sizeof(websocket_transcript_t));
}


/*
 * A table of all beginnings of the characters of UTF-8, made by encoding each
 * code point.  The index is the bytes as a number, after a leading 1.
 */

static const unsigned char *
beginnings(void)
{
    int       n, i;
    unsigned  c, b[4], index;

    static unsigned char  *table;

    if (table) {
        return table;
    }

    table = calloc(1, 1 << 25);

    if (table == NULL) {
        abort();
    }

    for (c = 0; c < 0x110000; c++) {

        if (c >= 0xd800 && c < 0xe000) {
            continue;
        }

        if (c < 0x80) {
            n = 1;
            b[0] = c;

        } else if (c < 0x800) {
            n = 2;
            b[0] = 0xc0 | c >> 6;
            b[1] = 0x80 | (c & 63);

        } else if (c < 0x10000) {
            n = 3;
            b[0] = 0xe0 | c >> 12;
            b[1] = 0x80 | (c >> 6 & 63);
            b[2] = 0x80 | (c & 63);

        } else {
            n = 4;
            b[0] = 0xf0 | c >> 18;
            b[1] = 0x80 | (c >> 12 & 63);
            b[2] = 0x80 | (c >> 6 & 63);
            b[3] = 0x80 | (c & 63);
        }

        for (i = 0, index = 1; i < n && i < 3; i++) {
            index = index << 8 | b[i];
            table[index] = (unsigned char) n;
        }
    }

    return table;
}


/* Adds a byte to a character; returns -1 if no character begins like this. */

static int
character_add(unsigned char *character, int *have, unsigned char c)
{
    int       i, n;
    unsigned  index;

    character[(*have)++] = c;

    for (i = 0, index = 1; i < *have && i < 3; i++) {
        index = index << 8 | character[i];
    }

    n = beginnings()[index];

    if (n == 0 || (*have == 4 && (c < 0x80 || c > 0xbf))) {
        return -1;
    }

    if (*have == n) {
        *have = 0;
    }

    return 0;
}


static int
error(oracle_t *o, unsigned code)
{
    o->out->error = code;

    return -1;
}


static int
control(oracle_t *o, unsigned opcode, const unsigned char *mask,
    uint64_t length)
{
    int            have;
    unsigned       code;
    uint64_t       i;
    unsigned char  payload[125], character[4];

    if (o->len - o->pos < length) {
        return 1;
    }

    for (i = 0; i < length; i++) {
        payload[i] = o->in[o->pos++] ^ mask[i % 4];
    }

    code = 1005;

    if (opcode == 8 && length == 1) {
        return error(o, 1002);
    }

    if (opcode == 8 && length) {
        code = payload[0] * 256 + payload[1];

        if (code < 1000 || code > 4999 || (code >= 1015 && code <= 2999)
            || code == 1004 || code == 1005 || code == 1006)
        {
            return error(o, 1002);
        }

        for (i = 2, have = 0; i < length; i++) {
            if (character_add(character, &have, payload[i]) != 0) {
                return error(o, 1007);
            }
        }

        if (have) {
            return error(o, 1007);
        }
    }

    websocket_transcript_add(o->out, 'c');
    websocket_transcript_add(o->out, opcode);
    websocket_transcript_add(o->out, (unsigned) length);

    for (i = 0; i < length; i++) {
        websocket_transcript_add(o->out, payload[i]);
    }

    if (opcode == 8) {
        websocket_transcript_add(o->out, code >> 8);
        websocket_transcript_add(o->out, code & 255);
    }

    return 0;
}


static int
data(oracle_t *o, int fin, const unsigned char *mask, uint64_t length)
{
    uint64_t       i;
    unsigned char  c;

    if (o->size > o->max || length > o->max - o->size) {
        return error(o, 1009);
    }

    o->size += length;

    for (i = 0; i < length; i++) {

        if (o->pos == o->len) {
            return 1;
        }

        c = o->in[o->pos++] ^ mask[i % 4];

        if (o->type == 't' && character_add(o->character, &o->have, c) != 0) {
            return error(o, 1007);
        }

        websocket_transcript_add(o->out, (unsigned) o->type);
        websocket_transcript_add(o->out, c);
    }

    if (!fin) {
        return 0;
    }

    if (o->type == 't' && o->have) {
        return error(o, 1007);
    }

    websocket_transcript_add(o->out, o->type == 't' ? 'T' : 'B');
    o->type = 0;

    return 0;
}


/* Returns 0 after a frame, -1 after an error, 1 if the input is at its end. */

static int
frame(oracle_t *o)
{
    int                   fin;
    size_t                n, i;
    uint64_t              length;
    unsigned              opcode;
    const unsigned char  *p;

    p = o->in + o->pos;

    if (o->len - o->pos < 2) {
        return 1;
    }

    fin = p[0] >= 128;
    opcode = p[0] % 16;
    length = p[1] % 128;

    if (p[0] % 128 / 16 != 0 || p[1] < 128 || (opcode > 2 && opcode < 8)
        || opcode > 10 || (opcode >= 8 && (!fin || length > 125))
        || (opcode == 0 && o->type == 0)
        || ((opcode == 1 || opcode == 2) && o->type != 0))
    {
        return error(o, 1002);
    }

    n = length == 126 ? 2 : length == 127 ? 8 : 0;

    if (o->len - o->pos < 2 + n + 4) {
        return 1;
    }

    if (n) {
        for (i = 0, length = 0; i < n; i++) {
            length = length * 256 + p[2 + i];
        }

        if (length < 126 || (n == 8 && length < 65536) || p[2] >= (n == 8
                                                           ? 128 : 256))
        {
            return error(o, 1002);
        }
    }

    o->pos += 2 + n + 4;
    p += 2 + n;

    if (opcode >= 8) {
        return control(o, opcode, p, length);
    }

    if (opcode) {
        o->type = opcode == 1 ? 't' : 'b';
        o->size = 0;
        o->have = 0;
    }

    return data(o, fin, p, length);
}


void
websocket_oracle(const unsigned char *in, size_t len, uint64_t max,
    websocket_transcript_t *out)
{
    size_t    start;
    oracle_t  o = { in, len, 0, max, out, 0, 0, { 0 }, 0 };

    for ( ;; ) {
        start = o.pos;

        if (frame(&o) != 0 || o.in[start] % 16 == 8) {
            return;
        }
    }
}


static int
module_event(ngx_pgq_websocket_event_e kind,
    const ngx_pgq_websocket_event_t *event, websocket_transcript_t *out)
{
    size_t  i;

    if (kind == NGX_PGQ_WEBSOCKET_ERROR) {
        out->error = event->code;
        return -1;
    }

    if (kind == NGX_PGQ_WEBSOCKET_CONTROL) {
        websocket_transcript_add(out, 'c');
        websocket_transcript_add(out, event->opcode);
        websocket_transcript_add(out, (unsigned) event->len);
    }

    for (i = 0; i < event->len; i++) {

        if (kind == NGX_PGQ_WEBSOCKET_PIECE) {
            websocket_transcript_add(out, event->opcode == 1 ? 't' : 'b');
        }

        websocket_transcript_add(out, event->data[i]);
    }

    if (kind == NGX_PGQ_WEBSOCKET_PIECE) {

        if (event->last) {
            websocket_transcript_add(out, event->opcode == 1 ? 'T' : 'B');
        }

        return 0;
    }

    if (event->opcode == NGX_PGQ_WEBSOCKET_CLOSE) {
        websocket_transcript_add(out, event->code >> 8);
        websocket_transcript_add(out, event->code & 255);
        return -1;
    }

    return 0;
}


void
websocket_module(const unsigned char *in, size_t len, uint64_t max,
    size_t first, size_t piece, websocket_transcript_t *out)
{
    int                         end;
    size_t                      n;
    unsigned char              *copy, *p;
    ngx_pgq_websocket_t         ws;
    ngx_pgq_websocket_event_e   kind;
    ngx_pgq_websocket_event_t   event;

    memset(&ws, 0, sizeof(ngx_pgq_websocket_t));
    ws.max = max;

    /* each piece has its own memory, with limits that ASan knows */

    for (end = 0, n = first ? first : len; len && !end; n = piece) {
        n = n && n < len ? n : len;
        copy = malloc(n);

        if (copy == NULL) {
            abort();
        }

        memcpy(copy, in, n);
        p = copy;

        do {
            kind = ngx_pgq_websocket_read(&ws, &p, copy + n, &event);
            end = kind != NGX_PGQ_WEBSOCKET_MORE
                  && module_event(kind, &event, out) != 0;
        } while (!end && kind != NGX_PGQ_WEBSOCKET_MORE);

        if (!end && p != copy + n) {
            abort();
        }

        free(copy);
        in += n;
        len -= n;
    }
}


int
websocket_agrees(const websocket_transcript_t *module,
    const websocket_transcript_t *oracle)
{
    return module->error == oracle->error
           && (module->len == oracle->len
               || (module->len < oracle->len && module->error == 1007))
           && (module->len == 0
               || memcmp(module->data, oracle->data, module->len) == 0);
}
