/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file reads the lines of a request body, which may be in memory or in a
 * file.  A line ends with a line feed, or with the body; a carriage return
 * before it is white space to JSON.
 *
 * Invariants:
 *  - memory is used for one piece of a file, and for the longest of the lines
 *    that span pieces;
 *  - a line is valid until the next one is read.
 */

#include "ngx_pgq_lines.h"


#define NGX_PGQ_LINES_PIECE  65536     /* bytes that are read from a file */


static ngx_int_t ngx_pgq_lines_piece(ngx_pgq_lines_t *lines);
static ngx_int_t ngx_pgq_lines_append(ngx_pgq_lines_t *lines, u_char *data,
    size_t len);


void
ngx_pgq_lines_start(ngx_pgq_lines_t *lines, ngx_pool_t *pool,
    ngx_chain_t *body)
{
    ngx_memzero(lines, sizeof(ngx_pgq_lines_t));

    lines->pool = pool;
    lines->rest = body;
    lines->offset = -1;
}


/* returns NGX_DONE if there are no more lines */

ngx_int_t
ngx_pgq_lines_next(ngx_pgq_lines_t *lines, ngx_str_t *line)
{
    u_char     *end;
    size_t      len;
    ngx_int_t   rc;

    lines->partial.len = 0;

    for ( ;; ) {

        if (lines->pos == lines->last) {
            rc = ngx_pgq_lines_piece(lines);

            if (rc == NGX_DONE && lines->partial.len) {
                break;
            }

            if (rc != NGX_OK) {
                return rc;
            }
        }

        len = lines->last - lines->pos;
        end = memchr(lines->pos, '\n', len);

        if (end && lines->partial.len == 0) {
            line->data = lines->pos;
            line->len = end - lines->pos;
            lines->pos = end + 1;
            lines->number++;
            return NGX_OK;
        }

        if (end) {
            len = end - lines->pos;
        }

        if (ngx_pgq_lines_append(lines, lines->pos, len) != NGX_OK) {
            return NGX_ERROR;
        }

        lines->pos += len;

        if (end) {
            lines->pos++;
            break;
        }
    }

    *line = lines->partial;
    lines->number++;

    return NGX_OK;
}


void
ngx_pgq_lines_stop(ngx_pgq_lines_t *lines)
{
    if (lines->buffer) {
        ngx_pfree(lines->pool, lines->buffer);
    }

    if (lines->partial.data) {
        ngx_pfree(lines->pool, lines->partial.data);
    }
}


/* reads the next piece of the body that is not empty */

static ngx_int_t
ngx_pgq_lines_piece(ngx_pgq_lines_t *lines)
{
    size_t      len;
    ngx_buf_t  *buf;

    for ( /* void */ ; lines->rest; lines->rest = lines->rest->next) {

        buf = lines->rest->buf;

        if (ngx_buf_in_memory(buf)) {
            if (buf->pos == buf->last) {
                continue;
            }

            lines->pos = buf->pos;
            lines->last = buf->last;
            lines->rest = lines->rest->next;
            return NGX_OK;
        }

        if (lines->offset < 0) {
            lines->offset = buf->file_pos;
        }

        len = (size_t) ngx_min(buf->file_last - lines->offset,
                               NGX_PGQ_LINES_PIECE);

        if (len == 0) {
            lines->offset = -1;
            continue;
        }

        if (lines->buffer == NULL) {
            lines->buffer = ngx_pnalloc(lines->pool, NGX_PGQ_LINES_PIECE);
            if (lines->buffer == NULL) {
                return NGX_ERROR;
            }
        }

        if (ngx_read_file(buf->file, lines->buffer, len, lines->offset)
            != (ssize_t) len)
        {
            return NGX_ERROR;
        }

        lines->offset += len;
        lines->pos = lines->buffer;
        lines->last = lines->buffer + len;
        return NGX_OK;
    }

    return NGX_DONE;
}


/* adds a part of a line that spans pieces */

static ngx_int_t
ngx_pgq_lines_append(ngx_pgq_lines_t *lines, u_char *data, size_t len)
{
    u_char  *p;
    size_t   size;

    if (len == 0) {
        return NGX_OK;
    }

    if (lines->partial.len + len > lines->size) {
        size = ngx_max(2 * lines->size, lines->partial.len + len);

        p = ngx_pnalloc(lines->pool, size);
        if (p == NULL) {
            return NGX_ERROR;
        }

        if (lines->partial.data) {
            ngx_memcpy(p, lines->partial.data, lines->partial.len);
            ngx_pfree(lines->pool, lines->partial.data);
        }

        lines->partial.data = p;
        lines->size = size;
    }

    ngx_memcpy(lines->partial.data + lines->partial.len, data, len);
    lines->partial.len += len;

    return NGX_OK;
}
