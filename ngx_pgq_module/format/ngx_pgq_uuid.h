/* SPDX-License-Identifier: PostgreSQL */

/*
 * The ids of messages and batches, UUIDv7 (RFC 9562), without dependency on
 * nginx or PostgreSQL.  Not safe for threads.
 *
 * Invariants:
 *  - within a process each id is greater than the one before, even if the
 *    clock goes back;
 *  - processes that called ngx_pgq_uuid_init() after their fork use different
 *    random bits.
 */

#ifndef NGX_PGQ_UUID_H
#define NGX_PGQ_UUID_H


#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>


#define NGX_PGQ_UUID_TEXT_LEN  36


/*
 * To be called once in each process, after the fork and before the first id.
 * Returns 0, or -1 if the kernel returned no random bytes.
 */

int ngx_pgq_uuid_init(void);

void ngx_pgq_uuid_v7(u_char out[16], uint64_t unix_ms);

/* The same; the next 2^61 ids are reserved for ngx_pgq_uuid_next(). */

void ngx_pgq_uuid_v7_first(u_char out[16], uint64_t unix_ms);

/* Writes the n-th id after the first. */

void ngx_pgq_uuid_next(u_char out[16], const u_char first[16], uint64_t n);

/* Reads 36 characters; returns 0, or -1 if they are no id. */

int ngx_pgq_uuid_read(u_char out[16], const u_char *text);

/* Writes 36 characters, no zero byte; returns the position after them. */

u_char *ngx_pgq_uuid_print(u_char *dst, const u_char uuid[16]);


#endif /* NGX_PGQ_UUID_H */
