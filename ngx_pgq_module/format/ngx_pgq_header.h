/* SPDX-License-Identifier: PostgreSQL */

/*
 * The grammar of header fields: RFC 9110 5.5 and 5.6, and the fields made of
 * it that this module reads.  It stands alone: it knows neither nginx nor
 * PostgreSQL, allocates nothing, and keeps no state but the caller's cursor.
 *
 * Invariants
 * - No byte outside of the value is read.
 * - Optional white space is SP and HTAB, wherever the grammar allows it.
 * - A function that returns -1 leaves the cursor anywhere: the value is
 *   malformed, and nothing in it is to be used.
 */

#ifndef NGX_PGQ_HEADER_H
#define NGX_PGQ_HEADER_H


#include <stddef.h>
#include <sys/types.h>


/* what is left of a value */

typedef struct {
    const u_char  *pos;
    const u_char  *last;
} ngx_pgq_header_t;


/* a token, or what a quoted string has between its quotes */

typedef struct {
    const u_char  *data;
    size_t         len;
    unsigned       quoted:1;        /* its backslashes are still there */
} ngx_pgq_header_word_t;


#define ngx_pgq_header_space(c)  ((c) == ' ' || (c) == '\t')


/* Begins a value, without the white space at both of its ends. */

void ngx_pgq_header_start(ngx_pgq_header_t *h, const u_char *value,
    size_t len);

/* Passes over white space, and returns whether the character follows it. */

int ngx_pgq_header_skip(ngx_pgq_header_t *h, u_char c);

/* 0: it follows, -1: it does not. */

int ngx_pgq_header_token(ngx_pgq_header_t *h, ngx_pgq_header_word_t *token);
int ngx_pgq_header_word(ngx_pgq_header_t *h, ngx_pgq_header_word_t *word);

/* Whether the word means that name; the case of letters does not matter. */

int ngx_pgq_header_is(const ngx_pgq_header_word_t *word, const char *name);


/*
 * Content-Type.  First its type and subtype, 0 or -1; then each parameter: 1,
 * and 0 after the last one.
 */

int ngx_pgq_header_media_type(ngx_pgq_header_t *h,
    ngx_pgq_header_word_t *type, ngx_pgq_header_word_t *subtype);
int ngx_pgq_header_parameter(ngx_pgq_header_t *h,
    ngx_pgq_header_word_t *name, ngx_pgq_header_word_t *value);

/* Each token of a list of tokens (Content-Encoding): 1, 0 after the last. */

int ngx_pgq_header_item(ngx_pgq_header_t *h, ngx_pgq_header_word_t *token);

/*
 * Each preference of a Prefer (RFC 7240): 1, 0 after the last.  One without a
 * value has an empty one; its parameters are passed over.
 */

int ngx_pgq_header_preference(ngx_pgq_header_t *h,
    ngx_pgq_header_word_t *name, ngx_pgq_header_word_t *value);


#endif /* NGX_PGQ_HEADER_H */
