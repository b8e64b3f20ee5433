/* SPDX-License-Identifier: PostgreSQL */

/*
 * Reading of one HTTP answer: see load_answer.h.
 *
 * The head usually arrives in one piece and is read in place.  Otherwise its
 * pieces are collected in head[].
 */

#define _GNU_SOURCE

#include "load_answer.h"

#include <string.h>
#include <strings.h>


enum {
    sw_head = 0,
    sw_body,
    sw_chunk_size,
    sw_chunk_extension,
    sw_chunk_data,
    sw_chunk_end,
    sw_trailer,
    sw_trailer_line,
    sw_whole
};


static ssize_t load_answer_head(load_answer_t *answer, const u_char *p,
    size_t len);
static int load_answer_status(load_answer_t *answer, const u_char *p,
    size_t len);
static int load_answer_header(load_answer_t *answer, const u_char *p,
    size_t len);
static void load_answer_framing(load_answer_t *answer);
static load_answer_result_t load_answer_body(load_answer_t *answer,
    const u_char *p, size_t len);
static int load_answer_chunk(load_answer_t *answer, u_char c);
static void load_answer_keep(load_answer_t *answer, const u_char *p,
    size_t len);
static int64_t load_answer_number(const u_char *p, size_t len);


void
load_answer_reset(load_answer_t *answer, int bodiless)
{
    answer->state = sw_head;
    answer->status = 0;
    answer->chunked = 0;
    answer->close = 0;
    answer->endless = 0;
    answer->bodiless = (bodiless != 0);
    answer->retry_after = -1;
    answer->left = UINT64_MAX;
    answer->have = 0;
    answer->kept = 0;
}


load_answer_result_t
load_answer_feed(load_answer_t *answer, const u_char *p, size_t len)
{
    size_t   before, room;
    ssize_t  n;

    while (answer->state == sw_head) {

        before = answer->have;
        room = LOAD_ANSWER_HEAD_MAX - before;

        if (before) {
            room = (len < room) ? len : room;
            memcpy(answer->head + before, p, room);
            n = load_answer_head(answer, answer->head, before + room);

        } else {
            n = load_answer_head(answer, p, len);
        }

        if (n == -1 || (n == 0 && before + len >= LOAD_ANSWER_HEAD_MAX)) {
            return LOAD_ANSWER_BAD;
        }

        if (n == 0) {
            if (before == 0) {
                memcpy(answer->head, p, len);
            }

            answer->have = before + len;
            return LOAD_ANSWER_AGAIN;
        }

        p += (size_t) n - before;
        len -= (size_t) n - before;

        if (answer->status >= 200) {
            load_answer_framing(answer);
            break;
        }

        load_answer_reset(answer, answer->bodiless);

        if (len == 0) {
            return LOAD_ANSWER_AGAIN;
        }
    }

    return load_answer_body(answer, p, len);
}


load_answer_result_t
load_answer_end(load_answer_t *answer)
{
    if (answer->state == sw_body && answer->endless) {
        answer->state = sw_whole;
        return LOAD_ANSWER_WHOLE;
    }

    return LOAD_ANSWER_BAD;
}


int
load_answer_id(const load_answer_t *answer, u_char id[16])
{
    const u_char  *p, *end;

    p = memmem(answer->body, answer->kept, "\"id\":\"", 6);
    end = answer->body + answer->kept;

    if (p == NULL || end - p < 6 + 36 + 1 || p[6 + 36] != '"') {
        return -1;
    }

    return load_answer_uuid(p + 6, id);
}


int
load_answer_uuid(const u_char *text, u_char id[16])
{
    int     i, n, digit;
    u_char  c;

    for (i = 0, n = 0; i < 36; i++) {
        c = text[i];

        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (c != '-') {
                return -1;
            }

            continue;
        }

        if (c >= '0' && c <= '9') {
            digit = c - '0';

        } else {
            c |= 0x20;

            if (c < 'a' || c > 'f') {
                return -1;
            }

            digit = c - 'a' + 10;
        }

        if (n % 2 == 0) {
            id[n / 2] = (u_char) (digit << 4);

        } else {
            id[n / 2] |= (u_char) digit;
        }

        n++;
    }

    return 0;
}


/* Returns the length of the head, 0 if it is incomplete, -1 if it is bad. */

static ssize_t
load_answer_head(load_answer_t *answer, const u_char *p, size_t len)
{
    size_t         n;
    const u_char  *start, *end, *line;

    start = p;
    end = p + len;

    for ( ;; ) {
        line = p;
        p = memchr(line, '\n', (size_t) (end - line));

        if (p == NULL) {
            return 0;
        }

        n = (size_t) (p - line);
        p++;

        if (n && line[n - 1] == '\r') {
            n--;
        }

        if (line == start) {
            if (load_answer_status(answer, line, n) != 0) {
                return -1;
            }

            continue;
        }

        if (n == 0) {
            return p - start;
        }

        if (load_answer_header(answer, line, n) != 0) {
            return -1;
        }
    }
}


static int
load_answer_status(load_answer_t *answer, const u_char *p, size_t len)
{
    int64_t  status;

    if (len < 12 || memcmp(p, "HTTP/1.", 7) != 0 || p[8] != ' ') {
        return -1;
    }

    status = load_answer_number(p + 9, 3);

    if (status < 100 || status > 599) {
        return -1;
    }

    answer->status = (unsigned) status;
    answer->close = (p[7] == '0');

    return 0;
}


static int
load_answer_header(load_answer_t *answer, const u_char *p, size_t len)
{
    size_t         n;
    int64_t        number;
    const u_char  *value;

    value = memchr(p, ':', len);

    if (value == NULL) {
        return -1;
    }

    n = (size_t) (value - p);
    value++;
    len -= n + 1;

    while (len && (*value == ' ' || *value == '\t')) {
        value++;
        len--;
    }

    if (n == 14 && strncasecmp((const char *) p, "Content-Length", n) == 0) {
        number = load_answer_number(value, len);

        if (number == -1) {
            return -1;
        }

        answer->left = (uint64_t) number;

    } else if (n == 17
               && strncasecmp((const char *) p, "Transfer-Encoding", n) == 0)
    {
        answer->chunked = 1;

    } else if (n == 10
               && strncasecmp((const char *) p, "Connection", n) == 0)
    {
        answer->close = (len == 5 && strncasecmp((const char *) value,
                                                 "close", 5) == 0);

    } else if (n == 11
               && strncasecmp((const char *) p, "Retry-After", n) == 0)
    {
        number = load_answer_number(value, len);

        if (number != -1) {
            answer->retry_after = (int) (number < 86400 ? number : 86400);
        }
    }

    return 0;
}


static void
load_answer_framing(load_answer_t *answer)
{
    if (answer->bodiless || answer->status == 204 || answer->status == 304) {
        answer->left = 0;
        answer->state = sw_body;

    } else if (answer->chunked) {
        answer->left = 0;
        answer->state = sw_chunk_size;

    } else {
        answer->endless = (answer->left == UINT64_MAX);
        answer->close |= answer->endless;
        answer->state = sw_body;
    }
}


static load_answer_result_t
load_answer_body(load_answer_t *answer, const u_char *p, size_t len)
{
    size_t         n;
    const u_char  *end;

    end = p + len;

    for ( ;; ) {

        if (answer->state == sw_body || answer->state == sw_chunk_data) {
            n = (size_t) (end - p);

            if (n > answer->left) {
                n = (size_t) answer->left;
            }

            load_answer_keep(answer, p, n);
            p += n;

            if (!answer->endless) {
                answer->left -= n;
            }

            if (answer->left == 0) {
                answer->state = (answer->state == sw_body) ? sw_whole
                                                           : sw_chunk_end;
            }
        }

        if (answer->state == sw_whole) {
            return (p == end) ? LOAD_ANSWER_WHOLE : LOAD_ANSWER_BAD;
        }

        if (p == end) {
            return LOAD_ANSWER_AGAIN;
        }

        if (load_answer_chunk(answer, *p++) != 0) {
            return LOAD_ANSWER_BAD;
        }
    }
}


/* Reads one byte between the chunks. */

static int
load_answer_chunk(load_answer_t *answer, u_char c)
{
    switch (answer->state) {

    case sw_chunk_size:

        if (c >= '0' && c <= '9') {
            answer->left = answer->left << 4 | (unsigned) (c - '0');
            return 0;
        }

        if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
            answer->left = answer->left << 4
                           | (unsigned) ((c | 0x20) - 'a' + 10);
            return 0;
        }

        answer->state = sw_chunk_extension;

        /* fall through */

    case sw_chunk_extension:

        if (c == '\n') {
            answer->state = answer->left ? sw_chunk_data : sw_trailer;
        }

        return 0;

    case sw_chunk_end:

        if (c == '\n') {
            answer->state = sw_chunk_size;
            return 0;
        }

        return (c == '\r') ? 0 : -1;

    case sw_trailer:

        if (c == '\n') {
            answer->state = sw_whole;

        } else if (c != '\r') {
            answer->state = sw_trailer_line;
        }

        return 0;

    case sw_trailer_line:

        if (c == '\n') {
            answer->state = sw_trailer;
        }

        return 0;

    default:
        return -1;
    }
}


static void
load_answer_keep(load_answer_t *answer, const u_char *p, size_t len)
{
    if (len > LOAD_ANSWER_BODY_MAX - answer->kept) {
        len = LOAD_ANSWER_BODY_MAX - answer->kept;
    }

    memcpy(answer->body + answer->kept, p, len);
    answer->kept += len;
}


/* Returns -1 if there is another character than a digit. */

static int64_t
load_answer_number(const u_char *p, size_t len)
{
    int64_t  number;

    if (len == 0 || len > 18) {
        return -1;
    }

    for (number = 0; len; p++, len--) {

        if (*p < '0' || *p > '9') {
            return -1;
        }

        number = number * 10 + (*p - '0');
    }

    return number;
}
