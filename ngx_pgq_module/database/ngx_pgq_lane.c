/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "lane" owns the PGconn, its nginx connection and its timers, from
 * the first attempt to the end of the worker; lanes themselves are allocated
 * once a worker, one more than are used at a time.  This is its life: when it
 * connects, why it is lost, when another takes over; ngx_pgq_lane_connect.c is
 * an attempt to connect, ngx_pgq_lane_io.c a statement's way.
 *
 * Invariants:
 *  - a lane is in one state, and ngx_pgq_lane_set() alone changes it;
 *  - at most one statement is under way;
 *  - a lane that cannot connect tries every endpoint, one soon after the
 *    other, and then waits longer from round to round; what ends the waiting
 *    is a statement that succeeds, or a connection that has lasted;
 *  - a lane that has grown old goes on until another in its place is ready;
 *    one at a time, since there is one to spare.
 */

#include "ngx_pgq_lane.h"

#include <libpq-fe.h>


#define NGX_PGQ_LANE_WAIT_MIN    50      /* ms */
#define NGX_PGQ_LANE_WAIT_MAX    500     /* what a failover is longer by */
#define NGX_PGQ_LANE_LASTING     10000   /* ms, a connection that was good */
#define NGX_PGQ_LANE_CALM        10000   /* ms, after what was outsized */
#define NGX_PGQ_LANE_OLD_AGAIN   1000    /* ms, while none is to spare */
#define NGX_PGQ_LANE_OLD_LATER   60000   /* ms, after none could connect */


const char  *ngx_pgq_lane_states[NGX_PGQ_LANE_CLOSED] = {
    [NGX_PGQ_LANE_DOWN] = "down",
    [NGX_PGQ_LANE_CONNECTING] = "connecting",
    [NGX_PGQ_LANE_PREPARING] = "preparing",
    [NGX_PGQ_LANE_IDLE] = "idle",
    [NGX_PGQ_LANE_BUSY] = "busy"
};


static ngx_msec_t ngx_pgq_lane_wait(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_finish(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_timer_handler(ngx_event_t *ev);
static void ngx_pgq_lane_age_handler(ngx_event_t *ev);
static void ngx_pgq_lane_retire(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_complain(ngx_pgq_lane_t *lane, const char *why,
    const char *words, ngx_msec_t wait);


void
ngx_pgq_lane_open(ngx_pgq_lane_t *lane)
{
    lane->timer.handler = ngx_pgq_lane_timer_handler;
    lane->timer.data = lane;
    lane->timer.log = lane->conf->log;
    lane->timer.cancelable = 1;

    lane->age.handler = ngx_pgq_lane_age_handler;
    lane->age.data = lane;
    lane->age.log = lane->conf->log;
    lane->age.cancelable = 1;

    lane->failures = 0;
    lane->leaving = 0;
    lane->announced = 0;

    lane->state = NGX_PGQ_LANE_DOWN;
    ngx_pgq_metrics_lane(lane->conf->metrics, -1, lane->state);
    ngx_pgq_lane_reserve(lane);

    ngx_pgq_lane_connect(lane);
}


void
ngx_pgq_lane_close(ngx_pgq_lane_t *lane)
{
    if (lane->state == NGX_PGQ_LANE_CLOSED) {
        return;
    }

    if (lane->state == NGX_PGQ_LANE_IDLE || lane->state == NGX_PGQ_LANE_BUSY) {
        ngx_pgq_metrics_well(lane->conf->metrics);
    }

    ngx_pgq_lane_finish(lane);
    ngx_pgq_lane_unreserve(lane);
    ngx_pgq_lane_set(lane, NGX_PGQ_LANE_CLOSED);
}


/*
 * Ends the connection and waits for the next attempt.  The user is told by
 * lost(), unless it never had the lane.
 */

void
ngx_pgq_lane_drop(ngx_pgq_lane_t *lane, const char *why, const char *words)
{
    ngx_msec_t            wait;
    ngx_pgq_lane_state_e  former;

    former = lane->state;

    if (former == NGX_PGQ_LANE_CONNECTING || former == NGX_PGQ_LANE_PREPARING)
    {
        ngx_pgq_metrics_connect(lane->conf->metrics, 0);

    } else if (ngx_current_msec - lane->since >= NGX_PGQ_LANE_LASTING) {
        lane->failures = 0;
    }

    lane->failures++;
    wait = lane->old ? NGX_PGQ_LANE_OLD_LATER : ngx_pgq_lane_wait(lane);

    ngx_pgq_lane_complain(lane, why, words, wait);

    ngx_pgq_target_miss(lane->conf->target, &lane->endpoint);

    ngx_pgq_lane_finish(lane);
    ngx_pgq_lane_set(lane, NGX_PGQ_LANE_DOWN);

    if (former == NGX_PGQ_LANE_IDLE || former == NGX_PGQ_LANE_BUSY) {
        lane->conf->ops->lost(lane);
    }

    if (lane->old) {
        /* the one that it was to take over from goes on */
        ngx_add_timer(&lane->old->age, wait);
        lane->old = NULL;
        lane->leaving = 1;
    }

    if (lane->leaving) {
        ngx_pgq_lane_close(lane);
        return;
    }

    ngx_add_timer(&lane->timer, wait);
}


void
ngx_pgq_lane_fail(ngx_pgq_lane_t *lane)
{
    ngx_pgq_metrics_error("08006");
    ngx_pgq_lane_drop(lane, "08006",
                      lane->conn ? PQerrorMessage(lane->conn)
                                 : "out of memory");
}


/* jittered, so that lanes and workers do not come as one */

static ngx_msec_t
ngx_pgq_lane_wait(ngx_pgq_lane_t *lane)
{
    ngx_msec_t  wait;
    ngx_uint_t  places, rounds;

    places = ngx_pgq_target_places(lane->conf->target);
    wait = NGX_PGQ_LANE_WAIT_MIN;

    if (lane->failures % places == 0) {
        rounds = lane->failures / places - 1;
        wait = ngx_min(wait << ngx_min(rounds, 4), NGX_PGQ_LANE_WAIT_MAX);
    }

    return wait / 2 + ngx_random() % (wait / 2 + 1);
}


/* the user's word that the database does what is asked of it */

void
ngx_pgq_lane_healthy(ngx_pgq_lane_t *lane)
{
    lane->failures = 0;
    lane->complained = 0;
}


void
ngx_pgq_lane_set(ngx_pgq_lane_t *lane, ngx_pgq_lane_state_e state)
{
    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, lane->conf->log, 0,
                   "pgq lane: %p from %d to %d", lane, lane->state, state);

    ngx_pgq_metrics_lane(lane->conf->metrics, lane->state, state);

    lane->state = state;
}


static void
ngx_pgq_lane_finish(ngx_pgq_lane_t *lane)
{
    if (lane->timer.timer_set) {
        ngx_del_timer(&lane->timer);
    }

    if (lane->timer.posted) {
        ngx_delete_posted_event(&lane->timer);
    }

    if (lane->age.timer_set) {
        ngx_del_timer(&lane->age);
    }

    ngx_pgq_lane_connect_end(lane);

    if (lane->conn) {
        PQfinish(lane->conn);
        lane->conn = NULL;
    }
}


static void
ngx_pgq_lane_timer_handler(ngx_event_t *ev)
{
    ngx_pgq_lane_t  *lane;

    lane = ev->data;

    switch (lane->state) {

    case NGX_PGQ_LANE_DOWN:
        ngx_pgq_lane_connect(lane);
        return;

    case NGX_PGQ_LANE_CONNECTING:
        ngx_pgq_lane_connect_late(lane);
        return;

    case NGX_PGQ_LANE_PREPARING:
    case NGX_PGQ_LANE_BUSY:
        ngx_pgq_metrics_error("08006");
        ngx_pgq_lane_drop(lane, "timeout", "no answer in time");
        return;

    default:
        /* left over from a statement that was answered */
        return;
    }
}


/* it can be used for the first time */

void
ngx_pgq_lane_connected(ngx_pgq_lane_t *lane)
{
    ngx_msec_t       age;
    ngx_pgq_lane_t  *old;

    ngx_del_timer(&lane->timer);

    if (!lane->announced) {
        lane->announced = 1;
        ngx_log_error(NGX_LOG_NOTICE, lane->conf->log, 0,
                      "pgq lane: connected to %s:%s, pool \"%V\"",
                      lane->endpoint.host->name, lane->endpoint.host->port,
                      &lane->conf->name);
    }

    ngx_pgq_metrics_connect(lane->conf->metrics, 1);

    lane->since = ngx_current_msec;
    age = lane->conf->age;

    if (age) {
        ngx_add_timer(&lane->age, age - age / 10
                      + ngx_random() % (age / 5 + 1));
    }

    ngx_pgq_lane_set(lane, NGX_PGQ_LANE_IDLE);

    old = lane->old;

    if (old) {
        lane->old = NULL;
        old->leaving = 1;

        if (old->state != NGX_PGQ_LANE_BUSY) {
            ngx_pgq_lane_retire(old);
        }
    }

    lane->conf->ops->ready(lane);
}


/* all results are in: the server is ready for the next query, or gone */

void
ngx_pgq_lane_end(ngx_pgq_lane_t *lane)
{
    if (PQstatus(lane->conn) != CONNECTION_OK
        || PQtransactionStatus(lane->conn) != PQTRANS_IDLE)
    {
        ngx_pgq_lane_fail(lane);
        return;
    }

    if (lane->state == NGX_PGQ_LANE_PREPARING) {
        lane->prepared++;
        ngx_pgq_lane_prepare(lane);
        return;
    }

    ngx_pgq_lane_set(lane, NGX_PGQ_LANE_IDLE);

    lane->conf->ops->done(lane);

    if (lane->state != NGX_PGQ_LANE_IDLE) {
        return;
    }

    if (!ngx_pgq_lane_fits(lane)) {
        ngx_pgq_lane_drop(lane, "role", "the server's role has changed");
        return;
    }

    if (lane->leaving) {
        ngx_pgq_lane_retire(lane);
        return;
    }

    lane->conf->ops->ready(lane);
}


/*
 * libpq's buffers have grown for something that was far beyond the common,
 * and never shrink.
 */

void
ngx_pgq_lane_outsized(ngx_pgq_lane_t *lane)
{
    if (lane->age.timer_set
        && (ngx_msec_int_t) (lane->age.timer.key - ngx_current_msec)
           <= NGX_PGQ_LANE_CALM)
    {
        return;
    }

    ngx_add_timer(&lane->age, NGX_PGQ_LANE_CALM);
}


static void
ngx_pgq_lane_age_handler(ngx_event_t *ev)
{
    ngx_pgq_lane_t  *lane, *heir;

    lane = ev->data;

    if (ngx_exiting) {
        return;
    }

    heir = lane->conf->ops->spare(lane);

    if (heir == NULL) {
        ngx_add_timer(&lane->age, NGX_PGQ_LANE_OLD_AGAIN);
        return;
    }

    heir->old = lane;
    ngx_pgq_lane_open(heir);
}


static void
ngx_pgq_lane_retire(ngx_pgq_lane_t *lane)
{
    ngx_uint_t  used;

    used = lane->state == NGX_PGQ_LANE_IDLE;

    if (used) {
        ngx_log_error(NGX_LOG_INFO, lane->conf->log, 0,
                      "pgq lane: left %s:%s after %M ms, pool \"%V\"",
                      lane->endpoint.host->name, lane->endpoint.host->port,
                      ngx_current_msec - lane->since, &lane->conf->name);
    }

    ngx_pgq_lane_close(lane);

    if (used) {
        lane->conf->ops->lost(lane);
    }
}


/* one line for each change of heart, and one now and then */

static void
ngx_pgq_lane_complain(ngx_pgq_lane_t *lane, const char *why,
    const char *words, ngx_msec_t wait)
{
    u_char      quoted[NGX_PGQ_WORDS_LEN];
    time_t      now;
    ngx_uint_t  known;

    known = ngx_strncmp(lane->complaint, why, sizeof(lane->complaint) - 1)
            == 0;
    now = ngx_pgq_seconds();

    if (known && lane->complained
        && now - lane->complained < NGX_PGQ_QUIET)
    {
        return;
    }

    lane->announced = 0;
    lane->complained = now;
    ngx_cpystrn(lane->complaint, (u_char *) why, sizeof(lane->complaint));

    ngx_pgq_words(quoted, sizeof(quoted), words);

    ngx_log_error(NGX_LOG_ERR, lane->conf->log, 0,
                  "pgq lane: lost %s:%s, retry in %M ms: %s (%s, %ui requests"
                  " wait), pool \"%V\"",
                  lane->endpoint.host->name, lane->endpoint.host->port, wait,
                  quoted, why, lane->conf->ops->waiting(lane),
                  &lane->conf->name);
}
