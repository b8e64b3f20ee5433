/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "key" reads the value of an Idempotency-Key header.  It stands
 * alone and knows neither nginx nor PostgreSQL.
 *
 * The header is a String of RFC 8941, "8e03978e-40d5-43dd-bc93-6894a57f9324";
 * parameters after it mean nothing here.  Many clients leave out the quotes:
 * a token of characters that need none is taken as the same key.
 *
 * Called by enqueue.c.
 */

#ifndef NGX_PGQ_KEY_H
#define NGX_PGQ_KEY_H


#include <stddef.h>
#include <sys/types.h>


#define NGX_PGQ_KEY_MAX        255
#define NGX_PGQ_KEY_SCOPE_MAX  255


/*
 * Writes the key's characters, at most NGX_PGQ_KEY_MAX, without quotes and
 * backslashes, and returns how many; -1 if the value is no key, or an empty or
 * a longer one.
 */

ssize_t ngx_pgq_key_read(u_char *key, const u_char *value, size_t len);

/*
 * Whether text can be the scope of keys: UTF-8 of at most
 * NGX_PGQ_KEY_SCOPE_MAX bytes without control characters.
 */

int ngx_pgq_key_scope(const u_char *text, size_t len);


#endif /* NGX_PGQ_KEY_H */
