/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "pool" owns the lanes of one worker to one database, gives idle
 * lanes their next call, and watches over the age of what is unanswered.
 *
 * Called by ticket.c (hold, release, wake, drained), by batch.c and fetch.c,
 * which are its sources of calls, by call.c (a lane is idle, or gone), by
 * reply.c (retry_after), and by the front desk (init, exit).
 *
 * Invariants:
 *  - a lane is in pool->idle exactly while it has a connection and no call;
 *  - calls are made from a posted event alone, after all sockets of a turn of
 *    the event loop have been read: what arrives together travels together,
 *    and nothing waits for a timer;
 *  - while a request is unanswered the timer is set, and keeps an old worker
 *    from leaving; while none is, it does not.
 */

#include "ngx_pgq_lane.h"


#define NGX_PGQ_POOL_RETRY_MAX   40      /* s, and half of it more */
#define NGX_PGQ_POOL_TICK        10      /* ms between looks at ages */


static void ngx_pgq_pool_forget(ngx_pgq_pool_t *pool);
static void ngx_pgq_pool_dispatch_handler(ngx_event_t *ev);
static ngx_pgq_call_t *ngx_pgq_pool_next(ngx_pgq_pool_t *pool);
static void ngx_pgq_pool_timer_handler(ngx_event_t *ev);


ngx_int_t
ngx_pgq_pool_init(ngx_pgq_pool_t *pool, ngx_cycle_t *cycle)
{
    pool->log = cycle->log;
    pool->drained_at = ngx_pgq_seconds();

    ngx_queue_init(&pool->idle);

    pool->dispatch.handler = ngx_pgq_pool_dispatch_handler;
    pool->dispatch.data = pool;
    pool->dispatch.log = cycle->log;

    pool->timer.handler = ngx_pgq_pool_timer_handler;
    pool->timer.data = pool;
    pool->timer.log = cycle->log;
    pool->timer.cancelable = 1;

    return ngx_pgq_call_init_lanes(pool, cycle->log);
}


void
ngx_pgq_pool_exit(ngx_pgq_pool_t *pool)
{
    ngx_uint_t  i;

    if (pool->lanes == NULL) {
        return;
    }

    ngx_pgq_call_exit_lanes(pool);

    for (i = 0; i < pool->nsources; i++) {
        pool->sources[i]->clear(pool);
    }
}


void
ngx_pgq_pool_source(ngx_pgq_pool_t *pool, ngx_pgq_source_t *source)
{
    pool->sources[pool->nsources++] = source;
}


/* one more request is unanswered, until the deadline at the latest */

void
ngx_pgq_pool_hold(ngx_pgq_pool_t *pool, ngx_msec_t deadline)
{
    pool->unanswered++;
    pool->timer.cancelable = 0;
    ngx_pgq_pool_count(pool, 1);

    if (!pool->timer.timer_set
        || (ngx_msec_int_t) (pool->timer.timer.key - deadline) > 0)
    {
        ngx_add_timer(&pool->timer, deadline - ngx_current_msec);
    }
}


void
ngx_pgq_pool_release(ngx_pgq_pool_t *pool)
{
    pool->unanswered--;
    pool->timer.cancelable = pool->unanswered == 0;
    ngx_pgq_pool_count(pool, -1);
}


/* more or fewer requests are unanswered; the size has been changed already */

void
ngx_pgq_pool_count(ngx_pgq_pool_t *pool, ngx_int_t tickets)
{
    ngx_pgq_metrics_waiting(pool->metrics, tickets,
                            (ngx_int_t) (pool->size - pool->counted));

    pool->counted = pool->size;
}


/* a source has work */

void
ngx_pgq_pool_wake(ngx_pgq_pool_t *pool)
{
    ngx_post_event(&pool->dispatch, &ngx_posted_events);
}


/* the last one used is the next one: its server process is still warm */

void
ngx_pgq_pool_lane_idle(ngx_pgq_lane_t *lane)
{
    ngx_queue_insert_head(&lane->pool->idle, &lane->queue);
    lane->queued = 1;

    ngx_pgq_pool_wake(lane->pool);
}


void
ngx_pgq_pool_lane_gone(ngx_pgq_lane_t *lane)
{
    if (lane->queued) {
        ngx_queue_remove(&lane->queue);
        lane->queued = 0;
    }
}


/* one more request was answered as it was meant to be */

void
ngx_pgq_pool_drained(ngx_pgq_pool_t *pool)
{
    ngx_pgq_pool_forget(pool);

    pool->drained_at = ngx_pgq_seconds();
    pool->drained[pool->drained_at % NGX_PGQ_DRAIN_SECONDS]++;
}


/* the seconds since, in which nothing was drained, take old ones' places */

static void
ngx_pgq_pool_forget(ngx_pgq_pool_t *pool)
{
    time_t  s, now;

    now = ngx_pgq_seconds();

    if (now - pool->drained_at >= NGX_PGQ_DRAIN_SECONDS
        || now < pool->drained_at)
    {
        ngx_memzero(pool->drained, sizeof(pool->drained));
        return;
    }

    for (s = pool->drained_at + 1; s <= now; s++) {
        pool->drained[s % NGX_PGQ_DRAIN_SECONDS] = 0;
    }
}


/*
 * Seconds until what waits now will have been drained, at the best pace of the
 * last seconds: in the others there may have been less to drain.  While
 * nothing is drained, as long as that has lasted.  Spread, so that refused
 * clients do not come back as one.
 */

ngx_uint_t
ngx_pgq_pool_retry_after(ngx_pgq_pool_t *pool)
{
    time_t      silent;
    ngx_uint_t  i, pace, wait;

    silent = ngx_pgq_seconds() - pool->drained_at;

    ngx_pgq_pool_forget(pool);

    for (pace = 0, i = 0; i < NGX_PGQ_DRAIN_SECONDS; i++) {
        pace = ngx_max(pace, pool->drained[i]);
    }

    if (pace) {
        wait = pool->unanswered / pace + 1;

    } else {
        wait = silent > 2 ? (ngx_uint_t) silent : 2;
    }

    wait = ngx_min(wait, NGX_PGQ_POOL_RETRY_MAX);

    return wait + ngx_random() % (wait / 2 + 1);
}


static void
ngx_pgq_pool_dispatch_handler(ngx_event_t *ev)
{
    ngx_queue_t     *q;
    ngx_pgq_pool_t  *pool;
    ngx_pgq_lane_t  *lane;
    ngx_pgq_call_t  *call;

    pool = ev->data;

    while (!ngx_queue_empty(&pool->idle)) {

        call = ngx_pgq_pool_next(pool);

        if (call == NULL) {
            return;
        }

        q = ngx_queue_head(&pool->idle);
        lane = ngx_queue_data(q, ngx_pgq_lane_t, queue);
        ngx_pgq_pool_lane_gone(lane);

        if (ngx_pgq_call_start(call, lane) == NGX_OK) {
            continue;
        }

        call->done(call, NGX_PGQ_AGAIN);

        if (lane->state == NGX_PGQ_LANE_IDLE) {

            /* out of memory: not again before something else happens */

            ngx_pgq_pool_lane_idle(lane);
            ngx_delete_posted_event(&pool->dispatch);
            return;
        }
    }
}


/* the sources take turns, so that none starves */

static ngx_pgq_call_t *
ngx_pgq_pool_next(ngx_pgq_pool_t *pool)
{
    ngx_uint_t       i;
    ngx_pgq_call_t  *call;

    for (i = 0; i < pool->nsources; i++) {

        pool->turn = (pool->turn + 1) % pool->nsources;
        call = pool->sources[pool->turn]->next(pool);

        if (call) {
            return call;
        }
    }

    return NULL;
}


static void
ngx_pgq_pool_timer_handler(ngx_event_t *ev)
{
    ngx_uint_t       i;
    ngx_pgq_pool_t  *pool;
    ngx_msec_int_t   next, wait;

    pool = ev->data;
    next = -1;

    for (i = 0; i < pool->nsources; i++) {
        wait = pool->sources[i]->expire(pool, ngx_current_msec);

        if (wait >= 0 && (next < 0 || wait < next)) {
            next = wait;
        }
    }

    if (next >= 0) {
        ngx_add_timer(&pool->timer,
                      ngx_max((ngx_msec_t) next + 1, NGX_PGQ_POOL_TICK));
        ngx_pgq_pool_wake(pool);
    }
}
