/* SPDX-License-Identifier: PostgreSQL */

/*
 * Finds the members of a JSON object in its text, so that a value can be used
 * without any change.  It depends on neither nginx nor PostgreSQL.
 *
 * The caller's duty: the text has passed ngx_pgq_json_check().
 *
 * Invariants:
 *  - no byte outside of the text is read, also if it was not checked;
 *  - a name and a value are JSON texts without white space around them; a name
 *    has its quotes and its escapes.
 */

#ifndef NGX_PGQ_MEMBER_H
#define NGX_PGQ_MEMBER_H


#include <stddef.h>
#include <sys/types.h>


typedef struct {
    const u_char  *name;
    size_t         name_len;
    const u_char  *value;
    size_t         value_len;
} ngx_pgq_member_t;


/*
 * Returns 1 and moves *p past the next member; 0 if there are no more, or if
 * the text is not an object.  At first *p is the start of the text.
 */

int ngx_pgq_member_next(const u_char **p, const u_char *end,
    ngx_pgq_member_t *member);


#endif /* NGX_PGQ_MEMBER_H */
