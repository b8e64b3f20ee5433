/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "lane", how it connects: a turn, an address, libpq's handshake,
 * the statements prepared.
 *
 * Invariants:
 *  - of a pool's lanes one at a time is between DOWN and IDLE: a handshake
 *    may take milliseconds of computing (SCRAM, TLS), and those of several
 *    lanes would come in the same turn of the event loop;
 *  - an attempt has one address, and its time, connect_timeout, which ends it
 *    wherever it is; a look-up of the name has as much before that;
 *  - the socket belongs to libpq, which may change it while connecting, so
 *    the nginx connection is made anew around each step of an attempt.
 *
 * Why libpq does not block here: PQconnectStartParams() and PQconnectPoll()
 * wait for nothing when host and port are numbers or a socket's path; no file
 * is looked for but those that the conninfo names, of which there are a few
 * for TLS, read from the disk's cache; GSSAPI is off.  Since the connection
 * is nonblocking from its start, a packet that the socket does not take ends
 * the attempt.  PQfinish() of a connection under way just closes.
 */

#include "ngx_pgq_lane.h"
#include "ngx_pgq_resolve.h"

#include <libpq-fe.h>


static void ngx_pgq_lane_resolved(void *data);
static void ngx_pgq_lane_start(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_poll(ngx_pgq_lane_t *lane,
    PostgresPollingStatusType polling);
static void ngx_pgq_lane_step_handler(ngx_event_t *ev);
static ngx_int_t ngx_pgq_lane_watch(ngx_pgq_lane_t *lane, ngx_uint_t write);
static void ngx_pgq_lane_unwatch(ngx_pgq_lane_t *lane);


/* now, or as soon as it is this lane's turn */

void
ngx_pgq_lane_connect(ngx_pgq_lane_t *lane)
{
    ngx_msec_t                  since;
    ngx_pgq_resolve_t          *rs;
    const ngx_pgq_lane_conf_t  *conf;

    conf = lane->conf;

    if (!conf->ops->turn(lane)) {
        lane->ripe = 1;
        return;
    }

    lane->ripe = 0;
    lane->farewell[0] = '\0';

    ngx_pgq_lane_set(lane, NGX_PGQ_LANE_CONNECTING);

    (void) ngx_pgq_target_aim(conf->target, &lane->endpoint);

    rs = lane->endpoint.host->resolve;

    if (rs && ngx_pgq_resolve_ask(rs, conf->log, ngx_pgq_lane_resolved, lane)
              == NGX_AGAIN)
    {
        since = ngx_pgq_resolve_since(rs);

        if (since < conf->connect_timeout) {
            ngx_add_timer(&lane->timer, conf->connect_timeout - since);
            return;
        }

        ngx_pgq_resolve_leave(rs);
    }

    ngx_pgq_lane_start(lane);
}


static void
ngx_pgq_lane_resolved(void *data)
{
    ngx_pgq_lane_t  *lane;

    lane = data;

    ngx_del_timer(&lane->timer);

    ngx_pgq_lane_start(lane);
}


/* the name's or the attempt's time is over */

void
ngx_pgq_lane_connect_late(ngx_pgq_lane_t *lane)
{
    if (lane->conn == NULL) {
        ngx_pgq_resolve_leave(lane->endpoint.host->resolve);
        ngx_pgq_lane_start(lane);
        return;
    }

    ngx_pgq_metrics_error("08006");
    ngx_pgq_lane_drop(lane, "timeout", "no answer in time");
}


/* with what is known of addresses by now */

static void
ngx_pgq_lane_start(ngx_pgq_lane_t *lane)
{
    u_char               words[128];
    ngx_pgq_host_t      *host;
    ngx_pgq_attrs_e      attrs;
    ngx_pgq_target_t    *target;
    ngx_pgq_conninfo_t  *ci;

    target = lane->conf->target;
    ci = &target->conninfo;

    if (ngx_pgq_target_aim(target, &lane->endpoint) != NGX_OK) {
        host = lane->endpoint.host;

        *ngx_snprintf(words, sizeof(words) - 1, "its name has no address: %s",
                      ngx_pgq_resolve_state(host->resolve)) = '\0';

        ngx_pgq_metrics_error("08001");
        ngx_pgq_lane_drop(lane, "name", (char *) words);
        return;
    }

    if (!ngx_pgq_conninfo_readable(ci, words, sizeof(words))) {
        ngx_pgq_metrics_error("08001");
        ngx_pgq_lane_drop(lane, "file", (char *) words);
        return;
    }

    host = lane->endpoint.host;
    attrs = ci->attrs;

    if (attrs == NGX_PGQ_PREFER_STANDBY) {
        attrs = lane->failures < ngx_pgq_target_places(target)
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
    switch (polling) {

    case PGRES_POLLING_OK:

        ngx_pgq_lane_set(lane, NGX_PGQ_LANE_PREPARING);

        if (ngx_pgq_lane_watch(lane, 0) != NGX_OK) {
            ngx_pgq_lane_fail(lane);
            return;
        }

        lane->prepared = -1;
        ngx_pgq_lane_prepare(lane);
        return;

    case PGRES_POLLING_READING:
    case PGRES_POLLING_WRITING:

        if (ngx_pgq_lane_watch(lane, polling == PGRES_POLLING_WRITING)
            != NGX_OK)
        {
            ngx_pgq_lane_fail(lane);
        }

        return;

    default:
        ngx_pgq_lane_fail(lane);
    }
}


static void
ngx_pgq_lane_step_handler(ngx_event_t *ev)
{
    ngx_connection_t  *c;
    ngx_pgq_lane_t    *lane;

    c = ev->data;
    lane = c->data;

    ngx_pgq_lane_unwatch(lane);
    ngx_pgq_lane_poll(lane, PQconnectPoll(lane->conn));
}


/* the setup, the next statement to prepare, or the end of the attempt */

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
            lane->conf->ops->turn_over(lane);
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


/* level-triggered: libpq reads as much as it likes at a time */

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
    c->shared = 1;    /* the socket is libpq's to close */
    c->read->log = lane->conf->log;
    c->write->log = lane->conf->log;

    if (lane->state == NGX_PGQ_LANE_CONNECTING) {
        c->read->handler = ngx_pgq_lane_step_handler;
        c->write->handler = ngx_pgq_lane_step_handler;

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

    ngx_pgq_lane_reserve(lane);
}


/*
 * A lane without a connection reserves one of the worker_connections, one
 * without a socket, so that clients cannot take the last of them.
 */

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


/* whatever the lane was at: nothing is waited for any more */

void
ngx_pgq_lane_connect_end(ngx_pgq_lane_t *lane)
{
    lane->ripe = 0;

    if (lane->state == NGX_PGQ_LANE_CONNECTING && lane->conn == NULL
        && lane->endpoint.host->resolve)
    {
        ngx_pgq_resolve_leave(lane->endpoint.host->resolve);
    }

    ngx_pgq_lane_unwatch(lane);
    lane->conf->ops->turn_over(lane);
}
