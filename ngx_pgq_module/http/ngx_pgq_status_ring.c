/* SPDX-License-Identifier: PostgreSQL */

/*
 * Reads the state of a ring for the pages of metrics and status, and makes its
 * object in the status page.
 */

#include "ngx_pgq_status.h"


void
ngx_pgq_status_ring_read(ngx_pgq_status_ring_t *page, ngx_pgq_ring_t *ring,
    ngx_atomic_t *counters)
{
    ngx_uint_t            i;
    ngx_msec_t            age;
    ngx_pgq_ring_state_t  state;

    ngx_memzero(page, sizeof(ngx_pgq_status_ring_t));

    if (ring == NULL) {
        return;
    }

    ngx_pgq_ring_state(ring, &state);

    /* the clock of another worker may be a little ahead */

    age = ngx_current_msec - state.confirmed;
    age = (ngx_msec_int_t) age < 0 ? 0 : age;

    page->ring = ring;
    page->posts = state.end - state.first;
    page->bytes = state.used;
    page->newest = state.newest;
    page->age = state.loaded ? age / 1000 : 0;
    page->stale = !state.loaded || age > ring->stale;

    for (i = 0; i < NGX_PGQ_METRICS_RINGS; i++) {
        page->counters[i] = counters[i];
    }
}


/* returns 0 if memory allocation fails */

ngx_uint_t
ngx_pgq_status_ring_add(cJSON *pool, ngx_pgq_status_ring_t *page)
{
    cJSON  *ring;

    if (page->ring == NULL) {
        return 1;
    }

    ring = cJSON_AddObjectToObject(pool, "ring");

    return ring
           && cJSON_AddNumberToObject(ring, "posts", page->posts)
           && cJSON_AddNumberToObject(ring, "bytes", page->bytes)
           && cJSON_AddNumberToObject(ring, "newest", page->newest)
           && cJSON_AddNumberToObject(ring, "age", page->age)
           && cJSON_AddBoolToObject(ring, "stale", page->stale)
           && cJSON_AddNumberToObject(ring, "follower",
                                      ngx_pgq_ring_follower(page->ring));
}
