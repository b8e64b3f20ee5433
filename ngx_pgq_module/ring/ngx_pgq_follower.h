/* SPDX-License-Identifier: PostgreSQL */

/*
 * A follower fills a ring with new posts.  Each worker has one for each ring;
 * one worker of the host follows the database, and the others wait for their
 * turn.
 */

#ifndef NGX_PGQ_FOLLOWER_H
#define NGX_PGQ_FOLLOWER_H


#include "ngx_pgq_pool.h"
#include "ngx_pgq_ring.h"


typedef struct ngx_pgq_follower_s  ngx_pgq_follower_t;


/* the columns of an answer */

typedef enum {
    NGX_PGQ_FOLLOWER_ID = 0,
    NGX_PGQ_FOLLOWER_AT,
    NGX_PGQ_FOLLOWER_DATA,
    NGX_PGQ_FOLLOWER_TOPIC,
    NGX_PGQ_FOLLOWER_MESSAGE_ID,
    NGX_PGQ_FOLLOWER_HEAD,
    NGX_PGQ_FOLLOWER_REMOVED,
    NGX_PGQ_FOLLOWER_REVISION,
    NGX_PGQ_FOLLOWER_DELAY
} ngx_pgq_follower_field_e;


_Static_assert(NGX_PGQ_FOLLOWER_DELAY < NGX_PGQ_MAX_FIELDS,
               "a call keeps all fields of a row");


struct ngx_pgq_follower_s {
    ngx_pgq_ring_t           ring;      /* set by the owner */
    ngx_pgq_pool_t          *posts;     /* the pool of the posts */
    ngx_pgq_pool_t          *db;        /* a pool of one lane */

    /* each worker sets these */
    ngx_pgq_call_t           call;
    ngx_event_t              poll;
    ngx_event_t              changed;
    uint64_t                 version;   /* of the ring, told to listeners */
    time_t                   logged_at; /* when an error was last logged */

    /* the question; parameters in network byte order */
    ngx_msec_t               asked;
    uint64_t                 after;
    uint32_t                 most;
    uint32_t                 size;
    uint32_t                 newest;

    /* the answer */
    int64_t                  head;
    int64_t                  removed;
    int64_t                  delay;     /* ms, of its first post; or -1 */
    int64_t                  last;      /* id of the last row; 0: none */
    int64_t                  behind;    /* head of an earlier one; 0: none */
    ngx_msec_t               behind_at; /* when that one came */
    ngx_uint_t               loaded;    /* posts since loading began */

    unsigned                 following:1;
    unsigned                 due:1;     /* there may be new posts */
    unsigned                 sent:1;    /* the call is in progress */
    unsigned                 loading:1; /* the ring gets its first posts */
    unsigned                 reset:1;   /* what the ring has is void */
    unsigned                 skip:1;    /* the ring did not take a row */
};


/* at configuration time; posts and the settings of the ring must be set */
ngx_int_t ngx_pgq_follower_add(ngx_conf_t *cf, ngx_pgq_follower_t *f);

/* in each worker; n followers, which must have a pool of connections each */
ngx_int_t ngx_pgq_follower_init(ngx_pgq_follower_t **followers, ngx_uint_t n,
    ngx_cycle_t *cycle);
void ngx_pgq_follower_exit(void);


/* ngx_pgq_follower_fill.c: only for ngx_pgq_follower.c */

void ngx_pgq_follower_fill_init(ngx_pgq_follower_t *f);
void ngx_pgq_follower_fill_ask(ngx_pgq_follower_t *f);
/* all: also those of workers that do not wait for new posts */
void ngx_pgq_follower_fill_ring_bells(ngx_pgq_follower_t *f,
    ngx_uint_t all);


#endif /* NGX_PGQ_FOLLOWER_H */
