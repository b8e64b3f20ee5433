/* SPDX-License-Identifier: PostgreSQL */

/*
 * A page with metrics that is being made, and the functions that print one.
 */

#ifndef NGX_PGQ_STATUS_H
#define NGX_PGQ_STATUS_H


#include "ngx_pgq_http.h"
#include "ngx_pgq_ring.h"

#include <cjson/cJSON.h>


typedef struct {
    ngx_pgq_ring_t            *ring;        /* NULL: the pool has none */
    ngx_atomic_uint_t          posts;
    ngx_atomic_uint_t          bytes;
    ngx_atomic_uint_t          newest;
    ngx_atomic_uint_t          age;         /* s */
    ngx_atomic_uint_t          counters[NGX_PGQ_METRICS_RINGS];
    ngx_uint_t                 stale;
} ngx_pgq_status_ring_t;


/* a pool: its POSTs, its GETs, and the connections for both */

typedef struct {
    u_char                    *name;
    ngx_pgq_metrics_gauges_t   posts;
    ngx_pgq_metrics_gauges_t   gets;
    ngx_atomic_uint_t          connects;
    ngx_atomic_uint_t          failures;
    ngx_uint_t                 lanes;       /* lanes for POSTs */
    ngx_uint_t                 connected;
    ngx_uint_t                 readers;     /* of all transports */
    ngx_uint_t                 up;
    ngx_uint_t                 full;
    ngx_pgq_status_ring_t      ring;
} ngx_pgq_status_pool_t;


typedef struct {
    u_char                    *start;
    u_char                    *pos;
    u_char                    *end;
    ngx_uint_t                 workers;
    ngx_uint_t                 up;          /* all pools are up */
    ngx_uint_t                 full;        /* a pool is full */
    ngx_uint_t                 npools;
    ngx_pgq_status_pool_t      pools[NGX_PGQ_METRICS_POOLS];
} ngx_pgq_status_t;


void ngx_pgq_status_print(ngx_pgq_status_t *page, const char *fmt, ...);
void ngx_pgq_status_head(ngx_pgq_status_t *page, const char *name,
    const char *type, const char *help);
void ngx_pgq_status_number(ngx_pgq_status_t *page, const char *name,
    const char *type, const char *help, ngx_atomic_uint_t n);
void ngx_pgq_status_quote(u_char *dst, u_char *src);

/* status_ring.c: the ring of a pool; ring: NULL if it has none */

void ngx_pgq_status_ring_read(ngx_pgq_status_ring_t *page,
    ngx_pgq_ring_t *ring, ngx_atomic_t *counters);
ngx_uint_t ngx_pgq_status_ring_add(cJSON *pool, ngx_pgq_status_ring_t *page);

/* the pages of pgq_metrics and pgq_status.  database: its part of the page,
   empty if it has not sent it; NULL: the directive names no pool */

ngx_int_t ngx_pgq_status_send_metrics(ngx_http_request_t *r,
    ngx_str_t *database);
ngx_int_t ngx_pgq_status_send_health(ngx_http_request_t *r,
    ngx_str_t *database);

/* status_readers.c: the metrics of streams */

void ngx_pgq_status_readers(ngx_pgq_status_t *page);


#endif /* NGX_PGQ_STATUS_H */
