/* SPDX-License-Identifier: PostgreSQL */

/*
 * The ring of a pool on the pages of metrics and status.
 */

#ifndef NGX_PGQ_STATUS_RING_H
#define NGX_PGQ_STATUS_RING_H


#include "ngx_pgq_http.h"
#include "ngx_pgq_ring.h"

#include <cjson/cJSON.h>


typedef struct {
    ngx_uint_t               present;
    ngx_atomic_uint_t        posts;
    ngx_atomic_uint_t        bytes;
    ngx_atomic_uint_t        newest;
    ngx_atomic_uint_t        age;       /* s */
    ngx_atomic_uint_t        reads;
    ngx_atomic_uint_t        misses;
    ngx_atomic_uint_t        resets;
    ngx_atomic_uint_t        followers;
    ngx_pid_t                follower;
    ngx_uint_t               stale;
} ngx_pgq_status_ring_t;


/* ring: NULL if the pool has none */
void ngx_pgq_status_ring_read(ngx_pgq_status_ring_t *page,
    ngx_pgq_ring_t *ring, ngx_atomic_t *totals);
ngx_uint_t ngx_pgq_status_ring_add(cJSON *pool, ngx_pgq_status_ring_t *page);


#endif /* NGX_PGQ_STATUS_RING_H */
