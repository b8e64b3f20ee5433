/* SPDX-License-Identifier: PostgreSQL */

/*
 * One-dimensional arrays in the binary format that PostgreSQL's array_recv()
 * reads, written to the caller's memory.
 */

#ifndef NGX_PGQ_ARRAY_H
#define NGX_PGQ_ARRAY_H


#include <ngx_config.h>
#include <ngx_core.h>


/* types of elements, from pg_type */

#define NGX_PGQ_OID_TEXT     25
#define NGX_PGQ_OID_UUID     2950


/* the length of an array of n elements that have these bytes together */

size_t ngx_pgq_array_len(ngx_uint_t n, size_t bytes);

/* return the position after what they wrote */

u_char *ngx_pgq_array_head(u_char *p, uint32_t oid, ngx_uint_t n);
u_char *ngx_pgq_array_item(u_char *p, u_char *data, size_t len);
u_char *ngx_pgq_array_null(u_char *p);


#endif /* NGX_PGQ_ARRAY_H */
