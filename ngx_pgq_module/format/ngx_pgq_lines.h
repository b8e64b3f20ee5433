/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "lines": the lines of a request's body, one after the other.
 */

#ifndef NGX_PGQ_LINES_H
#define NGX_PGQ_LINES_H


#include <ngx_config.h>
#include <ngx_core.h>


typedef struct {
    ngx_uint_t               number;    /* of the last line, from 1 */

    /* of lines.c */
    ngx_pool_t              *pool;
    ngx_chain_t             *rest;      /* of the body */
    off_t                    offset;    /* of what is not read of its file */
    u_char                  *pos;       /* the piece at hand */
    u_char                  *last;
    u_char                  *buffer;    /* for pieces of a file */
    ngx_str_t                begun;     /* a line that goes on */
    size_t                   room;      /* for it */
} ngx_pgq_lines_t;


void ngx_pgq_lines_start(ngx_pgq_lines_t *lines, ngx_pool_t *pool,
    ngx_chain_t *body);
ngx_int_t ngx_pgq_lines_next(ngx_pgq_lines_t *lines, ngx_str_t *line);
void ngx_pgq_lines_stop(ngx_pgq_lines_t *lines);


#endif /* NGX_PGQ_LINES_H */
