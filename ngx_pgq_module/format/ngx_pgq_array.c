/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file writes arrays.  An array has a header and elements; a length
 * precedes each element.  Numbers have 32 bits in network byte order.
 */

#include "ngx_pgq_array.h"


#define NGX_PGQ_ARRAY_HEAD   20      /* bytes of the header */
#define NGX_PGQ_ARRAY_ITEM   4       /* bytes of the length of an element */


static u_char *ngx_pgq_array_number(u_char *p, uint32_t value);


size_t
ngx_pgq_array_len(ngx_uint_t n, size_t bytes)
{
    return NGX_PGQ_ARRAY_HEAD + n * NGX_PGQ_ARRAY_ITEM + bytes;
}


u_char *
ngx_pgq_array_head(u_char *p, uint32_t oid, ngx_uint_t n)
{
    p = ngx_pgq_array_number(p, 1);             /* dimensions */
    p = ngx_pgq_array_number(p, 0);             /* nulls: not evaluated */
    p = ngx_pgq_array_number(p, oid);
    p = ngx_pgq_array_number(p, (uint32_t) n);
    return ngx_pgq_array_number(p, 1);          /* lower bound */
}


u_char *
ngx_pgq_array_item(u_char *p, u_char *data, size_t len)
{
    p = ngx_pgq_array_number(p, (uint32_t) len);
    return ngx_cpymem(p, data, len);
}


u_char *
ngx_pgq_array_null(u_char *p)
{
    return ngx_pgq_array_number(p, (uint32_t) -1);
}


static u_char *
ngx_pgq_array_number(u_char *p, uint32_t value)
{
    value = htonl(value);
    return ngx_cpymem(p, &value, sizeof(uint32_t));
}
