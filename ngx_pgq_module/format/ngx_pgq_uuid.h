/* SPDX-License-Identifier: PostgreSQL */

/*
 * The uuid room: makes and prints the ids of messages and batches, UUIDv7 of
 * RFC 9562.  It stands alone and knows neither nginx nor PostgreSQL.
 *
 * Called by whoever makes a ticket or a batch.  One process, one thread.
 *
 * Invariants
 * - Within a process each id is greater than the one before, whatever the
 *   clock does.
 * - Processes that each called ngx_pgq_uuid_init() after their fork draw
 *   different random bits.
 */

#ifndef NGX_PGQ_UUID_H
#define NGX_PGQ_UUID_H


#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>


#define NGX_PGQ_UUID_TEXT_LEN  36


/*
 * To be called once in each process, after the fork and before the first id;
 * returns -1 when the kernel has no random bytes to give, else 0.
 */

int ngx_pgq_uuid_init(void);

void ngx_pgq_uuid_v7(u_char out[16], uint64_t unix_ms);

/* The same, with room for 2^61 more behind it. */

void ngx_pgq_uuid_v7_first(u_char out[16], uint64_t unix_ms);

/* The n-th behind one that was made so. */

void ngx_pgq_uuid_next(u_char out[16], const u_char first[16], uint64_t n);

/* Reads 36 characters; returns -1 when they are no id, else 0. */

int ngx_pgq_uuid_read(u_char out[16], const u_char *text);

/* Writes 36 characters, no zero byte; returns the place after them. */

u_char *ngx_pgq_uuid_print(u_char *dst, const u_char uuid[16]);


#endif /* NGX_PGQ_UUID_H */
