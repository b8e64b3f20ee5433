/* SPDX-License-Identifier: PostgreSQL */

/*
 * How a lane connects: it waits until no other lane is connecting, looks up an
 * address, runs libpq's handshake and prepares the statements.
 *
 * Invariants:
 *  - only one lane of a pool is connecting at a time.  A handshake may take
 *    milliseconds of computing (SCRAM, TLS), and the handshakes of several
 *    lanes would block the event loop together;
 *  - an attempt uses one address and ends after connect_timeout; the look-up
 *    of the name before it also takes connect_timeout at most;
 *  - the socket belongs to libpq, which may replace it while connecting.
 *    Therefore each step of an attempt has a new nginx connection.
 *
 * Why libpq does not block here: PQconnectStartParams() and PQconnectPoll()
 * do not wait if host and port are numbers or a socket's path.  libpq only
 * opens files that the conninfo names, which are a few for TLS.  GSSAPI is
 * off.  The connection is nonblocking from the start, so that a packet that
 * the socket does not accept ends the attempt.  PQfinish() of a connection
 * that is not established only closes it.
 */

#include "ngx_pgq_lane.h"

#include <libpq-fe.h>


static void ngx_pgq_lane_resolved(void *data);
static void ngx_pgq_lane_start(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_poll(ngx_pgq_lane_t *lane,
    PostgresPollingStatusType polling);
static void ngx_pgq_lane_poll_handler(ngx_event_t *ev);
static ngx_int_t ngx_pgq_lane_watch(ngx_pgq_lane_t *lane, ngx_uint_t write);
static void ngx_pgq_lane_unwatch(ngx_pgq_lane_t *lane);


/* connects now, or when no other lane is connecting */

void
ngx_pgq_lane_connect(ngx_pgq_lane_t *lane)
{
    ngx_msec_t                  elapsed;
    ngx_pgq_resolve_t          *rs;
    const ngx_pgq_lane_conf_t  *conf;

    conf = lane->conf;

    if (!conf->ops->connect_lock(lane)) {
        lane->connect_due = 1;
        return;
    }

    lane->connect_due = 0;
    lane->fatal_sqlstate[0] = '\0';

    ngx_pgq_lane_set_state(lane, NGX_PGQ_LANE_CONNECTING);

    (void) ngx_pgq_target_current(conf->target, &lane->endpoint);

    rs = lane->endpoint.host->resolve;

    if (rs == NULL || ngx_pgq_resolve_ask(rs, conf->log, &lane->waiter,
                                          ngx_pgq_lane_resolved, lane)
                      != NGX_AGAIN)
    {
        ngx_pgq_lane_start(lane);
        return;
    }

    elapsed = ngx_pgq_resolve_elapsed(rs);

    if (elapsed >= conf->connect_timeout) {
        ngx_pgq_lane_resolve_timeout(lane);
        return;
    }

    ngx_add_timer(&lane->timer, conf->connect_timeout - elapsed);
}


static void
ngx_pgq_lane_resolved(void *data)
{
    ngx_pgq_lane_t  *lane;

    lane = data;

    ngx_del_timer(&lane->timer);

    ngx_pgq_lane_start(lane);
}


void
ngx_pgq_lane_resolve_timeout(ngx_pgq_lane_t *lane)
{
    ngx_pgq_resolve_leave(&lane->waiter);
    ngx_pgq_lane_start(lane);
}


static void
ngx_pgq_lane_start(ngx_pgq_lane_t *lane)
{
    u_char               text[NGX_PGQ_ERROR_TEXT_LEN];
    ngx_pgq_host_t      *host;
    ngx_pgq_attrs_e      attrs;
    ngx_pgq_target_t    *target;
    ngx_pgq_conninfo_t  *ci;

    target = lane->conf->target;
    ci = &target->conninfo;

    if (ngx_pgq_target_current(target, &lane->endpoint) != NGX_OK) {
        host = lane->endpoint.host;

        *ngx_snprintf(text, sizeof(text) - 1, "its name has no address: %s",
                      ngx_pgq_resolve_state(host->resolve)) = '\0';

        ngx_pgq_metrics_error("08001");
        ngx_pgq_lane_drop(lane, "name", (char *) text);
        return;
    }

    if (!ngx_pgq_conninfo_readable(ci, text, sizeof(text))) {
        ngx_pgq_metrics_error("08001");
        ngx_pgq_lane_drop(lane, "file", (char *) text);
        return;
    }

    host = lane->endpoint.host;
    attrs = ci->attrs;

    if (attrs == NGX_PGQ_PREFER_STANDBY) {
        attrs = lane->failures < ngx_pgq_target_endpoints(target)
                ? NGX_PGQ_STANDBY : NGX_PGQ_ANY;
    }

    ngx_pgq_conninfo_fill(ci, host->name,
                          lane->endpoint.address[0] ? lane->endpoint.address
                                                    : NULL,
                          host->port, host->password, attrs);

    lane->conn = PQconnectStartParams(ci->keywords, ci->values, 0);

    if (lane->conn == NULL || PQstatus(lane->conn) == CONNECTION_BAD
        || PQsetnonblocking(lane->conn, 1) != 0)
    {
        ngx_pgq_lane_fail(lane);
        return;
    }

    PQsetNoticeReceiver(lane->conn, ngx_pgq_lane_notice, lane);

    ngx_add_timer(&lane->timer, lane->conf->connect_timeout);

    ngx_pgq_lane_poll(lane, PGRES_POLLING_WRITING);
}


static void
ngx_pgq_lane_poll(ngx_pgq_lane_t *lane, PostgresPollingStatusType polling)
{
    if (polling == PGRES_POLLING_OK) {
        ngx_pgq_lane_set_state(lane, NGX_PGQ_LANE_PREPARING);
    }

    if (polling == PGRES_POLLING_FAILED
        || ngx_pgq_lane_watch(lane, polling == PGRES_POLLING_WRITING)
           != NGX_OK)
    {
        ngx_pgq_lane_fail(lane);
        return;
    }

    if (polling == PGRES_POLLING_OK) {
        lane->prepared = -1;
        ngx_pgq_lane_prepare(lane);
    }
}


static void
ngx_pgq_lane_poll_handler(ngx_event_t *ev)
{
    ngx_connection_t  *c;
    ngx_pgq_lane_t    *lane;

    c = ev->data;
    lane = c->data;

    ngx_pgq_lane_unwatch(lane);
    ngx_pgq_lane_poll(lane, PQconnectPoll(lane->conn));
}


/* sends the setup, or the next statement to prepare, or ends the attempt */

void
ngx_pgq_lane_prepare(ngx_pgq_lane_t *lane)
{
    int                        sent;
    ngx_pgq_lane_statement_t  *statement;

    if (lane->prepared < 0) {
        sent = PQsendQuery(lane->conn, lane->conf->setup);

    } else {
        statement = &lane->conf->statements[lane->prepared];

        if (statement->name == NULL) {
            lane->conf->ops->connect_unlock(lane);
            ngx_pgq_lane_connected(lane);
            return;
        }

        sent = PQsendPrepare(lane->conn, statement->name, statement->text, 0,
                             NULL);
    }

    if (!sent || ngx_pgq_lane_flush(lane) != NGX_OK) {
        ngx_pgq_lane_fail(lane);
    }
}


/* adds level-triggered events, because libpq may leave data in the socket */

static ngx_int_t
ngx_pgq_lane_watch(ngx_pgq_lane_t *lane, ngx_uint_t write)
{
    ngx_event_t       *ev;
    ngx_connection_t  *c;

    ngx_pgq_lane_unreserve(lane);

    c = ngx_get_connection(PQsocket(lane->conn), lane->conf->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    c->data = lane;
    c->shared = 1;    /* libpq closes the socket */
    c->read->log = lane->conf->log;
    c->write->log = lane->conf->log;

    if (lane->state == NGX_PGQ_LANE_CONNECTING) {
        c->read->handler = ngx_pgq_lane_poll_handler;
        c->write->handler = ngx_pgq_lane_poll_handler;

    } else {
        c->read->handler = ngx_pgq_lane_read_handler;
        c->write->handler = ngx_pgq_lane_write_handler;
    }

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

    /* libpq may have closed the socket of a lost connection */

    flags = PQsocket(lane->conn) == c->fd ? 0 : NGX_CLOSE_EVENT;

    if (c->read->active) {
        ngx_del_event(c->read, NGX_READ_EVENT, flags);
    }

    if (c->write->active) {
        ngx_del_event(c->write, NGX_WRITE_EVENT, flags);
    }

    ngx_close_connection(c);
    lane->connection = NULL;

    ngx_pgq_lane_reserve(lane);
}


/* keeps an nginx connection for the lane, so that no client gets it */

void
ngx_pgq_lane_reserve(ngx_pgq_lane_t *lane)
{
    if (lane->reserved == NULL) {
        lane->reserved = ngx_get_connection((ngx_socket_t) -1,
                                            lane->conf->log);
    }
}


void
ngx_pgq_lane_unreserve(ngx_pgq_lane_t *lane)
{
    if (lane->reserved) {
        ngx_free_connection(lane->reserved);
        lane->reserved = NULL;
    }
}


/* ends a look-up, an attempt, and the events of a connection */

void
ngx_pgq_lane_connect_end(ngx_pgq_lane_t *lane)
{
    lane->connect_due = 0;

    ngx_pgq_resolve_leave(&lane->waiter);
    ngx_pgq_lane_unwatch(lane);
    lane->conf->ops->connect_unlock(lane);
}
