/* SPDX-License-Identifier: PostgreSQL */

/*
 * Error messages of the server and of libpq, shortened for a log line or a
 * response.
 */

#ifndef NGX_PGQ_ERROR_TEXT_H
#define NGX_PGQ_ERROR_TEXT_H


#include <ngx_config.h>
#include <ngx_core.h>


#define NGX_PGQ_ERROR_TEXT_LEN        128     /* bytes, with the final zero */


void ngx_pgq_error_text(u_char *dst, size_t size, const char *src);


#endif /* NGX_PGQ_ERROR_TEXT_H */
