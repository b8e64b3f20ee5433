/* SPDX-License-Identifier: PostgreSQL */

/*
 * Texts of others, such as a server's error message, made fit for a log.
 */

#ifndef NGX_PGQ_WORDS_H
#define NGX_PGQ_WORDS_H


#include <ngx_config.h>
#include <ngx_core.h>


#define NGX_PGQ_WORDS_LEN        128


void ngx_pgq_words(u_char *dst, size_t size, const char *src);


#endif /* NGX_PGQ_WORDS_H */
