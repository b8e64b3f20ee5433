/* SPDX-License-Identifier: PostgreSQL */

/*
 * A reference parser of JSON, to compare with the module's: written from
 * RFC 8259 and RFC 3629, recursive and simple.  It shares no code with the
 * module.
 */

#ifndef JSON_ORACLE_H
#define JSON_ORACLE_H


#include <stddef.h>


/* All return 0 for a valid text, -1 for any other. */

int json_oracle(const unsigned char *p, size_t len, int depth_max);

/*
 * Checks the grammar only: U+0000, surrogates and a byte order mark are valid,
 * and so is a text whose first error is after 1,024 levels.
 */
int json_oracle_grammatical(const unsigned char *p, size_t len);

int json_oracle_utf8(const unsigned char *p, size_t len);


#endif /* JSON_ORACLE_H */
