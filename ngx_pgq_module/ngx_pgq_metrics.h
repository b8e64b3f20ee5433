/* SPDX-License-Identifier: PostgreSQL */

/*
 * Counters and gauges of all workers, in shared memory.
 */

#ifndef NGX_PGQ_METRICS_H
#define NGX_PGQ_METRICS_H


#include <ngx_config.h>
#include <ngx_core.h>


#define NGX_PGQ_METRICS_POOLS    16      /* more pools share the last one */
#define NGX_PGQ_METRICS_PLACES   (2 * NGX_PGQ_METRICS_POOLS)
#define NGX_PGQ_METRICS_NAME     64      /* bytes of a pool's name */
#define NGX_PGQ_METRICS_LANES    5       /* lane states, without closed */
#define NGX_PGQ_METRICS_CODES    600     /* status codes */
#define NGX_PGQ_METRICS_CLASSES  (36 * 36)    /* of SQLSTATEs */
#define NGX_PGQ_METRICS_PROBLEMS 64
#define NGX_PGQ_METRICS_TRANSPORTS 4
#define NGX_PGQ_METRICS_ENDS     9       /* reasons why readers end */
#define NGX_PGQ_METRICS_BOUNDS   10      /* of a histogram */


typedef enum {
    NGX_PGQ_METRICS_POST = 0,
    NGX_PGQ_METRICS_GET,
    NGX_PGQ_METRICS_STREAM,
    NGX_PGQ_METRICS_SUBSCRIPTION,
    NGX_PGQ_METRICS_HANDLERS
} ngx_pgq_metrics_handler_e;


typedef enum {
    NGX_PGQ_METRICS_BATCH_MESSAGES = 0,
    NGX_PGQ_METRICS_BATCH_SECONDS,
    NGX_PGQ_METRICS_WAIT_SECONDS,
    NGX_PGQ_METRICS_RING_SECONDS,
    NGX_PGQ_METRICS_HISTOGRAMS
} ngx_pgq_metrics_histogram_e;


typedef enum {
    NGX_PGQ_METRICS_RETRIES = 0,
    NGX_PGQ_METRICS_UNKNOWN,
    NGX_PGQ_METRICS_FRAMES,
    NGX_PGQ_METRICS_TOTALS
} ngx_pgq_metrics_total_e;


/* of a pool's ring */

typedef enum {
    NGX_PGQ_METRICS_RING_READS = 0,    /* answered from the ring */
    NGX_PGQ_METRICS_RING_MISSES,       /* answered by the database */
    NGX_PGQ_METRICS_RING_RESETS,
    NGX_PGQ_METRICS_RING_FOLLOWERS,    /* changes of the follower */
    NGX_PGQ_METRICS_RINGS
} ngx_pgq_metrics_ring_e;


typedef enum {
    NGX_PGQ_METRICS_FROM_RING = 0,
    NGX_PGQ_METRICS_FROM_DATABASE,
    NGX_PGQ_METRICS_FROM_RESET,
    NGX_PGQ_METRICS_RESUMES
} ngx_pgq_metrics_resume_e;


typedef struct {
    ngx_atomic_t             buckets[NGX_PGQ_METRICS_BOUNDS + 1];
    ngx_atomic_t             sum;
    ngx_atomic_t             padding[4];    /* to a multiple of a cache line */
} ngx_pgq_metrics_histogram_t;


/*
 * Counters of one pool in all workers; only the master writes the name.  Times
 * are those of ngx_pgq_seconds().
 */

typedef struct {
    u_char                   name[NGX_PGQ_METRICS_NAME];
    ngx_atomic_t             connects;
    ngx_atomic_t             failures;
    ngx_atomic_t             connected;     /* time it last was connected */
    ngx_atomic_t             full;          /* time of the last refusal */
    ngx_atomic_t             ring[NGX_PGQ_METRICS_RINGS];
} ngx_pgq_metrics_pool_t;


/*
 * Gauges of one pool in one worker; only that worker writes them.  Two cache
 * lines.
 */

typedef struct {
    ngx_atomic_t             lanes[NGX_PGQ_METRICS_LANES];
    ngx_atomic_t             tickets;
    ngx_atomic_t             bytes;
    ngx_atomic_t             readers[NGX_PGQ_METRICS_TRANSPORTS];
    ngx_atomic_t             padding[5];
} ngx_pgq_metrics_gauges_t;


typedef struct {
    ngx_atomic_t             pid;           /* 0: no such worker */
    ngx_atomic_t             padding[7];
    ngx_pgq_metrics_gauges_t  pools[NGX_PGQ_METRICS_PLACES];
} ngx_pgq_metrics_worker_t;


typedef struct {
    ngx_pgq_metrics_histogram_t  histograms[NGX_PGQ_METRICS_HISTOGRAMS];
    ngx_atomic_t             totals[NGX_PGQ_METRICS_TOTALS];
    ngx_atomic_t             ends[NGX_PGQ_METRICS_ENDS];
    ngx_atomic_t             resumes[NGX_PGQ_METRICS_RESUMES];
    ngx_atomic_t             problems[NGX_PGQ_METRICS_PROBLEMS];
    ngx_atomic_t             requests[NGX_PGQ_METRICS_HANDLERS]
                                     [NGX_PGQ_METRICS_CODES];
    ngx_atomic_t             classes[NGX_PGQ_METRICS_CLASSES];
    ngx_pgq_metrics_pool_t   pools[NGX_PGQ_METRICS_PLACES];
    ngx_pgq_metrics_worker_t  workers[NGX_MAX_PROCESSES];
} ngx_pgq_metrics_t;


extern const ngx_uint_t  ngx_pgq_metrics_bounds[NGX_PGQ_METRICS_HISTOGRAMS]
                                               [NGX_PGQ_METRICS_BOUNDS + 1];

/* the place of a pool's GETs, from the place of its POSTs */

#define ngx_pgq_metrics_reads(place)  ((place) + NGX_PGQ_METRICS_POOLS)


/* at configuration time, in the master, and in a worker */

ngx_shm_zone_t *ngx_pgq_metrics_zone(ngx_conf_t *cf, void *tag,
    ngx_shm_zone_init_pt init, void *data);
ngx_int_t ngx_pgq_metrics_create(ngx_shm_zone_t *zone, void *previous);
ngx_uint_t ngx_pgq_metrics_name(ngx_shm_zone_t *zone, ngx_str_t *name);
void ngx_pgq_metrics_init(ngx_shm_zone_t *zone);
void ngx_pgq_metrics_exit(void);

/* while requests are handled; place: from ngx_pgq_metrics_name() */

void ngx_pgq_metrics_request(ngx_pgq_metrics_handler_e handler,
    ngx_uint_t code);
void ngx_pgq_metrics_reject(ngx_uint_t problem);
void ngx_pgq_metrics_add(ngx_pgq_metrics_total_e total, ngx_uint_t n);
void ngx_pgq_metrics_reader(ngx_uint_t place, ngx_uint_t transport,
    ngx_int_t n);
void ngx_pgq_metrics_reader_end(ngx_uint_t reason);
void ngx_pgq_metrics_resume(ngx_pgq_metrics_resume_e from);
void ngx_pgq_metrics_sent(ngx_uint_t messages, ngx_uint_t again);
void ngx_pgq_metrics_observe(ngx_pgq_metrics_histogram_e histogram,
    ngx_uint_t value);
void ngx_pgq_metrics_error(const char *sqlstate);
void ngx_pgq_metrics_waiting(ngx_uint_t place, ngx_int_t tickets,
    ngx_int_t bytes);
void ngx_pgq_metrics_lane(ngx_uint_t place, ngx_int_t from, ngx_int_t to);
void ngx_pgq_metrics_connect(ngx_uint_t place, ngx_uint_t done);
void ngx_pgq_metrics_connected(ngx_uint_t place);
void ngx_pgq_metrics_full(ngx_uint_t place);
void ngx_pgq_metrics_ring(ngx_uint_t place, ngx_pgq_metrics_ring_e total);

/* for the pages */

ngx_pgq_metrics_t *ngx_pgq_metrics_all(void);
ngx_uint_t ngx_pgq_metrics_gauges(ngx_uint_t place,
    ngx_pgq_metrics_gauges_t *sum);


#endif /* NGX_PGQ_METRICS_H */
