/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file sends a statement, reads its results, and handles the messages
 * that the server sends to an idle lane.
 *
 * Invariants:
 *  - a busy lane is dropped when nothing was sent or received for
 *    answer_timeout.  A statement is never cancelled: its commit would no
 *    longer wait for a standby;
 *  - a lane is dropped when the server reports that it ends the connection, or
 *    that it no longer has the role that target_session_attrs asks for.
 *
 * Why libpq does not block here: the connection is nonblocking, PQgetResult()
 * is called only when PQisBusy() returns 0, and PQfinish() does not wait for
 * an answer to its Terminate message.
 */

#include "ngx_pgq_lane.h"

#include <libpq-fe.h>


#define NGX_PGQ_LANE_LARGE       (1024 * 1024)    /* minimum of conf->large */


static ngx_uint_t ngx_pgq_lane_is_large(ngx_pgq_lane_t *lane, size_t size);
static void ngx_pgq_lane_progress(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_input(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_notifications(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_idle_input(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_result(ngx_pgq_lane_t *lane, PGresult *res);
static ngx_uint_t ngx_pgq_lane_is_on(ngx_pgq_lane_t *lane, const char *name);


/* parameters are binary; results are text, in single-row mode */

ngx_int_t
ngx_pgq_lane_send(ngx_pgq_lane_t *lane, ngx_uint_t statement,
    const char *const *values, const int *lengths)
{
    int                        i, sent;
    size_t                     size;
    ngx_pgq_lane_statement_t  *s;

    static const int  formats[NGX_PGQ_MAX_PARAMS] = { 1, 1, 1, 1, 1, 1 };

    s = &lane->conf->statements[statement];

    lane->warned = 0;

    sent = s->name ? PQsendQueryPrepared(lane->conn, s->name, s->nparams,
                                         values, lengths, formats, 0)
                   : PQsendQueryParams(lane->conn, s->text, s->nparams, NULL,
                                       values, lengths, formats, 0);

    if (!sent || !PQsetSingleRowMode(lane->conn)) {
        return NGX_ERROR;
    }

    for (i = 0, size = 0; i < s->nparams; i++) {
        size += lengths[i];
    }

    if (ngx_pgq_lane_is_large(lane, size)) {
        ngx_pgq_lane_shrink(lane);
    }

    ngx_pgq_lane_set_state(lane, NGX_PGQ_LANE_BUSY);

    ngx_add_timer(&lane->timer, lane->conf->answer_timeout);

    /* if this fails, reading reports why */
    (void) ngx_pgq_lane_flush(lane);

    return NGX_OK;
}


static ngx_uint_t
ngx_pgq_lane_is_large(ngx_pgq_lane_t *lane, size_t size)
{
    return size > ngx_max(NGX_PGQ_LANE_LARGE, lane->conf->large);
}


void
ngx_pgq_lane_read_handler(ngx_event_t *rev)
{
    ngx_connection_t  *c;

    c = rev->data;

    ngx_pgq_lane_progress(c->data);
    ngx_pgq_lane_input(c->data);
}


void
ngx_pgq_lane_write_handler(ngx_event_t *wev)
{
    ngx_connection_t  *c;

    c = wev->data;

    ngx_pgq_lane_progress(c->data);

    if (ngx_pgq_lane_flush(c->data) != NGX_OK) {
        ngx_pgq_lane_input(c->data);
    }
}


static void
ngx_pgq_lane_progress(ngx_pgq_lane_t *lane)
{
    if (lane->state == NGX_PGQ_LANE_BUSY) {
        ngx_add_timer(&lane->timer, lane->conf->answer_timeout);
    }
}


static void
ngx_pgq_lane_input(ngx_pgq_lane_t *lane)
{
    PGresult  *res;

    if (!PQconsumeInput(lane->conn)
        || (lane->flushing && ngx_pgq_lane_flush(lane) != NGX_OK))
    {
        ngx_pgq_lane_fail(lane);
        return;
    }

    ngx_pgq_lane_notifications(lane);

    if (lane->state == NGX_PGQ_LANE_IDLE) {
        ngx_pgq_lane_idle_input(lane);
        return;
    }

    while (!PQisBusy(lane->conn)) {

        res = PQgetResult(lane->conn);

        if (res == NULL) {
            /* libpq parses what follows a result only now */
            ngx_pgq_lane_notifications(lane);
            ngx_pgq_lane_statement_end(lane);
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
ngx_pgq_lane_notifications(ngx_pgq_lane_t *lane)
{
    PGnotify  *notify;

    if (lane->conf->ops->notified == NULL) {
        return;
    }

    while ((notify = PQnotifies(lane->conn)) != NULL) {
        lane->conf->ops->notified(lane, notify->extra);
        PQfreemem(notify);
    }
}


/* a server that shuts down sends a FATAL message, then closes */

static void
ngx_pgq_lane_idle_input(ngx_pgq_lane_t *lane)
{
    /* libpq parses its input here, and calls ngx_pgq_lane_notice() */
    (void) PQisBusy(lane->conn);

    if (lane->fatal_sqlstate[0]) {
        ngx_pgq_metrics_error((char *) lane->fatal_sqlstate);
        ngx_pgq_lane_drop(lane, (char *) lane->fatal_sqlstate,
                          (char *) lane->fatal_text);
        return;
    }

    if (PQstatus(lane->conn) != CONNECTION_OK) {
        ngx_pgq_lane_fail(lane);
        return;
    }

    if (!ngx_pgq_lane_has_role(lane)) {
        ngx_pgq_lane_drop(lane, "role", "the server's role has changed");
    }
}


static void
ngx_pgq_lane_result(ngx_pgq_lane_t *lane, PGresult *res)
{
    u_char       text[NGX_PGQ_ERROR_TEXT_LEN];
    const char  *sqlstate;

    if (lane->state == NGX_PGQ_LANE_BUSY) {

        if (PQresultStatus(res) == PGRES_SINGLE_TUPLE) {
            /* warnings before a row precede the commit */
            lane->warned = 0;
        }

        if (ngx_pgq_lane_is_large(lane, PQresultMemorySize(res))) {
            ngx_pgq_lane_shrink(lane);
        }

        lane->conf->ops->result(lane, res);
        return;
    }

    if (PQresultStatus(res) == PGRES_COMMAND_OK) {
        return;
    }

    sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    sqlstate = sqlstate ? sqlstate : "08006";

    ngx_pgq_lane_error_text(text, sizeof(text), res);

    ngx_pgq_metrics_error(sqlstate);
    ngx_pgq_lane_drop(lane, sqlstate, (char *) text);
}


/* whether the server still has the role that target_session_attrs asks for */

ngx_uint_t
ngx_pgq_lane_has_role(ngx_pgq_lane_t *lane)
{
    ngx_uint_t  standby, read_only;

    standby = ngx_pgq_lane_is_on(lane, "in_hot_standby");
    read_only = standby
                || ngx_pgq_lane_is_on(lane, "default_transaction_read_only");

    switch (lane->conf->target->conninfo.attrs) {

    case NGX_PGQ_READ_WRITE:
        return !read_only;

    case NGX_PGQ_READ_ONLY:
        return read_only;

    case NGX_PGQ_PRIMARY:
        return !standby;

    case NGX_PGQ_STANDBY:
        return standby;

    default:
        return 1;
    }
}


static ngx_uint_t
ngx_pgq_lane_is_on(ngx_pgq_lane_t *lane, const char *name)
{
    const char  *value;

    value = PQparameterStatus(lane->conn, name);

    return value && ngx_strcmp(value, "on") == 0;
}


ngx_int_t
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


/*
 * libpq calls this while it parses its input.  It parses CommandComplete only
 * after PQgetResult() has returned the last row.
 */

void
ngx_pgq_lane_notice(void *data, const struct pg_result *res)
{
    u_char           text[NGX_PGQ_ERROR_TEXT_LEN];
    const char      *severity, *sqlstate;
    ngx_pgq_lane_t  *lane;

    lane = data;

    severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);

    if (severity == NULL || sqlstate == NULL) {
        return;
    }

    if (ngx_strcmp(severity, "FATAL") == 0
        || ngx_strcmp(severity, "PANIC") == 0)
    {
        ngx_cpystrn(lane->fatal_sqlstate, (u_char *) sqlstate,
                    sizeof(lane->fatal_sqlstate));
        ngx_pgq_lane_error_text(lane->fatal_text, sizeof(lane->fatal_text),
                                res);
        return;
    }

    if (ngx_strcmp(severity, "WARNING") != 0) {
        return;
    }

    lane->warned = 1;

    if (lane->warned_at
        && ngx_pgq_seconds() - lane->warned_at < NGX_PGQ_LOG_INTERVAL)
    {
        return;
    }

    lane->warned_at = ngx_pgq_seconds();
    ngx_pgq_lane_error_text(text, sizeof(text), res);

    ngx_log_error(NGX_LOG_WARN, lane->conf->log, 0,
                  "pgq lane: %s:%s warns: %s (%s), pool \"%V\"",
                  lane->endpoint.host->name, lane->endpoint.host->port, text,
                  sqlstate, &lane->conf->name);
}


/*
 * The text of an error or a WARNING for the log, unless it may contain data of
 * a message: it is a data exception (class 22), or was raised in a procedural
 * language, which the context then names.
 */

void
ngx_pgq_lane_error_text(u_char *dst, size_t size, const struct pg_result *res)
{
    const char  *text, *context, *sqlstate;

    text = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    context = PQresultErrorField(res, PG_DIAG_CONTEXT);
    sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);

    if ((context && ngx_strstr(context, "PL/") != NULL)
        || (sqlstate && ngx_strncmp(sqlstate, "22", 2) == 0))
    {
        text = "the text may contain data and is not shown";
    }

    ngx_pgq_error_text(dst, size, text);
}
