/* SPDX-License-Identifier: PostgreSQL */

/*
 * Reading of a stream of server-sent events: see readers_stream.h.
 */

#define _GNU_SOURCE

#include "readers_stream.h"

#include <string.h>
#include <strings.h>


enum {
    sw_head = 0,
    sw_chunk_size,
    sw_chunk_extension,
    sw_body,
    sw_chunk_end,
    sw_trailer
};


static int readers_stream_line(readers_stream_t *stream, const u_char **p,
    const u_char *end, const u_char **line, size_t *len);
static int readers_stream_head(readers_stream_t *stream, const u_char *line,
    size_t len);
static readers_stream_result_t readers_stream_body(readers_stream_t *stream,
    const u_char *p, const u_char *end, readers_field_pt field, void *data);
static int readers_stream_size(readers_stream_t *stream, u_char c);
static void readers_stream_field(const u_char *line, size_t len,
    readers_field_pt field, void *data);


void
readers_stream_reset(readers_stream_t *stream)
{
    memset(stream, 0, offsetof(readers_stream_t, line));
}


readers_stream_result_t
readers_stream_feed(readers_stream_t *stream, const u_char *p, size_t len,
    readers_field_pt field, void *data)
{
    int            found;
    size_t         n;
    const u_char  *end, *line;

    end = p + len;

    while (p < end) {

        switch (stream->state) {

        case sw_head:
        case sw_trailer:
            found = readers_stream_line(stream, &p, end, &line, &n);

            if (found == -1) {
                return READERS_STREAM_BAD;
            }

            if (!found) {
                break;
            }

            if (stream->state == sw_trailer) {
                if (n == 0) {
                    return READERS_STREAM_ENDED;
                }

                break;
            }

            if (readers_stream_head(stream, line, n) != 0) {
                return READERS_STREAM_BAD;
            }

            if (stream->open && stream->status != 200) {
                return READERS_STREAM_REFUSED;
            }

            break;

        case sw_body:
            n = (size_t) (end - p);
            n = (n < stream->left) ? n : (size_t) stream->left;

            if (readers_stream_body(stream, p, p + n, field, data)
                != READERS_STREAM_AGAIN)
            {
                return READERS_STREAM_BAD;
            }

            p += n;

            if (stream->chunked) {
                stream->left -= n;

                if (stream->left == 0) {
                    stream->state = sw_chunk_end;
                }
            }

            break;

        default:
            if (readers_stream_size(stream, *p++) != 0) {
                return READERS_STREAM_BAD;
            }

            break;
        }
    }

    return READERS_STREAM_AGAIN;
}


/*
 * Takes one line.  Returns 0 if it is not complete, -1 if it is too long.
 * *line is in line[] or in place, without its end.
 */

static int
readers_stream_line(readers_stream_t *stream, const u_char **p,
    const u_char *end, const u_char **line, size_t *len)
{
    size_t         n;
    const u_char  *lf;

    lf = memchr(*p, '\n', (size_t) (end - *p));
    n = (size_t) ((lf ? lf : end) - *p);

    if (lf && stream->have == 0) {
        *line = *p;
        *len = n;

    } else {
        if (stream->have + n > READERS_LINE_MAX) {
            return -1;
        }

        memcpy(stream->line + stream->have, *p, n);
        stream->have += n;

        *line = stream->line;
        *len = stream->have;
    }

    if (lf == NULL) {
        *p = end;
        return 0;
    }

    *p = lf + 1;
    stream->have = 0;

    if (*len && (*line)[*len - 1] == '\r') {
        (*len)--;
    }

    return 1;
}


static int
readers_stream_head(readers_stream_t *stream, const u_char *line, size_t len)
{
    static const char  version[] = "HTTP/1.1 ";
    static const char  chunked[] = "Transfer-Encoding: chunked";

    if (stream->status == 0) {
        if (len < sizeof(version) + 2
            || memcmp(line, version, sizeof(version) - 1) != 0)
        {
            return -1;
        }

        line += sizeof(version) - 1;
        stream->status = (unsigned) ((line[0] - '0') * 100
                                     + (line[1] - '0') * 10 + line[2] - '0');

        return (stream->status < 100 || stream->status > 599) ? -1 : 0;
    }

    if (len == 0) {
        stream->open = 1;
        stream->state = stream->chunked ? sw_chunk_size : sw_body;
        stream->left = stream->chunked ? 0 : UINT64_MAX;

    } else if (len == sizeof(chunked) - 1
               && strncasecmp((const char *) line, chunked, len) == 0)
    {
        stream->chunked = 1;
    }

    return 0;
}


static readers_stream_result_t
readers_stream_body(readers_stream_t *stream, const u_char *p,
    const u_char *end, readers_field_pt field, void *data)
{
    int            found;
    size_t         len;
    const u_char  *line;

    while (p < end) {
        found = readers_stream_line(stream, &p, end, &line, &len);

        if (found == -1) {
            return READERS_STREAM_BAD;
        }

        if (found) {
            readers_stream_field(line, len, field, data);
        }
    }

    return READERS_STREAM_AGAIN;
}


/* Takes a byte between chunks. */

static int
readers_stream_size(readers_stream_t *stream, u_char c)
{
    u_char  digit;

    if (stream->state == sw_chunk_end) {
        if (c == '\n') {
            stream->state = sw_chunk_size;
            stream->left = 0;
        }

        return (c == '\r' || c == '\n') ? 0 : -1;
    }

    if (c == '\n') {
        stream->state = stream->left ? sw_body : sw_trailer;
        stream->have = stream->left ? stream->have : 0;
        return 0;
    }

    if (stream->state == sw_chunk_extension) {
        return 0;
    }

    digit = (u_char) (c - '0');

    if (digit > 9) {
        digit = (u_char) ((c | 0x20) - 'a');

        if (digit > 5) {
            stream->state = sw_chunk_extension;
            return (c == ';' || c == '\r' || c == ' ') ? 0 : -1;
        }

        digit = (u_char) (digit + 10);
    }

    if (stream->left >> 28) {
        return -1;
    }

    stream->left = stream->left * 16 + digit;

    return 0;
}


/* A line without a known name, such as a comment, is ignored. */

static void
readers_stream_field(const u_char *line, size_t len, readers_field_pt field,
    void *data)
{
    size_t  i, skip;

    static const struct {
        const char       *name;
        size_t            len;
        readers_field_t   field;
    } fields[] = {
        { "data:", 5, READERS_FIELD_DATA },
        { "id:", 3, READERS_FIELD_ID },
        { "event:", 6, READERS_FIELD_EVENT },
        { "retry:", 6, READERS_FIELD_RETRY }
    };

    if (len == 0) {
        field(data, READERS_FIELD_END, line, 0);
        return;
    }

    for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        skip = fields[i].len;

        if (len >= skip && memcmp(line, fields[i].name, skip) == 0) {
            skip += (len > skip && line[skip] == ' ');
            field(data, fields[i].field, line + skip, len - skip);
            return;
        }
    }
}
