/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "lane", how it works: a statement goes out, its results come in,
 * and what the server says unasked is heard.
 *
 * Invariants:
 *  - a server that is silent for answer_timeout is left, but not while it
 *    still takes a long statement or gives a long result; a statement is
 *    never cancelled: a commit that waits for its replica would be answered
 *    as if it had not to;
 *  - a server that ends, or is no longer what target_session_attrs asks for,
 *    is left as soon as it says so, with a statement or without.
 *
 * Why libpq does not block here: the connection is nonblocking, so that what
 * is sent is kept until the socket takes it, which PQflush() tries, and
 * PQconsumeInput() takes what there is.  PQgetResult() is asked only when
 * PQisBusy() says no.  PQfinish() tries to say goodbye and does not wait for
 * an answer.  All else, PQprepare()'s sending half included, is about memory.
 */

#include "ngx_pgq_lane.h"

#include <libpq-fe.h>


/*
 * What is beyond is beyond common messages and batches, which the buffers of
 * libpq, doubled as need be, take anyway.
 */

#define NGX_PGQ_LANE_COMMON      (1024 * 1024)


static ngx_uint_t ngx_pgq_lane_common(ngx_pgq_lane_t *lane, size_t size);
static void ngx_pgq_lane_heard(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_input(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_unasked(ngx_pgq_lane_t *lane);
static void ngx_pgq_lane_result(ngx_pgq_lane_t *lane, PGresult *res);
static ngx_uint_t ngx_pgq_lane_says(ngx_pgq_lane_t *lane, const char *name);


/* parameters are binary, results are text, and come row by row */

ngx_int_t
ngx_pgq_lane_send(ngx_pgq_lane_t *lane, ngx_uint_t statement,
    const char *const *values, const int *lengths)
{
    int                        i, sent;
    size_t                     size;
    ngx_pgq_lane_statement_t  *s;

    static const int  formats[NGX_PGQ_MAX_PARAMS] = { 1, 1, 1, 1 };

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

    if (!ngx_pgq_lane_common(lane, size)) {
        ngx_pgq_lane_outsized(lane);
    }

    ngx_pgq_lane_set(lane, NGX_PGQ_LANE_BUSY);

    ngx_add_timer(&lane->timer, lane->conf->answer_timeout);

    /* a failure to write shows as a failure to read, with the reason */
    (void) ngx_pgq_lane_flush(lane);

    return NGX_OK;
}


static ngx_uint_t
ngx_pgq_lane_common(ngx_pgq_lane_t *lane, size_t size)
{
    return size <= ngx_max(NGX_PGQ_LANE_COMMON, lane->conf->common);
}


void
ngx_pgq_lane_read_handler(ngx_event_t *rev)
{
    ngx_connection_t  *c;

    c = rev->data;

    ngx_pgq_lane_heard(c->data);
    ngx_pgq_lane_input(c->data);
}


void
ngx_pgq_lane_write_handler(ngx_event_t *wev)
{
    ngx_connection_t  *c;

    c = wev->data;

    ngx_pgq_lane_heard(c->data);

    if (ngx_pgq_lane_flush(c->data) != NGX_OK) {
        ngx_pgq_lane_input(c->data);
    }
}


/* the other side has taken something, or given */

static void
ngx_pgq_lane_heard(ngx_pgq_lane_t *lane)
{
    if (lane->state == NGX_PGQ_LANE_BUSY) {
        ngx_add_timer(&lane->timer, lane->conf->answer_timeout);
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
        ngx_pgq_lane_unasked(lane);
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


/* a server that shuts down says so, then closes */

static void
ngx_pgq_lane_unasked(ngx_pgq_lane_t *lane)
{
    /* has libpq take apart what came */
    (void) PQisBusy(lane->conn);

    if (lane->farewell[0]) {
        ngx_pgq_metrics_error((char *) lane->farewell);
        ngx_pgq_lane_drop(lane, (char *) lane->farewell,
                          (char *) lane->farewell_words);
        return;
    }

    if (PQstatus(lane->conn) != CONNECTION_OK) {
        ngx_pgq_lane_fail(lane);
        return;
    }

    if (!ngx_pgq_lane_fits(lane)) {
        ngx_pgq_lane_drop(lane, "role", "the server's role has changed");
    }
}


static void
ngx_pgq_lane_result(ngx_pgq_lane_t *lane, PGresult *res)
{
    u_char       words[NGX_PGQ_WORDS_LEN];
    const char  *sqlstate;

    if (lane->state == NGX_PGQ_LANE_BUSY) {

        if (PQresultStatus(res) == PGRES_SINGLE_TUPLE) {
            /* what libpq has read until now came before the completion */
            lane->warned = 0;
        }

        if (!ngx_pgq_lane_common(lane, PQresultMemorySize(res))) {
            ngx_pgq_lane_outsized(lane);
        }

        lane->conf->ops->result(lane, res);
        return;
    }

    if (PQresultStatus(res) == PGRES_COMMAND_OK) {
        return;
    }

    sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    sqlstate = sqlstate ? sqlstate : "08006";

    ngx_pgq_lane_quote(words, sizeof(words), res);

    ngx_pgq_metrics_error(sqlstate);
    ngx_pgq_lane_drop(lane, sqlstate, (char *) words);
}


/* what target_session_attrs asked for when the lane connected still holds */

ngx_uint_t
ngx_pgq_lane_fits(ngx_pgq_lane_t *lane)
{
    switch (lane->conf->target->conninfo.attrs) {

    case NGX_PGQ_READ_WRITE:
        return !ngx_pgq_lane_says(lane, "in_hot_standby")
               && !ngx_pgq_lane_says(lane, "default_transaction_read_only");

    case NGX_PGQ_READ_ONLY:
        return ngx_pgq_lane_says(lane, "in_hot_standby")
               || ngx_pgq_lane_says(lane, "default_transaction_read_only");

    case NGX_PGQ_PRIMARY:
        return !ngx_pgq_lane_says(lane, "in_hot_standby");

    case NGX_PGQ_STANDBY:
        return ngx_pgq_lane_says(lane, "in_hot_standby");

    default:
        return 1;
    }
}


/* the server reports these by itself, with the end of a statement */

static ngx_uint_t
ngx_pgq_lane_says(ngx_pgq_lane_t *lane, const char *name)
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
 * What the server says beside its answers; libpq calls it while it reads, and
 * reads no completion before PQgetResult() has returned the row before it.
 */

void
ngx_pgq_lane_notice(void *data, const struct pg_result *res)
{
    u_char           words[NGX_PGQ_WORDS_LEN];
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
        ngx_cpystrn(lane->farewell, (u_char *) sqlstate,
                    sizeof(lane->farewell));
        ngx_pgq_lane_quote(lane->farewell_words, sizeof(lane->farewell_words),
                           res);
        return;
    }

    if (ngx_strcmp(severity, "WARNING") != 0) {
        return;
    }

    lane->warned = 1;

    if (lane->warning && ngx_pgq_seconds() - lane->warning < NGX_PGQ_QUIET) {
        return;
    }

    lane->warning = ngx_pgq_seconds();
    ngx_pgq_lane_quote(words, sizeof(words), res);

    ngx_log_error(NGX_LOG_WARN, lane->conf->log, 0,
                  "pgq lane: %s:%s warns: %s (%s), pool \"%V\"",
                  lane->endpoint.host->name, lane->endpoint.host->port, words,
                  sqlstate, &lane->conf->name);
}


/*
 * The text of an error or a WARNING, to be logged and shown.  Data of messages
 * may be in the text of a data exception, class 22, and in what a function of
 * a procedural language raised, whose context names the language.
 */

void
ngx_pgq_lane_quote(u_char *dst, size_t size, const struct pg_result *res)
{
    const char  *words, *context, *sqlstate;

    words = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    context = PQresultErrorField(res, PG_DIAG_CONTEXT);
    sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);

    if ((context && ngx_strstr(context, "PL/") != NULL)
        || (sqlstate && ngx_strncmp(sqlstate, "22", 2) == 0))
    {
        words = "the text may hold data and is not shown";
    }

    ngx_pgq_words(dst, size, words ? words : "");
}
