/* SPDX-License-Identifier: PostgreSQL */

/*
 * The JSON room: judges bytes, and makes a string of a text.
 *
 * It says whether bytes are one JSON text by the letter of RFC 8259, in valid
 * UTF-8, and where they first go wrong.  It stands alone: it knows neither
 * nginx nor PostgreSQL, allocates nothing and keeps no state, so any thread
 * may call it at any time.
 *
 * Called by the room of the request, before a message becomes a ticket.
 *
 * Invariants
 * - No byte outside of p[0 .. len) is read.
 * - What is accepted here, PostgreSQL's json type accepts: that is why
 *   \u0000 and lone surrogates, which the grammar alone allows, are refused.
 * - Time is linear in len, and no call recurses.
 */

#ifndef NGX_PGQ_JSON_H
#define NGX_PGQ_JSON_H


#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>


#define NGX_PGQ_JSON_DEPTH_MAX  1024


typedef struct {
    size_t       offset;     /* of the first offending byte; len: it ended */
    const char  *problem;    /* a short phrase for a client, never freed */

    /*
     * The grammar alone allows the text: it is refused for \u0000, for a lone
     * surrogate, for its depth or for a byte order mark before it.  A text
     * that is good up to more than NGX_PGQ_JSON_DEPTH_MAX levels counts as
     * such without being read on.  Only of ngx_pgq_json_check().
     */
    unsigned     grammatical:1;
} ngx_pgq_json_error_t;


/*
 * All of these return 0 when the bytes are good, -1 when not; err is good only
 * then and must not be NULL.  A depth_max above NGX_PGQ_JSON_DEPTH_MAX counts
 * as that.
 */

int ngx_pgq_json_check(const u_char *p, size_t len, unsigned depth_max,
    ngx_pgq_json_error_t *err);
int ngx_pgq_json_utf8(const u_char *p, size_t len, ngx_pgq_json_error_t *err);

/* Moves *p over leading white space; returns len without both ends' own. */

size_t ngx_pgq_json_trim(const u_char **p, size_t len);


/*
 * Writes a text, which is UTF-8, as a JSON string, and returns its length;
 * dst may be NULL, to learn that only.
 */

size_t ngx_pgq_json_quote(u_char *dst, const u_char *p, size_t len);


#endif /* NGX_PGQ_JSON_H */
