/* SPDX-License-Identifier: PostgreSQL */

/*
 * The state of a JSON text that is being checked.  Only ngx_pgq_json.c and
 * ngx_pgq_json_string.c include this file.
 *
 * Invariants:
 *  - a function returns the position after what it read, or NULL with the
 *    error set;
 *  - the caller gives a position with start <= p < end.
 */

#ifndef NGX_PGQ_JSON_TEXT_H
#define NGX_PGQ_JSON_TEXT_H


#include "ngx_pgq_json.h"


typedef struct {
    const u_char          *start;
    const u_char          *end;
    ngx_pgq_json_error_t  *err;
    unsigned               unfit:1;     /* ngx_pgq_json_unfit() has set err */
} ngx_pgq_json_text_t;


#define ngx_pgq_json_digit(c)  ((unsigned) (c) - '0' < 10)


/* p is at the opening quote. */

const u_char *ngx_pgq_json_string(ngx_pgq_json_text_t *text, const u_char *p);

/*
 * Returns the position after the character at p, or NULL if it is not UTF-8;
 * it does not set the error.
 */

const u_char *ngx_pgq_json_character(const u_char *p, const u_char *end);

/*
 * Sets the error of a text that is refused though the grammar allows it; the
 * caller continues, to check the grammar to the end.
 */

void ngx_pgq_json_unfit(ngx_pgq_json_text_t *text, const u_char *p,
    const char *problem);

/*
 * Set the error, unless unfit() has set one, and return NULL.  For fail() p
 * may be end.  unexpected() reports "not UTF-8" if p is at such bytes.
 */

const u_char *ngx_pgq_json_fail(ngx_pgq_json_text_t *text, const u_char *p,
    const char *problem);
const u_char *ngx_pgq_json_unexpected(ngx_pgq_json_text_t *text,
    const u_char *p, const char *problem);


#endif /* NGX_PGQ_JSON_TEXT_H */
