/* SPDX-License-Identifier: PostgreSQL */

/*
 * Reads the lines of a request body.
 */

#ifndef NGX_PGQ_LINES_H
#define NGX_PGQ_LINES_H


#include <ngx_config.h>
#include <ngx_core.h>


typedef struct {
    ngx_uint_t               number;    /* number of the last line, from 1 */

    /* used by lines.c only */
    ngx_pool_t              *pool;
    ngx_chain_t             *rest;      /* unread part of the body */
    off_t                    offset;    /* next piece's offset in the file */
    u_char                  *pos;       /* rest of the current piece */
    u_char                  *last;
    u_char                  *buffer;    /* memory for pieces of a file */
    ngx_str_t                partial;   /* a line in several pieces */
    size_t                   size;      /* bytes allocated for partial */
} ngx_pgq_lines_t;


void ngx_pgq_lines_start(ngx_pgq_lines_t *lines, ngx_pool_t *pool,
    ngx_chain_t *body);
ngx_int_t ngx_pgq_lines_next(ngx_pgq_lines_t *lines, ngx_str_t *line);
void ngx_pgq_lines_stop(ngx_pgq_lines_t *lines);


#endif /* NGX_PGQ_LINES_H */
