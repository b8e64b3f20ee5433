/* SPDX-License-Identifier: PostgreSQL */

/*
 * Reads the lines of a request body.
 */

#ifndef NGX_PGQ_LINES_H
#define NGX_PGQ_LINES_H


#include <ngx_config.h>
#include <ngx_core.h>


typedef struct {
    ngx_uint_t               number;    /* of the last line, from 1 */

    /* used by lines.c only */
    ngx_pool_t              *pool;
    ngx_chain_t             *rest;      /* of the body */
    off_t                    offset;    /* of the next piece in the file */
    u_char                  *pos;       /* the current piece */
    u_char                  *last;
    u_char                  *buffer;    /* for pieces of a file */
    ngx_str_t                partial;   /* a line in several pieces */
    size_t                   size;      /* allocated for it */
} ngx_pgq_lines_t;


void ngx_pgq_lines_start(ngx_pgq_lines_t *lines, ngx_pool_t *pool,
    ngx_chain_t *body);
ngx_int_t ngx_pgq_lines_next(ngx_pgq_lines_t *lines, ngx_str_t *line);
void ngx_pgq_lines_stop(ngx_pgq_lines_t *lines);


#endif /* NGX_PGQ_LINES_H */
