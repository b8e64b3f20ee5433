/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file owns the statements, the meaning of each SQLSTATE, and the rule
 * when a statement counts as committed.  The maker of a call owns it; between
 * ngx_pgq_call_start() and done() the lane refers to it.
 *
 * Invariants:
 *  - each started call ends with one done();
 *  - the outcome is NGX_PGQ_DONE only if the server has answered without an
 *    error, is ready for the next query, is in no transaction, and has sent
 *    no WARNING after the last row.  A cancelled wait for a synchronous
 *    standby differs from success only by its WARNING, and with the extended
 *    protocol CommandComplete is sent before the commit.  Each write ends
 *    with a row of nulls, so that there always is a last row;
 *  - the outcome is NGX_PGQ_REFUSED, FAILED or AGAIN only if the server has
 *    reported that the transaction failed and is ready for the next query.
 *    If the connection ends before that, the outcome is unknown;
 *  - the outcome of a read is NGX_PGQ_REFUSED if another connection would get
 *    the same error; the lane is kept.
 */

#include "ngx_pgq_call.h"

#include <libpq-fe.h>


#define NGX_PGQ_CALL_NEW         250     /* ms; a younger connection is new */

#define NGX_PGQ_CALL_RESULTS    "select ordinal, sqlstate, problem from "
#define NGX_PGQ_CALL_LAST        " union all select null, null, null"


ngx_pgq_lane_statement_t  ngx_pgq_call_writes[] = {
    [NGX_PGQ_ENQUEUE] = { "enqueue", 3,
      NGX_PGQ_CALL_RESULTS
      "ngx_pgq.enqueue($1::uuid, $2::uuid[], $3::text[])"
      NGX_PGQ_CALL_LAST },
    [NGX_PGQ_ENQUEUE_KEYED] = { "enqueue_keyed", 4,
      NGX_PGQ_CALL_RESULTS
      "ngx_pgq.enqueue_keyed($1::uuid, $2::uuid[], $3::text[], $4::text[])"
      NGX_PGQ_CALL_LAST },
    [NGX_PGQ_ENQUEUE_ALL] = { "enqueue_all", 4,
      NGX_PGQ_CALL_RESULTS
      "ngx_pgq.enqueue_all($1::uuid, $2::uuid, $3::text[], $4::text)"
      NGX_PGQ_CALL_LAST },
    [NGX_PGQ_ENQUEUE_TOPICS] = { "enqueue_topics", 5,
      NGX_PGQ_CALL_RESULTS
      "ngx_pgq.enqueue_keyed($1::uuid, $2::uuid[], $3::text[], $4::text[],"
      " $5::text[])"
      NGX_PGQ_CALL_LAST },
    [NGX_PGQ_ENQUEUE_ALL_TOPIC] = { "enqueue_all_topic", 5,
      NGX_PGQ_CALL_RESULTS
      "ngx_pgq.enqueue_all($1::uuid, $2::uuid, $3::text[], $4::text,"
      " $5::text)"
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
    [NGX_PGQ_RECENT] = { NULL, 5,
      "select id, at, data, older, topic"
      " from ngx_pgq.recent($1::integer, $2::bigint, $3::integer, $4::text[],"
      " $5::text)" },
    [NGX_PGQ_AFTER] = { NULL, 5,
      "select id, at, data, newer, topic"
      " from ngx_pgq.after($2::bigint, $1::integer, $3::integer, $4::text[],"
      " $5::text)" },
    [NGX_PGQ_FOLLOW] = { NULL, 4,
      "select id, at, data, topic, message_id, head, removed, revision,"
      " delay from ngx_pgq.follow($1::bigint, $2::integer, $3::integer,"
      " $4::integer)" },
    [NGX_PGQ_HISTORY] = { NULL, 5,
      "select id, at, data, newer, topic, oldest, newest, complete"
      " from ngx_pgq.position($2::bigint) left join"
      " ngx_pgq.after($2::bigint, $1::integer, $3::integer, $4::text[],"
      " $5::text) on true order by id" },
    [NGX_PGQ_SINCE] = { NULL, 1,
      "select ngx_pgq.since($1::text::timestamptz)" },
    [NGX_PGQ_METRICS] = { NULL, 0,
      "select ngx_pgq.metrics()" },
    [NGX_PGQ_SUBSCRIPTIONS] = { NULL, 0,
      "select ngx_pgq.subscription_status()" },
    [NGX_PGQ_SUBSCRIBE] = { NULL, 2,
      "select ngx_pgq.subscribe_json($1::text, $2::json)" },
    [NGX_PGQ_UNSUBSCRIBE] = { NULL, 1,
      "select ngx_pgq.unsubscribe($1::text)" },
    [NGX_PGQ_CONSUME] = { NULL, 6,
      "select id, at, data, null, topic, in_part, in_generation"
      " from ngx_pgq.fetch_json($1::text, $2::integer, $3::integer,"
      " $4::integer, $5::bigint, $6::integer)" },
    [NGX_PGQ_ACK] = { NULL, 2,
      "select ngx_pgq.ack_json($1::text, $2::json)" }
};


/*
 * Prefixes of SQLSTATEs.  A write that fails with one of these has bad data;
 * with one of ngx_pgq_call_retries[], it is tried again, perhaps on another
 * connection.  Any other error may be caused by the data or by the database:
 * the owner of the call finds out.
 */

static const char  *ngx_pgq_call_refusals[] = {
    "22", "23", "44", "P0", NULL
};


/*
 * Exceptions, not caused by the data: a null (no value of a message is null),
 * and an exhausted sequence, which belongs to a column added to the queue.
 */

static const char  *ngx_pgq_call_not_refusals[] = {
    "2200H", "23502", NULL
};


static const char  *ngx_pgq_call_retries[] = {
    "08", "25", "28", "3D", "40", "53300", "55P", "57", NULL
};


/*
 * Retried SQLSTATEs that one message can cause; a batch that fails with one of
 * them may be halved.
 */

static const char  *ngx_pgq_call_transient[] = {
    "40", "55P", "57014", NULL
};


/* neither refused nor retried: SQLSTATEs that a new connection may cure */

static const char  *ngx_pgq_call_reconnect[] = {
    "0A", "26", "425", "428", "42P", "53", "55", "58", "F0", "XX", NULL
};


/*
 * SQLSTATEs of a read that is sent again; with others it would fail again.  A
 * former primary refuses to write.
 */

static const char  *ngx_pgq_call_read_retries[] = {
    "08", "25006", "40", "57P", NULL
};


static void ngx_pgq_call_rows(ngx_pgq_call_t *call, PGresult *res);
static void ngx_pgq_call_error(ngx_pgq_lane_t *lane, ngx_pgq_call_t *call,
    PGresult *res);
static ngx_pgq_outcome_e ngx_pgq_call_failed(ngx_pgq_call_t *call,
    const char *sqlstate);
static ngx_uint_t ngx_pgq_call_listed(const char **classes,
    const char *sqlstate);
static ngx_uint_t ngx_pgq_call_may_reconnect(ngx_pgq_lane_t *lane);


ngx_uint_t
ngx_pgq_call_libpq_version(void)
{
    return PQlibVersion();
}


/* returns NGX_DECLINED if it was not sent: done() will not be called */

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
        /* all rows have been read */
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
    const char  *sqlstate, *text;

    sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);

    if (sqlstate == NULL) {
        /* an error of libpq: the connection is lost */
        return;
    }

    ngx_pgq_metrics_error(sqlstate);

    call->outcome = ngx_pgq_call_failed(call, sqlstate);

    ngx_memcpy(lane->sqlstate, sqlstate, sizeof(lane->sqlstate) - 1);

    if (call->outcome == NGX_PGQ_REFUSED && (!call->read || call->commits)) {
        /* the sender of the message gets this text, the log does not */
        text = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
        ngx_pgq_error_text(lane->error_text, sizeof(lane->error_text), text);
        return;
    }

    ngx_pgq_lane_error_text(lane->error_text, sizeof(lane->error_text), res);
}


static ngx_pgq_outcome_e
ngx_pgq_call_failed(ngx_pgq_call_t *call, const char *sqlstate)
{
    if (call->read) {
        return ngx_pgq_call_listed(ngx_pgq_call_read_retries, sqlstate)
               ? NGX_PGQ_AGAIN : NGX_PGQ_REFUSED;
    }

    if (ngx_pgq_call_listed(ngx_pgq_call_refusals, sqlstate)
        && !ngx_pgq_call_listed(ngx_pgq_call_not_refusals, sqlstate))
    {
        return NGX_PGQ_REFUSED;
    }

    return ngx_pgq_call_listed(ngx_pgq_call_retries, sqlstate)
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


ngx_uint_t
ngx_pgq_call_is_transient(ngx_pgq_call_t *call)
{
    return call->sqlstate && ngx_pgq_call_listed(ngx_pgq_call_transient,
                                                 (char *) call->sqlstate);
}


static ngx_uint_t
ngx_pgq_call_may_reconnect(ngx_pgq_lane_t *lane)
{
    return ngx_pgq_call_listed(ngx_pgq_call_reconnect,
                               (char *) lane->sqlstate)
           && ngx_current_msec - lane->connected_at >= NGX_PGQ_CALL_NEW;
}


/* called when the server is ready for the next query */

void
ngx_pgq_call_done(ngx_pgq_lane_t *lane)
{
    ngx_pgq_call_t  *call;

    call = lane->data;
    lane->data = NULL;

    if (call->answered && call->outcome == NGX_PGQ_UNKNOWN) {

        if (lane->warned && (!call->read || call->commits)) {
            /* committed on the primary, perhaps not on a standby */
            call->done(call, NGX_PGQ_UNKNOWN);
            return;
        }

        ngx_pgq_lane_healthy(lane);
        call->done(call, NGX_PGQ_DONE);
        return;
    }

    call->error_text.data = lane->error_text;
    call->error_text.len = ngx_strlen(lane->error_text);
    call->sqlstate = lane->sqlstate;

    if (call->outcome == NGX_PGQ_REFUSED
        || (call->outcome == NGX_PGQ_FAILED
            && !ngx_pgq_call_may_reconnect(lane))
        || (call->outcome == NGX_PGQ_AGAIN && !call->read
            && ngx_pgq_call_is_transient(call)))
    {
        if (call->outcome == NGX_PGQ_REFUSED) {
            ngx_pgq_lane_healthy(lane);
        }

        call->done(call, call->outcome);
        return;
    }

    ngx_pgq_lane_drop(lane, (char *) lane->sqlstate,
                      (char *) lane->error_text);

    call->done(call, call->outcome);
}


/* called when the connection is lost; the lane may have no call */

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
