/* SPDX-License-Identifier: PostgreSQL */

/*
 * A pool owns its lanes, starts the next call on an idle lane, and has the
 * timer of waiting requests.  Its source creates the calls, for batches or for
 * reads.
 *
 * Invariants:
 *  - a lane is in db->idle if and only if it is connected and has no call;
 *  - calls are only started by a posted event, after all ready sockets have
 *    been read, so that requests that arrive together share a batch;
 *  - while a request is unanswered, the timer is set and keeps an old worker
 *    from exiting.
 */

#include "ngx_pgq_pool.h"


#define NGX_PGQ_POOL_RETRY_MAX   40      /* s, Retry-After without jitter */
#define NGX_PGQ_POOL_TICK        10      /* ms, minimum of the timer */

/* ms that the answer_timeout of GETs' lanes exceeds statement_timeout */

#define NGX_PGQ_POOL_SLACK       1000

/*
 * The first statement of each connection.  A commit that no standby has
 * confirmed causes a WARNING, which the settings of a role may suppress.
 */

#define NGX_PGQ_POOL_SETUP_POST  "set client_min_messages = warning"
#define NGX_PGQ_POOL_SETUP_GET   "set statement_timeout = %M%Z"

/* a standby has no notifications, and LISTEN is an error there */

#define NGX_PGQ_POOL_SETUP_FOLLOW                                             \
    "set statement_timeout = %M; do $$begin if not pg_is_in_recovery() then"  \
    " listen ngx_pgq_posts; end if; end$$%Z"


/*
 * As for POSTs, a WARNING tells that a commit was not confirmed.  A consumer
 * that uses SQL may lock its part for long: others do not wait for it here.
 */

#define NGX_PGQ_POOL_SETUP_CONSUME                                            \
    "set statement_timeout = %M; set lock_timeout = 1000; "                   \
    NGX_PGQ_POOL_SETUP_POST "%Z"


static ngx_pgq_pool_t *ngx_pgq_pool_derive(ngx_conf_t *cf, ngx_pgq_pool_t *db,
    const char *setup, ngx_msec_t timeout);
static ngx_int_t ngx_pgq_pool_init_lanes(ngx_pgq_pool_t *db);
static void ngx_pgq_pool_answered_clear(ngx_pgq_pool_t *db);
static void ngx_pgq_pool_lane_ready(ngx_pgq_lane_t *lane);
static void ngx_pgq_pool_lane_lost(ngx_pgq_lane_t *lane);
static void ngx_pgq_pool_lane_used(ngx_pgq_lane_t *lane);
static ngx_uint_t ngx_pgq_pool_connect_lock(ngx_pgq_lane_t *lane);
static void ngx_pgq_pool_connect_unlock(ngx_pgq_lane_t *lane);
static ngx_pgq_lane_t *ngx_pgq_pool_lane_spare(ngx_pgq_lane_t *lane);
static void ngx_pgq_pool_lane_notified(ngx_pgq_lane_t *lane,
    const char *payload);
static void ngx_pgq_pool_dispatch_handler(ngx_event_t *ev);
static void ngx_pgq_pool_timer_handler(ngx_event_t *ev);


static const ngx_pgq_lane_ops_t  ngx_pgq_pool_lane_ops = {
    ngx_pgq_pool_lane_ready,
    ngx_pgq_call_result,
    ngx_pgq_call_done,
    ngx_pgq_pool_lane_lost,
    ngx_pgq_pool_connect_lock,
    ngx_pgq_pool_connect_unlock,
    ngx_pgq_pool_lane_spare,
    ngx_pgq_pool_lane_notified
};


/*
 * Creates the pool of GETs.  The server ends a read after answer_timeout; if
 * the server does not answer at all, the lane is dropped a little later.
 */

ngx_int_t
ngx_pgq_pool_reads(ngx_conf_t *cf, ngx_pgq_pool_t *db)
{
    ngx_pgq_pool_t  *reads;

    db->lane.setup = (char *) NGX_PGQ_POOL_SETUP_POST;

    reads = ngx_pgq_pool_derive(cf, db, NGX_PGQ_POOL_SETUP_GET,
                                db->lane.answer_timeout);
    if (reads == NULL) {
        return NGX_ERROR;
    }

    reads->reading = 1;
    reads->nlanes = db->read_lanes;
    reads->lane.answer_timeout += NGX_PGQ_POOL_SLACK;

    db->reads = reads;

    return NGX_OK;
}


/* a pool of one lane that listens for new posts */

ngx_pgq_pool_t *
ngx_pgq_pool_follower(ngx_conf_t *cf, ngx_pgq_pool_t *db)
{
    ngx_pgq_pool_t  *follower;

    follower = ngx_pgq_pool_derive(cf, db->reads, NGX_PGQ_POOL_SETUP_FOLLOW,
                                   db->lane.answer_timeout);

    if (follower) {
        follower->nlanes = 1;
    }

    return follower;
}


/* creates the pool of consumers */

ngx_int_t
ngx_pgq_pool_consumers(ngx_conf_t *cf, ngx_pgq_pool_t *db)
{
    db->consumers = ngx_pgq_pool_derive(cf, db->reads,
                                        NGX_PGQ_POOL_SETUP_CONSUME,
                                        db->lane.answer_timeout);

    return db->consumers ? NGX_OK : NGX_ERROR;
}


/* a copy with another first statement, which sets statement_timeout */

static ngx_pgq_pool_t *
ngx_pgq_pool_derive(ngx_conf_t *cf, ngx_pgq_pool_t *db, const char *setup,
    ngx_msec_t timeout)
{
    size_t           size;
    ngx_pgq_pool_t  *derived;

    size = ngx_strlen(setup) + NGX_INT_T_LEN;

    derived = ngx_palloc(cf->pool, sizeof(ngx_pgq_pool_t));
    if (derived == NULL) {
        return NULL;
    }

    *derived = *db;

    derived->lane.setup = ngx_pnalloc(cf->pool, size);
    if (derived->lane.setup == NULL) {
        return NULL;
    }

    ngx_snprintf((u_char *) derived->lane.setup, size, setup, timeout);

    return derived;
}


/* initializes a pool and its pool of GETs; their sources must be set */

ngx_int_t
ngx_pgq_pool_init(ngx_pgq_pool_t *db, ngx_cycle_t *cycle)
{
    db->lane.log = cycle->log;
    db->answered_at = ngx_pgq_seconds();

    ngx_queue_init(&db->idle);

    db->dispatch.handler = ngx_pgq_pool_dispatch_handler;
    db->dispatch.data = db;
    db->dispatch.log = cycle->log;

    db->timer.handler = ngx_pgq_pool_timer_handler;
    db->timer.data = db;
    db->timer.log = cycle->log;
    db->timer.cancelable = 1;

    if (ngx_pgq_pool_init_lanes(db) != NGX_OK) {
        return NGX_ERROR;
    }

    if (db->reading) {
        /* its lanes connect when there is a GET */
        return NGX_OK;
    }

    ngx_pgq_pool_open(db);

    return ngx_pgq_pool_init(db->reads, cycle);
}


/* connects the lanes when it is called for the first time */

void
ngx_pgq_pool_open(ngx_pgq_pool_t *db)
{
    ngx_uint_t  i;

    if (db->opened) {
        return;
    }

    db->opened = 1;

    for (i = 0; i < db->nlanes; i++) {
        ngx_pgq_lane_open(&db->lanes[i]);
    }
}


/* closes the lanes until ngx_pgq_pool_open(); no call may be in progress, or
   its owner forgets it */

void
ngx_pgq_pool_close(ngx_pgq_pool_t *db)
{
    ngx_uint_t  i;

    db->opened = 0;

    for (i = 0; i < db->nlanes + 1; i++) {
        ngx_pgq_pool_lane_used(&db->lanes[i]);
        ngx_pgq_lane_close(&db->lanes[i]);
        db->lanes[i].data = NULL;
    }
}


static ngx_int_t
ngx_pgq_pool_init_lanes(ngx_pgq_pool_t *db)
{
    ngx_uint_t       i;
    ngx_pgq_lane_t  *lane;

    db->lanes = ngx_calloc((db->nlanes + 1) * sizeof(ngx_pgq_lane_t),
                           db->lane.log);
    if (db->lanes == NULL) {
        return NGX_ERROR;
    }

    db->lane.waiting = &db->unanswered;
    db->lane.large = 2 * db->batch_size;
    db->lane.statements = db->reading ? ngx_pgq_call_reads
                                      : ngx_pgq_call_writes;
    db->lane.ops = &ngx_pgq_pool_lane_ops;

    for (i = 0; i < db->nlanes + 1; i++) {
        lane = &db->lanes[i];
        lane->conf = &db->lane;
        lane->owner = db;
        lane->state = NGX_PGQ_LANE_CLOSED;
    }

    return NGX_OK;
}


void
ngx_pgq_pool_exit(ngx_pgq_pool_t *db)
{
    ngx_uint_t  i;

    if (db->lanes) {

        for (i = 0; i < db->nlanes + 1; i++) {
            ngx_pgq_lane_close(&db->lanes[i]);
        }

        ngx_free(db->lanes);
        db->lanes = NULL;

        if (db->source->clear) {
            db->source->clear(db);
        }
    }

    if (!db->reading) {
        ngx_pgq_pool_exit(db->reads);
    }
}


/* called when a request starts to wait, at most until the deadline */

void
ngx_pgq_pool_hold(ngx_pgq_pool_t *db, ngx_msec_t deadline, size_t size)
{
    db->unanswered++;
    db->timer.cancelable = 0;
    ngx_pgq_pool_count(db, 1, size);
    ngx_pgq_pool_alarm(db, deadline);
}


/* calls the source's expire() and next() at this time or before */

void
ngx_pgq_pool_alarm(ngx_pgq_pool_t *db, ngx_msec_t time)
{
    if (!db->timer.timer_set
        || (ngx_msec_int_t) (db->timer.timer.key - time) > 0)
    {
        ngx_add_timer(&db->timer, time - ngx_current_msec);
    }
}


void
ngx_pgq_pool_release(ngx_pgq_pool_t *db, size_t size)
{
    db->unanswered--;
    db->timer.cancelable = db->unanswered == 0;
    ngx_pgq_pool_count(db, -1, -(ngx_int_t) size);
}


void
ngx_pgq_pool_count(ngx_pgq_pool_t *db, ngx_int_t tickets, ngx_int_t size)
{
    db->size += size;

    ngx_pgq_metrics_waiting(db->lane.metrics, tickets, size);
}


/* called when the source may have a call */

void
ngx_pgq_pool_wake(ngx_pgq_pool_t *db)
{
    ngx_post_event(&db->dispatch, &ngx_posted_events);
}


/* the same, but after the sockets that are ready by then have been read */

void
ngx_pgq_pool_wake_next(ngx_pgq_pool_t *db)
{
    ngx_post_event(&db->dispatch, &ngx_posted_next_events);
}


/* the lane that was used last is used next: its backend has warm caches */

static void
ngx_pgq_pool_lane_ready(ngx_pgq_lane_t *lane)
{
    ngx_pgq_pool_t  *db;

    db = lane->owner;

    ngx_queue_insert_head(&db->idle, &lane->queue);
    lane->queued = 1;

    ngx_pgq_pool_wake(db);
}


static void
ngx_pgq_pool_lane_lost(ngx_pgq_lane_t *lane)
{
    ngx_pgq_pool_lane_used(lane);
    ngx_pgq_call_lost(lane);
}


static void
ngx_pgq_pool_lane_notified(ngx_pgq_lane_t *lane, const char *payload)
{
    ngx_pgq_pool_t  *db;

    db = lane->owner;

    if (db->source->notified) {
        db->source->notified(db, payload);
    }
}


static void
ngx_pgq_pool_lane_used(ngx_pgq_lane_t *lane)
{
    if (lane->queued) {
        ngx_queue_remove(&lane->queue);
        lane->queued = 0;
    }
}


static ngx_uint_t
ngx_pgq_pool_connect_lock(ngx_pgq_lane_t *lane)
{
    ngx_pgq_pool_t  *db;

    db = lane->owner;

    if (db->connecting) {
        return 0;
    }

    db->connecting = lane;

    return 1;
}


/* the next lane that is due connects by a posted event */

static void
ngx_pgq_pool_connect_unlock(ngx_pgq_lane_t *lane)
{
    ngx_uint_t       i, n, index;
    ngx_pgq_lane_t  *next;
    ngx_pgq_pool_t  *db;

    db = lane->owner;

    if (db->connecting != lane) {
        return;
    }

    db->connecting = NULL;

    n = db->nlanes + 1;
    index = lane - db->lanes;

    for (i = 1; i < n; i++) {
        next = &db->lanes[(index + i) % n];

        if (next->connect_due) {
            ngx_post_event(&next->timer, &ngx_posted_events);
            return;
        }
    }
}


static ngx_pgq_lane_t *
ngx_pgq_pool_lane_spare(ngx_pgq_lane_t *lane)
{
    ngx_uint_t       i;
    ngx_pgq_pool_t  *db;

    db = lane->owner;

    for (i = 0; i < db->nlanes + 1; i++) {
        if (db->lanes[i].state == NGX_PGQ_LANE_CLOSED) {
            return &db->lanes[i];
        }
    }

    return NULL;
}


/* counts a request that was answered with success */

void
ngx_pgq_pool_answered(ngx_pgq_pool_t *db)
{
    ngx_pgq_pool_answered_clear(db);

    db->answered_at = ngx_pgq_seconds();
    db->answered[db->answered_at % NGX_PGQ_RATE_SECONDS]++;
}


/* clears the counts of the seconds after answered_at: no answers */

static void
ngx_pgq_pool_answered_clear(ngx_pgq_pool_t *db)
{
    time_t  s, now;

    now = ngx_pgq_seconds();

    for (s = now; s > db->answered_at && s > now - NGX_PGQ_RATE_SECONDS; s--) {
        db->answered[s % NGX_PGQ_RATE_SECONDS] = 0;
    }
}


/*
 * Retry-After in seconds: the waiting requests divided by the best rate of the
 * last NGX_PGQ_RATE_SECONDS.  Without answers in that time: the time since the
 * last answer.  Jitter spreads the retries.
 */

ngx_uint_t
ngx_pgq_pool_retry_after(ngx_pgq_pool_t *db)
{
    time_t      since;
    ngx_uint_t  i, rate, wait;

    since = ngx_pgq_seconds() - db->answered_at;

    ngx_pgq_pool_answered_clear(db);

    for (rate = 0, i = 0; i < NGX_PGQ_RATE_SECONDS; i++) {
        rate = ngx_max(rate, db->answered[i]);
    }

    wait = rate ? db->unanswered / rate + 1 : (ngx_uint_t) ngx_max(since, 2);
    wait = ngx_min(wait, NGX_PGQ_POOL_RETRY_MAX);

    return wait + ngx_random() % (wait / 2 + 1);
}


ngx_uint_t
ngx_pgq_pool_connected(ngx_pgq_pool_t *db)
{
    ngx_uint_t  i;

    for (i = 0; i < db->nlanes + 1; i++) {
        if (ngx_pgq_lane_is_connected(&db->lanes[i])) {
            return 1;
        }
    }

    return 0;
}


static void
ngx_pgq_pool_dispatch_handler(ngx_event_t *ev)
{
    ngx_queue_t     *q;
    ngx_pgq_pool_t  *db;
    ngx_pgq_lane_t  *lane;
    ngx_pgq_call_t  *call;

    db = ev->data;

    while (!ngx_queue_empty(&db->idle)) {

        call = db->source->next(db);

        if (call == NULL) {
            return;
        }

        q = ngx_queue_head(&db->idle);
        lane = ngx_queue_data(q, ngx_pgq_lane_t, queue);
        ngx_pgq_pool_lane_used(lane);

        if (ngx_pgq_call_start(call, lane) == NGX_OK) {
            continue;
        }

        call->done(call, NGX_PGQ_AGAIN);

        if (lane->state == NGX_PGQ_LANE_IDLE) {

            /* out of memory: the next event tries again */

            ngx_pgq_pool_lane_ready(lane);
            ngx_delete_posted_event(&db->dispatch);
            return;
        }
    }
}


static void
ngx_pgq_pool_timer_handler(ngx_event_t *ev)
{
    ngx_pgq_pool_t  *db;
    ngx_msec_int_t   next;

    db = ev->data;
    next = db->source->expire(db);

    if (next >= 0) {
        ngx_pgq_pool_alarm(db, ngx_current_msec
                                 + ngx_max((ngx_msec_t) next + 1,
                                           NGX_PGQ_POOL_TICK));
        ngx_pgq_pool_wake(db);
    }
}
