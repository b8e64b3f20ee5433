/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "lane" owns the PGconn, its nginx connection and its timer, from
 * the first attempt to the end of the worker; lanes themselves are allocated
 * once a worker.  Called by call.c, which gives the callbacks.
 *
 * Invariants:
 *  - a lane is in one state, and ngx_pgq_lane_set() alone changes it;
 *  - at most one statement is under way;
 *  - nothing here blocks: the endpoint has an address, PQgetResult() is asked
 *    only when PQisBusy() says no, output is flushed as the socket takes it;
 *  - the socket belongs to libpq, which may change it while connecting, so
 *    the nginx connection is made anew around each step of an attempt;
 *  - events are level-triggered: libpq reads as much as it likes at a time;
 *  - a statement is never cancelled: a commit that waits for its replica
 *    would be answered as if it had not to.
 */

#include "ngx_pgq_lane.h"

#include <libpq-fe.h>


#define NGX_PGQ_LANE_WAIT_MIN    50      /* ms */
#define NGX_PGQ_LANE_WAIT_MAX    2000
#define NGX_PGQ_LANE_QUIET       10      /* s, for a complaint told before */


static void ngx_pgq_lane_set(ngx_pgq_lane_t *lane,
    ngx_pgq_lane_state_e state);
static void ngx_pgq_lane_connect(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_poll(ngx_pgq_lane_t *lane,
    PostgresPollingStatusType polling);
static ngx_int_t ngx_pgq_lane_watch(ngx_pgq_lane_t *lane, ngx_uint_t write);
static void ngx_pgq_lane_unwatch(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_prepare(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_read_handler(ngx_event_t *rev);
static void ngx_pgq_lane_write_handler(ngx_event_t *wev);
static void ngx_pgq_lane_timer_handler(ngx_event_t *ev);
static void ngx_pgq_lane_input(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_result(ngx_pgq_lane_t *lane, PGresult *res);
static void ngx_pgq_lane_end(ngx_pgq_lane_t *lane);
static ngx_int_t ngx_pgq_lane_flush(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_fail(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_complain(ngx_pgq_lane_t *lane, const char *why,
    const char *words, ngx_msec_t wait);
static void ngx_pgq_lane_notice(void *data, const PGresult *res);


void
ngx_pgq_lane_open(ngx_pgq_lane_t *lane)
{
    lane->timer.handler = ngx_pgq_lane_timer_handler;
    lane->timer.data = lane;
    lane->timer.log = lane->pool->log;
    lane->timer.cancelable = 1;

    lane->state = NGX_PGQ_LANE_DOWN;
    ngx_pgq_metrics_lane(lane->pool->metrics, -1, lane->state);

    ngx_pgq_lane_connect(lane);
}


void
ngx_pgq_lane_close(ngx_pgq_lane_t *lane)
{
    if (lane->timer.timer_set) {
        ngx_del_timer(&lane->timer);
    }

    if (lane->state == NGX_PGQ_LANE_IDLE || lane->state == NGX_PGQ_LANE_BUSY) {
        ngx_pgq_metrics_well(lane->pool->metrics);
    }

    ngx_pgq_lane_unwatch(lane);

    if (lane->conn) {
        PQfinish(lane->conn);
        lane->conn = NULL;
    }

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

    wait = ngx_min((ngx_msec_t) NGX_PGQ_LANE_WAIT_MIN
                   << ngx_min(lane->failures, 6), NGX_PGQ_LANE_WAIT_MAX);
    wait = wait / 2 + ngx_random() % (wait / 2 + 1);
    lane->failures++;

    if (former == NGX_PGQ_LANE_CONNECTING || former == NGX_PGQ_LANE_PREPARING)
    {
        ngx_pgq_metrics_connect(lane->pool->metrics, 0);
    }

    ngx_pgq_lane_complain(lane, why, words, wait);

    ngx_pgq_lane_unwatch(lane);

    if (lane->conn) {
        PQfinish(lane->conn);
        lane->conn = NULL;
    }

    ngx_pgq_target_miss(lane->pool->target, lane->endpoint);

    ngx_pgq_lane_set(lane, NGX_PGQ_LANE_DOWN);
    ngx_add_timer(&lane->timer, wait);

    if (former == NGX_PGQ_LANE_IDLE || former == NGX_PGQ_LANE_BUSY) {
        lane->ops->lost(lane);
    }
}


/* parameters are binary, results are text */

ngx_int_t
ngx_pgq_lane_send(ngx_pgq_lane_t *lane, ngx_uint_t statement, int nparams,
    const char *const *values, const int *lengths)
{
    static const int  formats[] = { 1, 1, 1, 1, 1, 1, 1, 1 };

    lane->warned = 0;

    if (!PQsendQueryPrepared(lane->conn, lane->statements[statement].name,
                             nparams, values, lengths, formats, 0))
    {
        return NGX_ERROR;
    }

    ngx_pgq_lane_set(lane, NGX_PGQ_LANE_BUSY);

    ngx_add_timer(&lane->timer, lane->pool->timeout);

    /* a failure to write shows as a failure to read, with the reason */
    (void) ngx_pgq_lane_flush(lane);

    return NGX_OK;
}


/* the user's word that the database does what is asked of it */

void
ngx_pgq_lane_healthy(ngx_pgq_lane_t *lane)
{
    lane->failures = 0;
    lane->complained = 0;
}


static void
ngx_pgq_lane_set(ngx_pgq_lane_t *lane, ngx_pgq_lane_state_e state)
{
    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, lane->pool->log, 0,
                   "pgq lane: %p from %d to %d", lane, lane->state, state);

    ngx_pgq_metrics_lane(lane->pool->metrics, lane->state, state);

    lane->state = state;
}


static void
ngx_pgq_lane_connect(ngx_pgq_lane_t *lane)
{
    const char        **keywords, **values;
    ngx_uint_t          n;
    ngx_pgq_target_t   *target;

    target = lane->pool->target;
    lane->endpoint = ngx_pgq_target_aim(target);

    keywords = target->keywords;
    values = target->values;
    n = target->nfixed;

    keywords[n] = "host";
    values[n++] = lane->endpoint->host;
    keywords[n] = "port";
    values[n++] = lane->endpoint->port;
    keywords[n] = lane->endpoint->hostaddr ? "hostaddr" : NULL;
    values[n++] = lane->endpoint->hostaddr;
    keywords[n] = NULL;

    ngx_pgq_lane_set(lane, NGX_PGQ_LANE_CONNECTING);

    lane->conn = PQconnectStartParams(keywords, values, 0);

    if (lane->conn == NULL || PQstatus(lane->conn) == CONNECTION_BAD) {
        ngx_pgq_lane_fail(lane);
        return;
    }

    PQsetNoticeReceiver(lane->conn, ngx_pgq_lane_notice, lane);

    ngx_add_timer(&lane->timer, lane->pool->connect_timeout);

    ngx_pgq_lane_poll(lane, PGRES_POLLING_WRITING);
}


static void
ngx_pgq_lane_poll(ngx_pgq_lane_t *lane, PostgresPollingStatusType polling)
{
    ngx_int_t  rc;

    switch (polling) {

    case PGRES_POLLING_OK:

        if (PQsetnonblocking(lane->conn, 1) != 0
            || ngx_pgq_lane_watch(lane, 0) != NGX_OK)
        {
            ngx_pgq_lane_fail(lane);
            return;
        }

        ngx_pgq_lane_set(lane, NGX_PGQ_LANE_PREPARING);
        lane->prepared = 0;
        ngx_pgq_lane_prepare(lane);
        return;

    case PGRES_POLLING_READING:
    case PGRES_POLLING_WRITING:

        rc = ngx_pgq_lane_watch(lane, polling == PGRES_POLLING_WRITING);
        if (rc != NGX_OK) {
            ngx_pgq_lane_fail(lane);
        }

        return;

    default:
        ngx_pgq_lane_fail(lane);
    }
}


static ngx_int_t
ngx_pgq_lane_watch(ngx_pgq_lane_t *lane, ngx_uint_t write)
{
    ngx_event_t       *ev;
    ngx_connection_t  *c;

    c = ngx_get_connection(PQsocket(lane->conn), lane->pool->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    c->data = lane;
    c->shared = 1;    /* the socket is libpq's to close */
    c->read->handler = ngx_pgq_lane_read_handler;
    c->write->handler = ngx_pgq_lane_write_handler;
    c->read->log = lane->pool->log;
    c->write->log = lane->pool->log;

    lane->connection = c;
    lane->flushing = 0;

    ev = write ? c->write : c->read;

    return ngx_add_event(ev, write ? NGX_WRITE_EVENT : NGX_READ_EVENT,
                         NGX_LEVEL_EVENT);
}


static void
ngx_pgq_lane_unwatch(ngx_pgq_lane_t *lane)
{
    ngx_uint_t         flags;
    ngx_connection_t  *c;

    c = lane->connection;

    if (c == NULL) {
        return;
    }

    /* libpq closes the socket of a lost connection by itself */

    flags = PQsocket(lane->conn) == c->fd ? 0 : NGX_CLOSE_EVENT;

    if (c->read->active) {
        ngx_del_event(c->read, NGX_READ_EVENT, flags);
    }

    if (c->write->active) {
        ngx_del_event(c->write, NGX_WRITE_EVENT, flags);
    }

    ngx_close_connection(c);
    lane->connection = NULL;
}


static void
ngx_pgq_lane_prepare(ngx_pgq_lane_t *lane)
{
    ngx_pgq_lane_statement_t  *statement;

    statement = &lane->statements[lane->prepared];

    if (statement->name == NULL) {
        ngx_del_timer(&lane->timer);

        ngx_log_error(NGX_LOG_NOTICE, lane->pool->log, 0,
                      "pgq lane: connected to %s:%s",
                      lane->endpoint->host, lane->endpoint->port);

        ngx_pgq_metrics_connect(lane->pool->metrics, 1);

        ngx_pgq_lane_set(lane, NGX_PGQ_LANE_IDLE);
        lane->ops->ready(lane);
        return;
    }

    if (!PQsendPrepare(lane->conn, statement->name, statement->text, 0, NULL)
        || ngx_pgq_lane_flush(lane) != NGX_OK)
    {
        ngx_pgq_lane_fail(lane);
    }
}


static void
ngx_pgq_lane_read_handler(ngx_event_t *rev)
{
    ngx_connection_t  *c;
    ngx_pgq_lane_t    *lane;

    c = rev->data;
    lane = c->data;

    if (lane->state == NGX_PGQ_LANE_CONNECTING) {
        ngx_pgq_lane_unwatch(lane);
        ngx_pgq_lane_poll(lane, PQconnectPoll(lane->conn));
        return;
    }

    ngx_pgq_lane_input(lane);
}


static void
ngx_pgq_lane_write_handler(ngx_event_t *wev)
{
    ngx_connection_t  *c;
    ngx_pgq_lane_t    *lane;

    c = wev->data;
    lane = c->data;

    if (lane->state == NGX_PGQ_LANE_CONNECTING) {
        ngx_pgq_lane_unwatch(lane);
        ngx_pgq_lane_poll(lane, PQconnectPoll(lane->conn));
        return;
    }

    if (ngx_pgq_lane_flush(lane) != NGX_OK) {
        ngx_pgq_lane_input(lane);
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


static void
ngx_pgq_lane_input(ngx_pgq_lane_t *lane)
{
    PGresult  *res;

    if (!PQconsumeInput(lane->conn)) {
        ngx_pgq_lane_fail(lane);
        return;
    }

    if (lane->flushing && ngx_pgq_lane_flush(lane) != NGX_OK) {
        ngx_pgq_lane_fail(lane);
        return;
    }

    if (lane->state == NGX_PGQ_LANE_IDLE) {

        /* a server that shuts down says so, then closes */

        if (PQstatus(lane->conn) != CONNECTION_OK) {
            ngx_pgq_lane_fail(lane);
        }

        return;
    }

    while (!PQisBusy(lane->conn)) {

        res = PQgetResult(lane->conn);

        if (res == NULL) {
            ngx_pgq_lane_end(lane);
            return;
        }

        ngx_pgq_lane_result(lane, res);
        PQclear(res);

        if (lane->state != NGX_PGQ_LANE_BUSY
            && lane->state != NGX_PGQ_LANE_PREPARING)
        {
            return;
        }
    }
}


static void
ngx_pgq_lane_result(ngx_pgq_lane_t *lane, PGresult *res)
{
    const char  *sqlstate;

    if (lane->state == NGX_PGQ_LANE_BUSY) {
        lane->ops->result(lane, res);
        return;
    }

    if (PQresultStatus(res) == PGRES_COMMAND_OK) {
        return;
    }

    sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    sqlstate = sqlstate ? sqlstate : "08006";

    ngx_pgq_metrics_error(sqlstate);
    ngx_pgq_lane_drop(lane, sqlstate, PQresultErrorMessage(res));
}


/* all results are in: the server is ready for the next query, or gone */

static void
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

    lane->ops->done(lane);

    if (lane->state == NGX_PGQ_LANE_IDLE) {
        lane->ops->ready(lane);
    }
}


static ngx_int_t
ngx_pgq_lane_flush(ngx_pgq_lane_t *lane)
{
    int           rc;
    ngx_event_t  *wev;

    wev = lane->connection->write;

    rc = PQflush(lane->conn);

    if (rc == -1) {
        return NGX_ERROR;
    }

    lane->flushing = rc;

    if (rc == 1 && !wev->active) {
        return ngx_add_event(wev, NGX_WRITE_EVENT, NGX_LEVEL_EVENT);
    }

    if (rc == 0 && wev->active) {
        return ngx_del_event(wev, NGX_WRITE_EVENT, 0);
    }

    return NGX_OK;
}


static void
ngx_pgq_lane_fail(ngx_pgq_lane_t *lane)
{
    ngx_pgq_metrics_error("08006");
    ngx_pgq_lane_drop(lane, "08006",
                      lane->conn ? PQerrorMessage(lane->conn)
                                 : "out of memory");
}


/* one line for each change of heart, and one now and then */

static void
ngx_pgq_lane_complain(ngx_pgq_lane_t *lane, const char *why,
    const char *words, ngx_msec_t wait)
{
    size_t      len;
    time_t      now;
    ngx_uint_t  known;

    known = ngx_strncmp(lane->complaint, why, sizeof(lane->complaint) - 1)
            == 0;
    now = ngx_time();

    if (known && lane->complained
        && now - lane->complained < NGX_PGQ_LANE_QUIET)
    {
        return;
    }

    lane->complained = now;
    ngx_cpystrn(lane->complaint, (u_char *) why, sizeof(lane->complaint));

    /* libpq's messages end with a line feed, and may have more of them */

    len = strcspn(words, "\n");

    ngx_log_error(NGX_LOG_ERR, lane->pool->log, 0,
                  "pgq lane: lost %s:%s, retry in %M ms: %*s (%s, %ui requests"
                  " wait)",
                  lane->endpoint->host, lane->endpoint->port, wait, len,
                  words, why, lane->pool->unanswered);
}


static void
ngx_pgq_lane_notice(void *data, const PGresult *res)
{
    const char      *severity, *words;
    ngx_pgq_lane_t  *lane;

    lane = data;

    severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    words = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);

    if (severity == NULL || ngx_strcmp(severity, "WARNING") != 0) {
        return;
    }

    lane->warned = 1;

    ngx_log_error(NGX_LOG_WARN, lane->pool->log, 0,
                  "pgq lane: %s:%s warns: %s", lane->endpoint->host,
                  lane->endpoint->port, words ? words : "");
}
