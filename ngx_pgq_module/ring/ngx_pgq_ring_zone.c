/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the shared memory zone of a ring, which is kept over reloads.
 */

#include "ngx_pgq_ring.h"

#include <ngx_crc32.h>


static ngx_int_t ngx_pgq_ring_zone_init(ngx_shm_zone_t *zone, void *data);


/*
 * A zone of an earlier configuration is used again if it has the same name and
 * size.  So the name contains what makes its posts useless.
 */

ngx_int_t
ngx_pgq_ring_zone(ngx_conf_t *cf, ngx_pgq_ring_t *ring, ngx_str_t *conninfo)
{
    size_t           size;
    ngx_str_t        name;
    ngx_shm_zone_t  *zone;

    name.data = ngx_pnalloc(cf->pool, sizeof("ngx_pgq_ring___")
                                      + ring->name.len + 3 * NGX_INT_T_LEN);
    if (name.data == NULL) {
        return NGX_ERROR;
    }

    name.len = ngx_sprintf(name.data, "ngx_pgq_ring_%V_%ui_%ui_%08xD",
                           &ring->name, (ngx_uint_t) NGX_PGQ_RING_LAYOUT,
                           ring->posts,
                           ngx_crc32_long(conninfo->data, conninfo->len))
               - name.data;

    /* the slab allocator needs more */

    size = ngx_align(ngx_pgq_ring_memory_size(ring->size, ring->posts),
                     ngx_pagesize);
    size += size / 32 + 8 * ngx_pagesize;

    zone = ngx_shared_memory_add(cf, &name, size, (void *) ngx_pgq_ring_zone);

    if (zone == NULL) {
        return NGX_ERROR;
    }

    zone->init = ngx_pgq_ring_zone_init;
    zone->data = ring;

    return NGX_OK;
}


/* data: of the zone of the configuration before a reload, or NULL */

static ngx_int_t
ngx_pgq_ring_zone_init(ngx_shm_zone_t *zone, void *data)
{
    void             *memory;
    ngx_pgq_ring_t   *ring;
    ngx_slab_pool_t  *slab;

    ring = zone->data;
    slab = (ngx_slab_pool_t *) zone->shm.addr;

    if (data || zone->shm.exists) {
        ngx_pgq_ring_attach(ring, slab->data);
        return NGX_OK;
    }

    memory = ngx_slab_alloc(slab, ngx_pgq_ring_memory_size(ring->size,
                                                           ring->posts));
    if (memory == NULL) {
        return NGX_ERROR;
    }

    slab->data = memory;
    ngx_pgq_ring_create(ring, memory);

    ngx_log_error(NGX_LOG_NOTICE, zone->shm.log, 0,
                  "pgq ring: created, %ui posts, %uz bytes, pool \"%V\"",
                  ring->posts, ring->size, &ring->name);

    return NGX_OK;
}
