/* SPDX-License-Identifier: PostgreSQL */

/*
 * A reference parser of header fields, to compare with the module's: the
 * rules of RFC 9110, 7240 and 8941 as regular expressions.  It shares no code
 * with the module.
 */

#ifndef HEADER_ORACLE_H
#define HEADER_ORACLE_H


#include <stddef.h>


#define HEADER_ORACLE_MAX  8192         /* bytes of a value */


/*
 * Content-Type: 0, with type/subtype in lower case, and whether each charset
 * is UTF-8 or a subset; -1 if it is malformed.
 */
int header_oracle_type(const char *value, size_t len,
    char name[HEADER_ORACLE_MAX], int *utf8);

/* Content-Encoding: the number of codings other than identity, or -1. */
int header_oracle_codings(const char *value, size_t len);

/*
 * Prefer: 1, with the value of the first "return" in lower case; 0 if there is
 * none; -1 if it is malformed.
 */
int header_oracle_prefer(const char *value, size_t len,
    char returns[HEADER_ORACLE_MAX]);

/* Idempotency-Key: the length of the key, or -1 if it is malformed. */
long header_oracle_key(const char *value, size_t len,
    char key[HEADER_ORACLE_MAX]);


#endif /* HEADER_ORACLE_H */
