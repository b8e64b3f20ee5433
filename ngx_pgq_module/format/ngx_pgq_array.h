/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "array": one-dimensional arrays without nulls in the binary format
 * that PostgreSQL's array_recv() reads.  It writes into the caller's memory
 * and owns none.
 */

#ifndef NGX_PGQ_ARRAY_H
#define NGX_PGQ_ARRAY_H


#include <ngx_config.h>
#include <ngx_core.h>


/* of the elements, as in pg_type; they never change */

#define NGX_PGQ_OID_TEXT     25
#define NGX_PGQ_OID_UUID     2950


/* of an array of n elements that have so many bytes together */

size_t ngx_pgq_array_len(ngx_uint_t n, size_t bytes);

/* all return the place after what they wrote */

u_char *ngx_pgq_array_head(u_char *p, uint32_t oid, ngx_uint_t n);
u_char *ngx_pgq_array_item(u_char *p, u_char *data, size_t len);
u_char *ngx_pgq_array_null(u_char *p);


#endif /* NGX_PGQ_ARRAY_H */
