/* SPDX-License-Identifier: PostgreSQL */

/*
 * Checks whether bytes are one JSON text (RFC 8259) in valid UTF-8, and makes
 * a JSON string of a text.  It depends on neither nginx nor PostgreSQL,
 * allocates nothing, keeps no state, and is safe for threads.
 *
 * Invariants:
 *  - no byte outside of p[0 .. len) is read;
 *  - PostgreSQL's json type accepts each accepted text: therefore \u0000 and
 *    lone surrogates are refused, though the grammar allows them;
 *  - time is linear in len; no function recurses.
 */

#ifndef NGX_PGQ_JSON_H
#define NGX_PGQ_JSON_H


#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>


#define NGX_PGQ_JSON_DEPTH_MAX  1024


typedef struct {
    size_t       offset;     /* first wrong byte; len if it is incomplete */
    const char  *problem;    /* a short phrase for a client, never freed */

    /*
     * The grammar allows the text, which is refused for \u0000, a lone
     * surrogate, its depth or a byte order mark.  A text is read up to
     * NGX_PGQ_JSON_DEPTH_MAX levels; a deeper text counts as grammatical.
     * Set by ngx_pgq_json_check() only.
     */
    unsigned     grammatical:1;
} ngx_pgq_json_error_t;


/*
 * Return 0 if the bytes are valid; -1, with the error in err, if not.
 * depth_max is at most NGX_PGQ_JSON_DEPTH_MAX; a larger value is reduced.
 */

int ngx_pgq_json_check(const u_char *p, size_t len, unsigned depth_max,
    ngx_pgq_json_error_t *err);
int ngx_pgq_json_utf8(const u_char *p, size_t len, ngx_pgq_json_error_t *err);

/* Trims white space: moves *p to the first other byte; returns the length. */

size_t ngx_pgq_json_trim(const u_char **p, size_t len);


/*
 * Writes a UTF-8 text as a JSON string, and returns its length.  If dst is
 * NULL, nothing is written.
 */

size_t ngx_pgq_json_quote(u_char *dst, const u_char *p, size_t len);


#endif /* NGX_PGQ_JSON_H */
