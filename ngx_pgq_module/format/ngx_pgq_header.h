/* SPDX-License-Identifier: PostgreSQL */

/*
 * The grammar of the header fields that the module reads (RFC 9110 5.5 and
 * 5.6).  It depends on neither nginx nor PostgreSQL, allocates nothing, and
 * keeps its state in the caller's cursor.
 *
 * Invariants:
 *  - no byte outside of the value is read;
 *  - optional white space is SP and HTAB;
 *  - after -1 the position of the cursor is undefined: the caller must not use
 *    any part of the malformed value.
 */

#ifndef NGX_PGQ_HEADER_H
#define NGX_PGQ_HEADER_H


#include <stddef.h>
#include <sys/types.h>


/* the cursor: the rest of a value */

typedef struct {
    const u_char  *pos;
    const u_char  *last;
} ngx_pgq_header_t;


/* a token, or a quoted string without its quotes */

typedef struct {
    const u_char  *data;
    size_t         len;
    unsigned       quoted:1;        /* a string; data has its backslashes */
} ngx_pgq_header_word_t;


#define ngx_pgq_header_space(c)  ((c) == ' ' || (c) == '\t')


/* Sets the cursor to a value without leading and trailing white space. */

void ngx_pgq_header_start(ngx_pgq_header_t *h, const u_char *value,
    size_t len);

/* Skips white space; returns whether c follows it. */

int ngx_pgq_header_skip(ngx_pgq_header_t *h, u_char c);

/* Read a token, or a token or quoted string; return 0 or -1. */

int ngx_pgq_header_token(ngx_pgq_header_t *h, ngx_pgq_header_word_t *token);
int ngx_pgq_header_word(ngx_pgq_header_t *h, ngx_pgq_header_word_t *word);

/* Whether the word equals the name; the case of letters is ignored. */

int ngx_pgq_header_is(const ngx_pgq_header_word_t *word, const char *name);


/*
 * Content-Type.  media_type() reads type and subtype, and returns 0 or -1.
 * Then parameter() reads the next parameter, and returns 1, or 0 after the
 * last one, or -1.
 */

int ngx_pgq_header_media_type(ngx_pgq_header_t *h,
    ngx_pgq_header_word_t *type, ngx_pgq_header_word_t *subtype);
int ngx_pgq_header_parameter(ngx_pgq_header_t *h,
    ngx_pgq_header_word_t *name, ngx_pgq_header_word_t *value);

/*
 * Reads the next token of a list (Content-Encoding); returns 1, or 0 after the
 * last one, or -1.
 */

int ngx_pgq_header_item(ngx_pgq_header_t *h, ngx_pgq_header_word_t *token);

/*
 * Reads the next preference of a Prefer (RFC 7240); returns 1, or 0 after the
 * last one, or -1.  The value may be empty; parameters are skipped.
 */

int ngx_pgq_header_preference(ngx_pgq_header_t *h,
    ngx_pgq_header_word_t *name, ngx_pgq_header_word_t *value);


#endif /* NGX_PGQ_HEADER_H */
