/* SPDX-License-Identifier: PostgreSQL */

/*
 * A lane owns a PGconn, its nginx connection and its timers.  This file has
 * the states of a lane: when it connects, is dropped and is replaced.
 * ngx_pgq_lane_connect.c makes one attempt to connect; ngx_pgq_lane_io.c sends
 * a statement and reads its results.
 *
 * Invariants:
 *  - a lane is in one state, which only ngx_pgq_lane_set_state() changes;
 *  - at most one statement is in progress;
 *  - a lane that cannot connect tries all endpoints with short pauses.  After
 *    each round its back-off grows.  A statement that succeeds, or the loss of
 *    a connection older than NGX_PGQ_LANE_STABLE, resets it;
 *  - an old lane is used until its replacement is connected.  There is one
 *    spare lane, so one lane is replaced at a time.
 */

#include "ngx_pgq_lane.h"

#include <libpq-fe.h>


#define NGX_PGQ_LANE_BACKOFF_MIN  50      /* ms */
#define NGX_PGQ_LANE_BACKOFF_MAX  500     /* ms; it prolongs a failover */
#define NGX_PGQ_LANE_STABLE       10000   /* ms, until the back-off is reset */
#define NGX_PGQ_LANE_SHRINK       10000   /* ms, before the lane is replaced */
#define NGX_PGQ_LANE_AGE_RETRY    1000    /* ms, if there is no spare lane */
#define NGX_PGQ_LANE_AGE_FAILED   60000   /* ms, if the new lane failed */


const char  *ngx_pgq_lane_states[NGX_PGQ_LANE_CLOSED] = {
    [NGX_PGQ_LANE_DOWN] = "down",
    [NGX_PGQ_LANE_CONNECTING] = "connecting",
    [NGX_PGQ_LANE_PREPARING] = "preparing",
    [NGX_PGQ_LANE_IDLE] = "idle",
    [NGX_PGQ_LANE_BUSY] = "busy"
};


static ngx_msec_t ngx_pgq_lane_backoff(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_finish(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_timer_handler(ngx_event_t *ev);
static void ngx_pgq_lane_age_handler(ngx_event_t *ev);
static void ngx_pgq_lane_retire(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_log_failure(ngx_pgq_lane_t *lane, const char *why,
    const char *text, ngx_msec_t wait);


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
    lane->retiring = 0;
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

    if (ngx_pgq_lane_is_connected(lane)) {
        ngx_pgq_metrics_connected(lane->conf->metrics);
    }

    ngx_pgq_lane_finish(lane);
    ngx_pgq_lane_unreserve(lane);
    ngx_pgq_lane_set_state(lane, NGX_PGQ_LANE_CLOSED);
    lane->replaces = NULL;
}


/* ends the connection, calls lost() if there was one, starts the back-off */

void
ngx_pgq_lane_drop(ngx_pgq_lane_t *lane, const char *why, const char *text)
{
    ngx_msec_t  wait;
    ngx_uint_t  connected;

    connected = ngx_pgq_lane_is_connected(lane);

    if (!connected) {
        ngx_pgq_metrics_connect(lane->conf->metrics, 0);

    } else if (ngx_current_msec - lane->connected_at >= NGX_PGQ_LANE_STABLE) {
        lane->failures = 0;
    }

    lane->failures++;
    wait = lane->replaces ? NGX_PGQ_LANE_AGE_FAILED
                          : ngx_pgq_lane_backoff(lane);

    ngx_pgq_lane_log_failure(lane, why, text, wait);

    ngx_pgq_target_failed(lane->conf->target, &lane->endpoint);

    ngx_pgq_lane_finish(lane);
    ngx_pgq_lane_set_state(lane, NGX_PGQ_LANE_DOWN);

    if (connected) {
        lane->conf->ops->lost(lane);
    }

    if (lane->replaces) {
        /* the old lane stays in use */
        ngx_add_timer(&lane->replaces->age, wait);
        lane->replaces = NULL;
        lane->retiring = 1;
    }

    if (lane->retiring) {
        ngx_pgq_lane_close(lane);
        return;
    }

    ngx_add_timer(&lane->timer, wait);
}


/* drops the lane after an error of libpq or of nginx */

void
ngx_pgq_lane_fail(ngx_pgq_lane_t *lane)
{
    ngx_pgq_metrics_error("08006");
    ngx_pgq_lane_drop(lane, "08006",
                      lane->conn ? PQerrorMessage(lane->conn)
                                 : "out of memory");
}


/* returns ms, with jitter: lanes and workers must not all connect at once */

static ngx_msec_t
ngx_pgq_lane_backoff(ngx_pgq_lane_t *lane)
{
    ngx_msec_t  wait;
    ngx_uint_t  endpoints, rounds;

    endpoints = ngx_pgq_target_endpoints(lane->conf->target);
    wait = NGX_PGQ_LANE_BACKOFF_MIN;

    if (lane->failures % endpoints == 0) {
        rounds = lane->failures / endpoints - 1;
        wait = ngx_min(wait << ngx_min(rounds, 4), NGX_PGQ_LANE_BACKOFF_MAX);
    }

    return wait / 2 + ngx_random() % (wait / 2 + 1);
}


/* called when a statement succeeded, or was refused because of its data */

void
ngx_pgq_lane_healthy(ngx_pgq_lane_t *lane)
{
    lane->failures = 0;
    lane->logged_at = 0;
}


void
ngx_pgq_lane_set_state(ngx_pgq_lane_t *lane, ngx_pgq_lane_state_e state)
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

        if (lane->conn == NULL) {
            ngx_pgq_lane_resolve_timeout(lane);
            return;
        }

        /* fall through */

    case NGX_PGQ_LANE_PREPARING:
    case NGX_PGQ_LANE_BUSY:
        ngx_pgq_metrics_error("08006");
        ngx_pgq_lane_drop(lane, "timeout", "no answer in time");
        return;

    default:
        /* the timer of a statement that has ended: ignored */
        return;
    }
}


/* called when the lane is connected and its statements are prepared */

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

    lane->connected_at = ngx_current_msec;
    age = lane->conf->age;

    if (age) {
        ngx_add_timer(&lane->age, age - age / 10
                      + ngx_random() % (age / 5 + 1));
    }

    ngx_pgq_lane_set_state(lane, NGX_PGQ_LANE_IDLE);

    old = lane->replaces;

    if (old) {
        lane->replaces = NULL;
        old->retiring = 1;

        if (old->state != NGX_PGQ_LANE_BUSY) {
            ngx_pgq_lane_retire(old);
        }
    }

    lane->conf->ops->ready(lane);
}


/* called when PQgetResult() has returned NULL */

void
ngx_pgq_lane_statement_end(ngx_pgq_lane_t *lane)
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

    ngx_pgq_lane_set_state(lane, NGX_PGQ_LANE_IDLE);

    lane->conf->ops->done(lane);

    if (lane->state != NGX_PGQ_LANE_IDLE) {
        return;
    }

    if (!ngx_pgq_lane_has_role(lane)) {
        ngx_pgq_lane_drop(lane, "role", "the server's role has changed");
        return;
    }

    if (lane->retiring) {
        ngx_pgq_lane_retire(lane);
        return;
    }

    lane->conf->ops->ready(lane);
}


/* replaces the lane soon: libpq does not shrink a connection's buffers */

void
ngx_pgq_lane_shrink(ngx_pgq_lane_t *lane)
{
    if (lane->age.timer_set
        && (ngx_msec_int_t) (lane->age.timer.key - ngx_current_msec)
           <= NGX_PGQ_LANE_SHRINK)
    {
        return;
    }

    ngx_add_timer(&lane->age, NGX_PGQ_LANE_SHRINK);
}


static void
ngx_pgq_lane_age_handler(ngx_event_t *ev)
{
    ngx_pgq_lane_t  *lane, *replacement;

    lane = ev->data;

    if (ngx_exiting) {
        return;
    }

    replacement = lane->conf->ops->spare(lane);

    if (replacement == NULL) {
        ngx_add_timer(&lane->age, NGX_PGQ_LANE_AGE_RETRY);
        return;
    }

    replacement->replaces = lane;
    ngx_pgq_lane_open(replacement);
}


static void
ngx_pgq_lane_retire(ngx_pgq_lane_t *lane)
{
    if (lane->state == NGX_PGQ_LANE_IDLE) {
        ngx_log_error(NGX_LOG_INFO, lane->conf->log, 0,
                      "pgq lane: replaced %s:%s after %M ms, pool \"%V\"",
                      lane->endpoint.host->name, lane->endpoint.host->port,
                      ngx_current_msec - lane->connected_at,
                      &lane->conf->name);

        lane->conf->ops->lost(lane);
    }

    ngx_pgq_lane_close(lane);
}


/* logs a failure if its reason is new, or after NGX_PGQ_LOG_INTERVAL */

static void
ngx_pgq_lane_log_failure(ngx_pgq_lane_t *lane, const char *why,
    const char *text, ngx_msec_t wait)
{
    u_char  line[NGX_PGQ_ERROR_TEXT_LEN];
    time_t  now;

    now = ngx_pgq_seconds();

    if (lane->logged_at && now - lane->logged_at < NGX_PGQ_LOG_INTERVAL
        && ngx_strncmp(lane->logged_reason, why,
                       sizeof(lane->logged_reason) - 1) == 0)
    {
        return;
    }

    lane->announced = 0;
    lane->logged_at = now;
    ngx_cpystrn(lane->logged_reason, (u_char *) why,
                sizeof(lane->logged_reason));

    ngx_pgq_error_text(line, sizeof(line), text);

    ngx_log_error(NGX_LOG_ERR, lane->conf->log, 0,
                  "pgq lane: %s %s:%s, retry in %M ms: %s (%s, %ui requests"
                  " wait), pool \"%V\"",
                  ngx_pgq_lane_is_connected(lane) ? "lost"
                                                  : "could not connect to",
                  lane->endpoint.host->name, lane->endpoint.host->port, wait,
                  line, why, *lane->conf->waiting, &lane->conf->name);
}
