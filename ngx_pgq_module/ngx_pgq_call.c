/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "call" owns the words spoken with the database: the statements,
 * what an SQLSTATE means, and when a statement counts as committed.
 * A call belongs to whoever made it (batch, fetch), but for the time between
 * ngx_pgq_call_start() and done(), when the lane points at it.
 *
 * Called by pool.c (start, lanes) and page.c (libpq); calls lane.c, metrics.
 *
 * Invariants:
 *  - each started call ends with one done();
 *  - NGX_PGQ_DONE only when the server has answered without an error, is
 *    ready for the next query, is in no transaction, and has sent no
 *    WARNING: a cancelled wait for a synchronous replica looks like success
 *    but for its WARNING, and with the extended protocol the command's
 *    completion is sent before the commit;
 *  - NGX_PGQ_REFUSED and NGX_PGQ_AGAIN only when the server has said that
 *    the transaction failed and is ready for the next query; a connection
 *    that ends instead leaves the outcome unknown.
 */

#include "ngx_pgq_lane.h"

#include <libpq-fe.h>


/* the contract with the database; its other half is in sql/ */

static ngx_pgq_lane_statement_t  ngx_pgq_call_statements[] = {
    { "enqueue",
      "select ordinal, sqlstate, problem"
      " from ngx_pgq.enqueue($1::uuid, $2::uuid[], $3::text[])" },
    { "enqueue_keyed",
      "select ordinal, sqlstate, problem"
      " from ngx_pgq.enqueue_keyed($1::uuid, $2::uuid[], $3::text[],"
                                 " $4::text[])" },
    { "enqueue_all",
      "select ordinal, sqlstate, problem"
      " from ngx_pgq.enqueue_all($1::uuid, $2::uuid, $3::text[], $4::text)" },
    { "fence",
      "select ngx_pgq.fence($1::uuid)" },
    { "recent",
      "select ngx_pgq.recent($1::integer, $2::bigint)" },
    { NULL, NULL }
};


/*
 * SQLSTATEs, by class or whole, that the data itself is to blame for.  All
 * others say that the database cannot for now, or was set up wrongly: the
 * lane is dropped and the call tried again, by its owner, elsewhere or later.
 * Class 54 is among those: a database near wraparound says 54000 to everybody.
 */

static const char  *ngx_pgq_call_refusals[] = {
    "22", "23", "44", "P0", NULL
};


static void ngx_pgq_call_ready(ngx_pgq_lane_t *lane);
static void ngx_pgq_call_result(ngx_pgq_lane_t *lane, PGresult *res);
static void ngx_pgq_call_rows(ngx_pgq_call_t *call, PGresult *res);
static void ngx_pgq_call_error(ngx_pgq_lane_t *lane, ngx_pgq_call_t *call,
    PGresult *res);
static void ngx_pgq_call_done(ngx_pgq_lane_t *lane);
static void ngx_pgq_call_lost(ngx_pgq_lane_t *lane);


static ngx_pgq_lane_ops_t  ngx_pgq_call_ops = {
    ngx_pgq_call_ready,
    ngx_pgq_call_result,
    ngx_pgq_call_done,
    ngx_pgq_call_lost
};


ngx_int_t
ngx_pgq_call_init_lanes(ngx_pgq_pool_t *pool, ngx_log_t *log)
{
    ngx_uint_t       i;
    ngx_pgq_lane_t  *lane;

    pool->lanes = ngx_calloc((pool->nlanes + 1) * sizeof(ngx_pgq_lane_t),
                             log);
    if (pool->lanes == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < pool->nlanes + 1; i++) {
        lane = &pool->lanes[i];
        lane->pool = pool;
        lane->ops = &ngx_pgq_call_ops;
        lane->statements = ngx_pgq_call_statements;
        lane->state = NGX_PGQ_LANE_CLOSED;
    }

    for (i = 0; i < pool->nlanes; i++) {
        ngx_pgq_lane_open(&pool->lanes[i]);
    }

    return NGX_OK;
}


void
ngx_pgq_call_exit_lanes(ngx_pgq_pool_t *pool)
{
    ngx_uint_t  i;

    for (i = 0; i < pool->nlanes + 1; i++) {
        ngx_pgq_lane_close(&pool->lanes[i]);
    }

    ngx_free(pool->lanes);
    pool->lanes = NULL;
}


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
    static const int  nparams[NGX_PGQ_STATEMENTS] = { 3, 4, 4, 1, 2 };

    if (call->encode(call) != NGX_OK) {
        return NGX_DECLINED;
    }

    call->outcome = NGX_PGQ_UNKNOWN;
    call->answered = 0;

    if (ngx_pgq_lane_send(lane, call->statement, nparams[call->statement],
                          call->values, call->lengths)
        != NGX_OK)
    {
        ngx_pgq_lane_drop(lane, "08006", PQerrorMessage(lane->conn));
        return NGX_DECLINED;
    }

    lane->data = call;

    return NGX_OK;
}


static void
ngx_pgq_call_ready(ngx_pgq_lane_t *lane)
{
    ngx_pgq_pool_lane_idle(lane);
}


static void
ngx_pgq_call_result(ngx_pgq_lane_t *lane, PGresult *res)
{
    ngx_pgq_call_t  *call;

    call = lane->data;

    if (PQresultStatus(res) == PGRES_TUPLES_OK) {
        call->answered = 1;
        ngx_pgq_call_rows(call, res);
        return;
    }

    ngx_pgq_call_error(lane, call, res);
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
    size_t        len;
    const char  **class, *sqlstate, *words;

    sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    words = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);

    if (sqlstate == NULL) {
        /* libpq itself: the connection is gone */
        return;
    }

    ngx_pgq_metrics_error(sqlstate);

    call->outcome = NGX_PGQ_AGAIN;

    for (class = ngx_pgq_call_refusals; *class; class++) {
        len = ngx_strlen(*class);

        if (ngx_strncmp(sqlstate, *class, len) == 0) {
            call->outcome = NGX_PGQ_REFUSED;
        }
    }

    ngx_memcpy(lane->sqlstate, sqlstate, sizeof(lane->sqlstate) - 1);
    ngx_cpystrn(lane->words, (u_char *) (words ? words : ""),
                sizeof(lane->words));
}


/* the server is ready for the next query: the outcome is certain */

static void
ngx_pgq_call_done(ngx_pgq_lane_t *lane)
{
    ngx_pgq_call_t  *call;

    call = lane->data;
    lane->data = NULL;

    if (call->answered && call->outcome == NGX_PGQ_UNKNOWN) {

        if (lane->warned) {
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

    if (call->outcome == NGX_PGQ_REFUSED) {
        ngx_pgq_lane_healthy(lane);
        call->done(call, NGX_PGQ_REFUSED);
        return;
    }

    ngx_pgq_lane_drop(lane, (char *) lane->sqlstate, (char *) lane->words);

    call->done(call, call->outcome);
}


static void
ngx_pgq_call_lost(ngx_pgq_lane_t *lane)
{
    ngx_pgq_call_t  *call;

    call = lane->data;
    lane->data = NULL;

    ngx_pgq_pool_lane_gone(lane);

    if (call) {
        call->done(call, NGX_PGQ_UNKNOWN);
    }
}
