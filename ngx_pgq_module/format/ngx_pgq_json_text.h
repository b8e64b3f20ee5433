/* SPDX-License-Identifier: PostgreSQL */

/*
 * What the two files of the JSON room share, and nobody else includes.
 *
 * Invariants
 * - A function that is given a place returns the place after what it read, or
 *   NULL, and then the error is set.
 * - A place is given only when start <= p < end, unless said otherwise.
 */

#ifndef NGX_PGQ_JSON_TEXT_H
#define NGX_PGQ_JSON_TEXT_H


#include "ngx_pgq_json.h"


typedef struct {
    const u_char          *start;
    const u_char          *end;
    ngx_pgq_json_error_t  *err;
    unsigned               unfit:1;     /* the error is set by unfit() */
} ngx_pgq_json_text_t;


#define ngx_pgq_json_digit(c)  ((unsigned) (c) - '0' < 10)


/* p is at the opening quote. */

const u_char *ngx_pgq_json_string(ngx_pgq_json_text_t *text, const u_char *p);

/*
 * Returns the byte after the character at p, or NULL if it is not UTF-8: the
 * one function here that leaves the error alone.
 */

const u_char *ngx_pgq_json_character(const u_char *p, const u_char *end);

/*
 * The text may be grammatical, but is refused: sets the error.  The reader
 * goes on to see whether the grammar holds to the end.
 */

void ngx_pgq_json_unfit(ngx_pgq_json_text_t *text, const u_char *p,
    const char *problem);

/*
 * Both set the error, unless there is one, and return NULL; p may be end for
 * fail.  Unexpected looks at the bytes first: what is no text at all is called
 * that.
 */

const u_char *ngx_pgq_json_fail(ngx_pgq_json_text_t *text, const u_char *p,
    const char *problem);
const u_char *ngx_pgq_json_unexpected(ngx_pgq_json_text_t *text,
    const u_char *p, const char *problem);


#endif /* NGX_PGQ_JSON_TEXT_H */
