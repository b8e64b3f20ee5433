/* SPDX-License-Identifier: PostgreSQL */

/*
 * A pool is the lanes of one worker for POSTs, or for GETs, and the requests
 * that wait for them.  pgq_pool defines both: a pool of POSTs and, in
 * db->reads, a pool of GETs, so that no POST waits for a GET.  The requests of
 * consumers have a third one, in db->consumers, as they wait for each other.
 */

#ifndef NGX_PGQ_POOL_H
#define NGX_PGQ_POOL_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_pgq_call.h"


typedef struct {
    /* the next call to send, or NULL */
    ngx_pgq_call_t        *(*next)(ngx_pgq_pool_t *db);
    /* answers requests that expired; ms until the next expires, or -1;
       NULL: no requests wait */
    ngx_msec_int_t         (*expire)(ngx_pgq_pool_t *db);
    /* the worker exits: frees the calls and what they refer to, or NULL */
    void                   (*clear)(ngx_pgq_pool_t *db);
    /* a NOTIFY for a lane that listens; NULL: no lane does */
    void                   (*notified)(ngx_pgq_pool_t *db,
                                const char *payload);
} ngx_pgq_source_t;


#define NGX_PGQ_RATE_SECONDS     8      /* s, measured for Retry-After */


struct ngx_pgq_pool_s {
    ngx_pgq_lane_conf_t      lane;          /* settings of its lanes */
    ngx_uint_t               nlanes;
    ngx_uint_t               batch_tickets;
    size_t                   batch_size;
    ngx_uint_t               max_tickets;
    size_t                   max_size;
    ngx_uint_t               read_lanes;
    size_t                   answer_size;   /* limit of one answer's posts */
    size_t                   unread_size;   /* limit of all unread answers */
    ngx_pgq_pool_t          *reads;         /* the pool of GETs */
    ngx_pgq_pool_t          *consumers;     /* NULL: no pgq_subscription */
    ngx_pgq_ring_t          *ring;          /* NULL: no pgq_ring */
    ngx_flag_t               verify;        /* see ngx_pgq_target_verify() */
    ngx_str_t                conninfo;      /* as configured */

    /* each worker sets these */
    ngx_pgq_lane_t          *lanes;         /* nlanes and a spare one */
    ngx_pgq_lane_t          *connecting;    /* holds connect_lock() */
    ngx_queue_t              idle;          /* lanes without a call */
    ngx_event_t              dispatch;
    ngx_event_t              timer;
    ngx_pgq_source_t        *source;
    void                    *data;          /* belongs to the source */
    void                    *http;          /* belongs to http/ */
    ngx_uint_t               unanswered;    /* requests without an answer */
    size_t                   size;          /* bytes of POSTs or answers */
    /* requests answered in each of the latest seconds */
    ngx_uint_t               answered[NGX_PGQ_RATE_SECONDS];
    time_t                   answered_at;   /* the latest of these seconds */

    unsigned                 reading:1;     /* a pool of GETs */
    unsigned                 opened:1;      /* its lanes may connect */
};


ngx_int_t ngx_pgq_pool_reads(ngx_conf_t *cf, ngx_pgq_pool_t *db);
ngx_pgq_pool_t *ngx_pgq_pool_follower(ngx_conf_t *cf, ngx_pgq_pool_t *db);
ngx_int_t ngx_pgq_pool_consumers(ngx_conf_t *cf, ngx_pgq_pool_t *db);
ngx_int_t ngx_pgq_pool_init(ngx_pgq_pool_t *db, ngx_cycle_t *cycle);
void ngx_pgq_pool_exit(ngx_pgq_pool_t *db);
void ngx_pgq_pool_open(ngx_pgq_pool_t *db);
void ngx_pgq_pool_close(ngx_pgq_pool_t *db);
void ngx_pgq_pool_hold(ngx_pgq_pool_t *db, ngx_msec_t deadline, size_t size);
void ngx_pgq_pool_alarm(ngx_pgq_pool_t *db, ngx_msec_t time);
void ngx_pgq_pool_release(ngx_pgq_pool_t *db, size_t size);
void ngx_pgq_pool_count(ngx_pgq_pool_t *db, ngx_int_t tickets,
    ngx_int_t size);
void ngx_pgq_pool_answered(ngx_pgq_pool_t *db);
void ngx_pgq_pool_wake(ngx_pgq_pool_t *db);
void ngx_pgq_pool_wake_next(ngx_pgq_pool_t *db);
ngx_uint_t ngx_pgq_pool_retry_after(ngx_pgq_pool_t *db);
ngx_uint_t ngx_pgq_pool_connected(ngx_pgq_pool_t *db);

/* parameter.c: the parameters of pgq_pool, and of other directives */

/* all fields have the same size: ngx_uint_t, size_t, ngx_msec_t, ngx_flag_t */

typedef struct {
    ngx_str_t                name;      /* with "=" */
    size_t                   offset;    /* in the structure */
    ngx_int_t              (*parse)(ngx_str_t *value);
    ngx_int_t                min;
    ngx_int_t                max;
} ngx_pgq_parameter_t;


extern ngx_pgq_parameter_t  ngx_pgq_parameters[];


void ngx_pgq_parameter_defaults(ngx_pgq_pool_t *db);
char *ngx_pgq_parameter_read(ngx_conf_t *cf, ngx_pgq_parameter_t *p,
    void *conf, ngx_str_t *parameter);
ngx_int_t ngx_pgq_parameter_number(ngx_str_t *value);
ngx_int_t ngx_pgq_parameter_size(ngx_str_t *value);
ngx_int_t ngx_pgq_parameter_time(ngx_str_t *value);


#endif /* NGX_PGQ_POOL_H */
