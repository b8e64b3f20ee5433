/* SPDX-License-Identifier: PostgreSQL */

/*
 * A second opinion on JSON, to compare the JSON room with: written from the
 * text of RFC 8259 and RFC 3629 with other means, recursive, slow and plain.
 * It shares nothing with the room and must never learn from it.
 */

#ifndef JSON_ORACLE_H
#define JSON_ORACLE_H


#include <stddef.h>


/* All return 0 when good, -1 when not. */

int json_oracle(const unsigned char *p, size_t len, int depth_max);

/*
 * By the grammar alone: with U+0000, any surrogates, and a byte order mark
 * before it; or good up to more than 1,024 levels.
 */
int json_oracle_grammatical(const unsigned char *p, size_t len);

int json_oracle_utf8(const unsigned char *p, size_t len);


#endif /* JSON_ORACLE_H */
