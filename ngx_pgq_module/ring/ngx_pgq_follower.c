/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the connection that follows a database, and the event by which each
 * worker tells its listeners of new posts.
 *
 * Invariants:
 *  - the follower of a host is the owner of the ring's memory, see
 *    ngx_pgq_ring_take().  It is replaced when its worker has ended, begins to
 *    exit, or gives no sign of life for two polls, by a worker that has a free
 *    connection.
 */

#include "ngx_pgq_follower.h"
#include "ngx_pgq_bell.h"


static void ngx_pgq_follower_bell_handler(void);
static void ngx_pgq_follower_poll_handler(ngx_event_t *ev);
static void ngx_pgq_follower_changed_handler(ngx_event_t *ev);
static void ngx_pgq_follower_take(ngx_pgq_follower_t *f);
static void ngx_pgq_follower_start(ngx_pgq_follower_t *f);
static void ngx_pgq_follower_stop(ngx_pgq_follower_t *f);


static ngx_pgq_follower_t  **ngx_pgq_followers;
static ngx_uint_t            ngx_pgq_followers_n;


ngx_int_t
ngx_pgq_follower_add(ngx_conf_t *cf, ngx_pgq_follower_t *f)
{
    f->ring.name = f->posts->lane.name;
    f->posts->ring = &f->ring;

    f->db = ngx_pgq_pool_follower(cf, f->posts);

    return f->db ? ngx_pgq_ring_zone(cf, &f->ring, &f->posts->conninfo)
                 : NGX_ERROR;
}


ngx_int_t
ngx_pgq_follower_init(ngx_pgq_follower_t **followers, ngx_uint_t n,
    ngx_cycle_t *cycle)
{
    ngx_uint_t           i;
    ngx_pgq_follower_t  *f;

    ngx_pgq_followers = followers;
    ngx_pgq_followers_n = n;

    if (n == 0) {
        return NGX_OK;
    }

    ngx_pgq_bell_open(cycle, ngx_pgq_follower_bell_handler);

    for (i = 0; i < n; i++) {
        f = followers[i];

        ngx_pgq_follower_fill_init(f);

        if (ngx_pgq_pool_init(f->db, cycle) != NGX_OK) {
            return NGX_ERROR;
        }

        f->poll.handler = ngx_pgq_follower_poll_handler;
        f->poll.data = f;
        f->poll.log = cycle->log;
        f->poll.cancelable = 1;

        f->changed.handler = ngx_pgq_follower_changed_handler;
        f->changed.data = f;
        f->changed.log = cycle->log;

        ngx_pgq_ring_arm(&f->ring, ngx_process_slot);
        ngx_pgq_follower_take(f);
        ngx_add_timer(&f->poll, f->ring.poll);
    }

    return NGX_OK;
}


void
ngx_pgq_follower_exit(void)
{
    ngx_uint_t           i;
    ngx_pgq_follower_t  *f;

    for (i = 0; i < ngx_pgq_followers_n; i++) {
        f = ngx_pgq_followers[i];

        if (f->following) {
            ngx_pgq_follower_stop(f);
        }

        ngx_pgq_pool_exit(f->db);
    }

    ngx_pgq_bell_close();
}


/* another worker has changed a ring, or this one begins to exit */

static void
ngx_pgq_follower_bell_handler(void)
{
    ngx_uint_t           i;
    ngx_pgq_follower_t  *f;

    for (i = 0; i < ngx_pgq_followers_n; i++) {
        f = ngx_pgq_followers[i];

        if (!ngx_exiting) {

            if (ngx_pgq_ring_follower(&f->ring) == 0) {
                ngx_pgq_follower_take(f);
            }

        } else if (f->following) {
            ngx_pgq_follower_stop(f);
        }

        ngx_post_event(&f->changed, &ngx_posted_events);
    }
}


static void
ngx_pgq_follower_poll_handler(ngx_event_t *ev)
{
    ngx_pgq_follower_t    *f;
    ngx_pgq_ring_state_t   state;

    f = ev->data;

    if (!ngx_exiting) {
        ngx_pgq_follower_take(f);

        if (f->following) {
            ngx_pgq_follower_fill_ask(f);
        }

    } else if (f->following) {
        ngx_pgq_follower_stop(f);
    }

    /* the bell may not have been rung, or this worker has none */

    ngx_pgq_ring_state(&f->ring, &state);

    if (ngx_exiting || state.changes != f->version) {
        ngx_post_event(&f->changed, &ngx_posted_events);
    }

    ngx_add_timer(ev, f->ring.poll);
}


static void
ngx_pgq_follower_changed_handler(ngx_event_t *ev)
{
    ngx_queue_t              *q, *next;
    ngx_pgq_follower_t       *f;
    ngx_pgq_ring_state_t      state;
    ngx_pgq_ring_listener_t  *l;

    f = ev->data;

    ngx_pgq_ring_arm(&f->ring, ngx_process_slot);
    ngx_pgq_ring_state(&f->ring, &state);
    f->version = state.changes;

    for (q = ngx_queue_head(&f->ring.listeners);
         q != ngx_queue_sentinel(&f->ring.listeners);
         q = next)
    {
        next = ngx_queue_next(q);
        l = ngx_queue_data(q, ngx_pgq_ring_listener_t, queue);
        l->changed(l);
    }
}


/* a worker whose connections are all in use could not connect */

static void
ngx_pgq_follower_take(ngx_pgq_follower_t *f)
{
    if (!f->following && ngx_cycle->free_connection_n == 0
        && ngx_cycle->reusable_connections_n == 0)
    {
        return;
    }

    if (ngx_pgq_ring_take(&f->ring, ngx_current_msec) == NGX_OK) {

        if (!f->following) {
            ngx_pgq_follower_start(f);
        }

    } else if (f->following) {

        /* this worker was stopped, and another one has taken over */

        ngx_pgq_follower_stop(f);
    }
}


static void
ngx_pgq_follower_start(ngx_pgq_follower_t *f)
{
    ngx_pgq_ring_state_t  state;

    ngx_log_error(NGX_LOG_INFO, f->posts->lane.log, 0,
                  "pgq follower: started, pool \"%V\"", &f->ring.name);

    ngx_pgq_metrics_ring(f->posts->lane.metrics,
                         NGX_PGQ_METRICS_RING_FOLLOWERS);

    ngx_pgq_ring_state(&f->ring, &state);

    f->following = 1;
    f->loading = !state.loaded;
    f->loaded = 0;
    f->behind = 0;

    ngx_pgq_pool_open(f->db);
    ngx_pgq_follower_fill_ask(f);
}


/* another worker can follow at once */

static void
ngx_pgq_follower_stop(ngx_pgq_follower_t *f)
{
    ngx_log_error(NGX_LOG_INFO, f->posts->lane.log, 0,
                  "pgq follower: stopped, pool \"%V\"", &f->ring.name);

    f->following = 0;
    f->sent = 0;
    f->due = 0;

    ngx_pgq_pool_close(f->db);
    ngx_pgq_ring_leave(&f->ring);
    ngx_pgq_follower_fill_ring_bells(f, 1);
}
