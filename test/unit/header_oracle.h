/* SPDX-License-Identifier: PostgreSQL */

/*
 * A second opinion on header fields, to compare the module's reading with:
 * the rules of RFC 9110, 7240 and 8941 as regular expressions.  It shares
 * nothing with the module and must never learn from it.
 */

#ifndef HEADER_ORACLE_H
#define HEADER_ORACLE_H


#include <stddef.h>


#define HEADER_ORACLE_MAX  8192         /* bytes of a value */


/*
 * Content-Type: 0, with type/subtype in lower case, and whether each charset
 * is UTF-8 or a part of it; -1 if it is malformed.
 */
int header_oracle_type(const char *value, size_t len,
    char name[HEADER_ORACLE_MAX], int *utf8);

/* Content-Encoding: how many codings other than identity; -1: malformed. */
int header_oracle_codings(const char *value, size_t len);

/*
 * Prefer: 1, with the value of the first "return" in lower case; 0 if there is
 * none; -1 if it is malformed.
 */
int header_oracle_prefer(const char *value, size_t len,
    char returns[HEADER_ORACLE_MAX]);

/* Idempotency-Key: the length of the key, which is written; -1: none. */
long header_oracle_key(const char *value, size_t len,
    char key[HEADER_ORACLE_MAX]);


#endif /* HEADER_ORACLE_H */
