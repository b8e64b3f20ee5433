/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the shared memory with the counters and gauges of all workers.  It is
 * created with the first configuration and kept over reloads.
 *
 * Invariants:
 *  - counters are shared, only grow, and are changed by atomic additions;
 *  - the gauges of a worker are in the place of its process slot; only the
 *    worker writes them.  It sets them to zero when it starts, and clears its
 *    process id when it exits.  A killed worker leaves its process id: sums
 *    skip the places of processes that do not exist;
 *  - a pool keeps its place, found by its name, as long as the memory exists;
 *    pools past the last place share it under the name "other".  GETs have a
 *    second range of places in the same order;
 *  - nothing is counted outside of workers, and they begin with
 *    ngx_pgq_metrics_init().
 */

#include "ngx_pgq_module.h"
#include "ngx_pgq_metrics.h"


static ngx_pgq_metrics_t         *ngx_pgq_metrics;
static ngx_pgq_metrics_worker_t  *ngx_pgq_metrics_worker;

static ngx_str_t  ngx_pgq_metrics_zone_name = ngx_string("ngx_pgq_metrics");


/* each row ends with 0: the bucket after the last bound is infinite */

const ngx_uint_t  ngx_pgq_metrics_bounds[NGX_PGQ_METRICS_HISTOGRAMS]
                                        [NGX_PGQ_METRICS_BOUNDS + 1] =
{
    /* messages */
    { 1, 4, 16, 64, 256, 1024, 4096, 16384, 0 },
    /* milliseconds */
    { 1, 5, 10, 50, 100, 500, 1000, 5000, 30000, 0 },
    { 1, 5, 10, 50, 100, 500, 1000, 5000, 30000, 0 },
    { 1, 2, 5, 10, 20, 50, 100, 1000, 10000, 60000, 0 }
};


ngx_shm_zone_t *
ngx_pgq_metrics_zone(ngx_conf_t *cf, void *tag, ngx_shm_zone_init_pt init,
    void *data)
{
    size_t           size;
    ngx_shm_zone_t  *zone;

    /* the slab allocator needs more */

    size = ngx_align(sizeof(ngx_pgq_metrics_t), ngx_pagesize);
    size += size / 32 + 8 * ngx_pagesize;

    zone = ngx_shared_memory_add(cf, &ngx_pgq_metrics_zone_name, size, tag);

    if (zone) {
        zone->init = init;
        zone->data = data;
    }

    return zone;
}


/* previous: the data of the zone before a reload, or NULL */

ngx_int_t
ngx_pgq_metrics_create(ngx_shm_zone_t *zone, void *previous)
{
    ngx_slab_pool_t  *slab;

    slab = (ngx_slab_pool_t *) zone->shm.addr;

    if (previous == NULL && !zone->shm.exists) {
        slab->data = ngx_slab_calloc(slab, sizeof(ngx_pgq_metrics_t));
    }

    zone->data = slab->data;

    return zone->data ? NGX_OK : NGX_ERROR;
}


ngx_uint_t
ngx_pgq_metrics_name(ngx_shm_zone_t *zone, ngx_str_t *name)
{
    size_t                   len;
    ngx_uint_t               i;
    ngx_pgq_metrics_t       *metrics;
    ngx_pgq_metrics_pool_t  *pool;

    metrics = zone->data;
    len = ngx_min(name->len, NGX_PGQ_METRICS_NAME - 1);

    for (i = 0; i < NGX_PGQ_METRICS_POOLS - 1; i++) {
        pool = &metrics->pools[i];

        if (pool->name[0] == '\0') {
            ngx_memcpy(pool->name, name->data, len);
            return i;
        }

        if (ngx_strlen(pool->name) == len
            && ngx_memcmp(pool->name, name->data, len) == 0)
        {
            return i;
        }
    }

    ngx_memcpy(metrics->pools[i].name, "other", sizeof("other"));

    return i;
}


void
ngx_pgq_metrics_init(ngx_shm_zone_t *zone)
{
    ngx_pgq_metrics = zone->data;
    ngx_pgq_metrics_worker = &ngx_pgq_metrics->workers[ngx_process_slot];

    ngx_memzero(ngx_pgq_metrics_worker, sizeof(ngx_pgq_metrics_worker_t));
    ngx_memory_barrier();
    ngx_pgq_metrics_worker->pid = ngx_pid;
}


void
ngx_pgq_metrics_exit(void)
{
    if (ngx_pgq_metrics_worker) {
        ngx_pgq_metrics_worker->pid = 0;
    }
}


void
ngx_pgq_metrics_request(ngx_pgq_metrics_handler_e handler, ngx_uint_t code)
{
    if (code < NGX_PGQ_METRICS_CODES) {
        ngx_atomic_fetch_add(&ngx_pgq_metrics->requests[handler][code], 1);
    }
}


void
ngx_pgq_metrics_reject(ngx_uint_t problem)
{
    ngx_atomic_fetch_add(&ngx_pgq_metrics->problems[problem], 1);
}


void
ngx_pgq_metrics_add(ngx_pgq_metrics_total_e total, ngx_uint_t n)
{
    ngx_atomic_fetch_add(&ngx_pgq_metrics->totals[total], n);
}


/* n readers more, or less */

void
ngx_pgq_metrics_reader(ngx_uint_t place, ngx_uint_t transport, ngx_int_t n)
{
    ngx_pgq_metrics_worker->pools[place].readers[transport] += n;
}


void
ngx_pgq_metrics_reader_end(ngx_uint_t reason)
{
    ngx_atomic_fetch_add(&ngx_pgq_metrics->ends[reason], 1);
}


void
ngx_pgq_metrics_resume(ngx_pgq_metrics_resume_e from)
{
    ngx_atomic_fetch_add(&ngx_pgq_metrics->resumes[from], 1);
}


void
ngx_pgq_metrics_sent(ngx_uint_t messages, ngx_uint_t again)
{
    if (again) {
        ngx_pgq_metrics_add(NGX_PGQ_METRICS_RETRIES, 1);

    } else {
        ngx_pgq_metrics_observe(NGX_PGQ_METRICS_BATCH_MESSAGES, messages);
    }
}


/* value is a number of messages, or of milliseconds */

void
ngx_pgq_metrics_observe(ngx_pgq_metrics_histogram_e histogram,
    ngx_uint_t value)
{
    ngx_uint_t                    i;
    const ngx_uint_t             *bounds;
    ngx_pgq_metrics_histogram_t  *h;

    bounds = ngx_pgq_metrics_bounds[histogram];

    for (i = 0; bounds[i] && value > bounds[i]; i++) { /* void */ }

    h = &ngx_pgq_metrics->histograms[histogram];

    ngx_atomic_fetch_add(&h->buckets[i], 1);
    ngx_atomic_fetch_add(&h->sum, value);
}


/* counts an error by its class: two digits or capital letters */

void
ngx_pgq_metrics_error(const char *sqlstate)
{
    u_char      c;
    ngx_uint_t  i, class;

    class = 0;

    for (i = 0; i < 2; i++) {
        c = (u_char) sqlstate[i];

        if (c >= '0' && c <= '9') {
            class = class * 36 + c - '0';

        } else if (c >= 'A' && c <= 'Z') {
            class = class * 36 + c - 'A' + 10;

        } else {
            return;
        }
    }

    ngx_atomic_fetch_add(&ngx_pgq_metrics->classes[class], 1);
}


/* tickets and bytes are added; they may be negative */

void
ngx_pgq_metrics_waiting(ngx_uint_t place, ngx_int_t tickets, ngx_int_t bytes)
{
    ngx_pgq_metrics_gauges_t  *gauges;

    gauges = &ngx_pgq_metrics_worker->pools[place];
    gauges->tickets += tickets;
    gauges->bytes += bytes;
}


/* from: -1 for a new lane; to: NGX_PGQ_METRICS_LANES for a closed one */

void
ngx_pgq_metrics_lane(ngx_uint_t place, ngx_int_t from, ngx_int_t to)
{
    ngx_pgq_metrics_gauges_t  *gauges;

    gauges = &ngx_pgq_metrics_worker->pools[place];

    if (from >= 0 && from < NGX_PGQ_METRICS_LANES) {
        gauges->lanes[from]--;
    }

    if (to < NGX_PGQ_METRICS_LANES) {
        gauges->lanes[to]++;
    }
}


void
ngx_pgq_metrics_connect(ngx_uint_t place, ngx_uint_t done)
{
    ngx_pgq_metrics_pool_t  *p;

    p = &ngx_pgq_metrics->pools[place];

    if (done) {
        ngx_pgq_metrics_connected(place);
    }

    ngx_atomic_fetch_add(done ? &p->connects : &p->failures, 1);
}


/* called when the pool has a connection, or had one until its worker exited */

void
ngx_pgq_metrics_connected(ngx_uint_t place)
{
    ngx_pgq_metrics->pools[place].connected = ngx_pgq_seconds();
}


/* called when a message is refused because too many are waiting */

void
ngx_pgq_metrics_full(ngx_uint_t place)
{
    ngx_pgq_metrics->pools[place].full = ngx_pgq_seconds();
}


void
ngx_pgq_metrics_ring(ngx_uint_t place, ngx_pgq_metrics_ring_e total)
{
    ngx_atomic_fetch_add(&ngx_pgq_metrics->pools[place].ring[total], 1);
}


ngx_pgq_metrics_t *
ngx_pgq_metrics_all(void)
{
    return ngx_pgq_metrics;
}


/* adds up the gauges of the running workers; returns their number */

ngx_uint_t
ngx_pgq_metrics_gauges(ngx_uint_t place, ngx_pgq_metrics_gauges_t *sum)
{
    ngx_pid_t                  pid;
    ngx_uint_t                 i, j, n;
    ngx_pgq_metrics_gauges_t  *gauges;

    ngx_memzero(sum, sizeof(ngx_pgq_metrics_gauges_t));

    n = 0;

    for (i = 0; i < NGX_MAX_PROCESSES; i++) {
        pid = (ngx_pid_t) ngx_pgq_metrics->workers[i].pid;

        if (pid == 0 || (kill(pid, 0) == -1 && ngx_errno == NGX_ESRCH)) {
            continue;
        }

        n++;
        gauges = &ngx_pgq_metrics->workers[i].pools[place];

        for (j = 0; j < NGX_PGQ_METRICS_LANES; j++) {
            sum->lanes[j] += gauges->lanes[j];
        }

        for (j = 0; j < NGX_PGQ_METRICS_TRANSPORTS; j++) {
            sum->readers[j] += gauges->readers[j];
        }

        sum->tickets += gauges->tickets;
        sum->bytes += gauges->bytes;
    }

    return n;
}
