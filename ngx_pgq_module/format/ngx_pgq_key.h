/* SPDX-License-Identifier: PostgreSQL */

/*
 * The value of an Idempotency-Key, without dependency on nginx or PostgreSQL.
 *
 * The field is a String of RFC 8941, "8e03978e-40d5-43dd-bc93-6894a57f9324";
 * its parameters are ignored.  A token without quotes is accepted as the same
 * key, because many clients omit the quotes.
 */

#ifndef NGX_PGQ_KEY_H
#define NGX_PGQ_KEY_H


#include <stddef.h>
#include <sys/types.h>


#define NGX_PGQ_KEY_MAX        255
#define NGX_PGQ_KEY_SCOPE_MAX  255


/*
 * Writes the key without quotes and backslashes, and returns its length, 1 to
 * NGX_PGQ_KEY_MAX, or -1 if the value is malformed, empty or too long.
 */

ssize_t ngx_pgq_key_read(u_char *key, const u_char *value, size_t len);

/*
 * Whether text can be the scope of keys: UTF-8 of at most
 * NGX_PGQ_KEY_SCOPE_MAX bytes without control characters.
 */

int ngx_pgq_key_scope(const u_char *text, size_t len);


#endif /* NGX_PGQ_KEY_H */
