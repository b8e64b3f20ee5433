/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "call" owns the words spoken with the database: the statements,
 * what an SQLSTATE means, and when a statement counts as committed.
 * A call belongs to whoever made it (batch, fetch), but for the time between
 * ngx_pgq_call_start() and done(), when the lane points at it.
 *
 * Invariants:
 *  - each started call ends with one done();
 *  - NGX_PGQ_DONE only when the server has answered without an error, is
 *    ready for the next query, is in no transaction, and has sent no
 *    WARNING after the last row: a cancelled wait for a synchronous replica
 *    looks like success but for its WARNING, and with the extended protocol
 *    the command's completion is sent before the commit.  So that there is a
 *    last row, each write ends with one that is all null;
 *  - NGX_PGQ_REFUSED, FAILED and AGAIN only when the server has said that
 *    the transaction failed and is ready for the next query; a connection
 *    that ends instead leaves the outcome unknown;
 *  - a read is NGX_PGQ_REFUSED by each error that another connection would
 *    get as well; the lane is kept.
 */

#include "ngx_pgq_call.h"

#include <libpq-fe.h>


#define NGX_PGQ_CALL_NEW         250     /* ms, a connection */


/* the contract with the database; its other half is in sql/ */

#define NGX_PGQ_CALL_VERDICTS    "select ordinal, sqlstate, problem from "
#define NGX_PGQ_CALL_LAST        " union all select null, null, null"


ngx_pgq_lane_statement_t  ngx_pgq_call_writes[] = {
    [NGX_PGQ_ENQUEUE] = { "enqueue", 3,
      NGX_PGQ_CALL_VERDICTS
      "ngx_pgq.enqueue($1::uuid, $2::uuid[], $3::text[])"
      NGX_PGQ_CALL_LAST },
    [NGX_PGQ_ENQUEUE_KEYED] = { "enqueue_keyed", 4,
      NGX_PGQ_CALL_VERDICTS
      "ngx_pgq.enqueue_keyed($1::uuid, $2::uuid[], $3::text[], $4::text[])"
      NGX_PGQ_CALL_LAST },
    [NGX_PGQ_ENQUEUE_ALL] = { "enqueue_all", 4,
      NGX_PGQ_CALL_VERDICTS
      "ngx_pgq.enqueue_all($1::uuid, $2::uuid, $3::text[], $4::text)"
      NGX_PGQ_CALL_LAST },
    [NGX_PGQ_FENCE] = { "fence", 1,
      "select ngx_pgq.fence($1::uuid)" },
    { NULL, 0, NULL }
};


/*
 * Reads are not prepared: each is planned for its own arguments, and an error
 * of the plan is the error of one read.
 */

ngx_pgq_lane_statement_t  ngx_pgq_call_reads[] = {
    [NGX_PGQ_RECENT] = { NULL, 3,
      "select id, at, data, older"
      " from ngx_pgq.recent($1::integer, $2::bigint, $3::integer)" }
};


/*
 * SQLSTATEs of a write, by class or whole.  The first are plainly about the
 * data, but for a few: no value of a message is null, and a sequence that has
 * run out is a column's that was added to the queue.  After those that are
 * about the connection or the moment the call is tried again, elsewhere or
 * later.  All others may be about the data or about the database: the owner of
 * the call finds out.
 */

static const char  *ngx_pgq_call_refusals[] = {
    "22", "23", "44", "P0", NULL
};


static const char  *ngx_pgq_call_doubtful[] = {
    "2200H", "23502", NULL
};


static const char  *ngx_pgq_call_elsewhere[] = {
    "08", "25", "28", "3D", "40", "53300", "55P", "57", NULL
};


/* of these: the connection is not to blame, nor is the whole database */

static const char  *ngx_pgq_call_moment[] = {
    "40", "55P", "57014", NULL
};


/* of those that remain: another connection may do better */

static const char  *ngx_pgq_call_reconnect[] = {
    "0A", "26", "425", "428", "42P", "53", "55", "58", "F0", "XX", NULL
};


/*
 * SQLSTATEs of a read that say that this connection, or this moment, is to
 * blame: the read is tried again.  All others would come again.
 */

static const char  *ngx_pgq_call_transient[] = {
    "08", "40", "57P", NULL
};


static void ngx_pgq_call_rows(ngx_pgq_call_t *call, PGresult *res);
static void ngx_pgq_call_error(ngx_pgq_lane_t *lane, ngx_pgq_call_t *call,
    PGresult *res);
static ngx_pgq_outcome_e ngx_pgq_call_read_failed(const char *sqlstate);
static ngx_pgq_outcome_e ngx_pgq_call_write_failed(const char *sqlstate);
static ngx_uint_t ngx_pgq_call_listed(const char **classes,
    const char *sqlstate);
static ngx_uint_t ngx_pgq_call_stale(ngx_pgq_lane_t *lane);


/* which libpq this is: 150007 is 15.7 */

ngx_uint_t
ngx_pgq_call_libpq(void)
{
    return PQlibVersion();
}


/*
 * On NGX_DECLINED the call was not sent, and done() is not called: its owner
 * has it back.
 */

ngx_int_t
ngx_pgq_call_start(ngx_pgq_call_t *call, ngx_pgq_lane_t *lane)
{
    call->sqlstate = NULL;

    if (call->encode(call) != NGX_OK) {
        return NGX_DECLINED;
    }

    call->outcome = NGX_PGQ_UNKNOWN;
    call->answered = 0;

    if (ngx_pgq_lane_send(lane, call->statement, call->values, call->lengths)
        != NGX_OK)
    {
        ngx_pgq_lane_drop(lane, "08006", PQerrorMessage(lane->conn));
        return NGX_DECLINED;
    }

    lane->data = call;

    return NGX_OK;
}


/* one result of the statement of the lane's call */

void
ngx_pgq_call_result(ngx_pgq_lane_t *lane, PGresult *res)
{
    ngx_pgq_call_t  *call;

    call = lane->data;

    switch (PQresultStatus(res)) {

    case PGRES_SINGLE_TUPLE:
        ngx_pgq_call_rows(call, res);
        return;

    case PGRES_TUPLES_OK:
        /* all rows were before this */
        call->answered = 1;
        return;

    default:
        ngx_pgq_call_error(lane, call, res);
    }
}


static void
ngx_pgq_call_rows(ngx_pgq_call_t *call, PGresult *res)
{
    int        i, j, nrows, nfields;
    ngx_str_t  fields[NGX_PGQ_MAX_FIELDS];

    nrows = PQntuples(res);
    nfields = ngx_min(PQnfields(res), NGX_PGQ_MAX_FIELDS);

    for (i = 0; i < nrows; i++) {

        ngx_memzero(fields, sizeof(fields));

        for (j = 0; j < nfields; j++) {
            if (!PQgetisnull(res, i, j)) {
                fields[j].data = (u_char *) PQgetvalue(res, i, j);
                fields[j].len = PQgetlength(res, i, j);
            }
        }

        call->row(call, fields);
    }
}


static void
ngx_pgq_call_error(ngx_pgq_lane_t *lane, ngx_pgq_call_t *call, PGresult *res)
{
    const char  *sqlstate, *words;

    sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);

    if (sqlstate == NULL) {
        /* libpq itself: the connection is gone */
        return;
    }

    ngx_pgq_metrics_error(sqlstate);

    call->outcome = call->read ? ngx_pgq_call_read_failed(sqlstate)
                               : ngx_pgq_call_write_failed(sqlstate);

    ngx_memcpy(lane->sqlstate, sqlstate, sizeof(lane->sqlstate) - 1);

    if (call->outcome == NGX_PGQ_REFUSED && !call->read) {
        /* for the sender of the message, and not for the log */
        words = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
        ngx_pgq_words(lane->words, sizeof(lane->words), words ? words : "");
        return;
    }

    ngx_pgq_lane_quote(lane->words, sizeof(lane->words), res);
}


static ngx_pgq_outcome_e
ngx_pgq_call_read_failed(const char *sqlstate)
{
    return ngx_pgq_call_listed(ngx_pgq_call_transient, sqlstate)
           ? NGX_PGQ_AGAIN : NGX_PGQ_REFUSED;
}


static ngx_pgq_outcome_e
ngx_pgq_call_write_failed(const char *sqlstate)
{
    if (ngx_pgq_call_listed(ngx_pgq_call_refusals, sqlstate)
        && !ngx_pgq_call_listed(ngx_pgq_call_doubtful, sqlstate))
    {
        return NGX_PGQ_REFUSED;
    }

    return ngx_pgq_call_listed(ngx_pgq_call_elsewhere, sqlstate)
           ? NGX_PGQ_AGAIN : NGX_PGQ_FAILED;
}


static ngx_uint_t
ngx_pgq_call_listed(const char **classes, const char *sqlstate)
{
    for ( /* void */ ; *classes; classes++) {
        if (ngx_strncmp(sqlstate, *classes, ngx_strlen(*classes)) == 0) {
            return 1;
        }
    }

    return 0;
}


/*
 * Whether a write failed with an error that one message can cause, and that
 * may not come again, such as a lock that was not available in time.
 */

ngx_uint_t
ngx_pgq_call_is_momentary(ngx_pgq_call_t *call)
{
    return call->sqlstate && ngx_pgq_call_listed(ngx_pgq_call_moment,
                                                 (char *) call->sqlstate);
}


/* whether another connection may do better; not if this one is as new */

static ngx_uint_t
ngx_pgq_call_stale(ngx_pgq_lane_t *lane)
{
    return ngx_pgq_call_listed(ngx_pgq_call_reconnect,
                               (char *) lane->sqlstate)
           && ngx_current_msec - lane->since >= NGX_PGQ_CALL_NEW;
}


/* the server is ready for the next query: the outcome is certain */

void
ngx_pgq_call_done(ngx_pgq_lane_t *lane)
{
    ngx_pgq_call_t  *call;

    call = lane->data;
    lane->data = NULL;

    if (call->answered && call->outcome == NGX_PGQ_UNKNOWN) {

        if (lane->warned && !call->read) {
            /* committed here, perhaps not where it is replicated to */
            call->done(call, NGX_PGQ_UNKNOWN);
            return;
        }

        ngx_pgq_lane_healthy(lane);
        call->done(call, NGX_PGQ_DONE);
        return;
    }

    call->problem.data = lane->words;
    call->problem.len = ngx_strlen(lane->words);
    call->sqlstate = lane->sqlstate;

    if (call->outcome == NGX_PGQ_REFUSED
        || (call->outcome == NGX_PGQ_FAILED && !ngx_pgq_call_stale(lane))
        || (call->outcome == NGX_PGQ_AGAIN && !call->read
            && ngx_pgq_call_is_momentary(call)))
    {
        if (call->outcome == NGX_PGQ_REFUSED) {
            ngx_pgq_lane_healthy(lane);
        }

        call->done(call, call->outcome);
        return;
    }

    ngx_pgq_lane_drop(lane, (char *) lane->sqlstate, (char *) lane->words);

    call->done(call, call->outcome);
}


/* the connection is gone; the lane may have no call */

void
ngx_pgq_call_lost(ngx_pgq_lane_t *lane)
{
    ngx_pgq_call_t  *call;

    call = lane->data;
    lane->data = NULL;

    if (call) {
        call->done(call, NGX_PGQ_UNKNOWN);
    }
}
