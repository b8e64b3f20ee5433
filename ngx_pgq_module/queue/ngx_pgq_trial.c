/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file finds out whether a message or the database is the cause when a
 * batch fails with an SQL error that either can cause.
 *
 * Invariants:
 *  - a batch is halved after a few failures, and each half after one more;
 *  - a message that has failed alone is a suspect.  It is the cause if it
 *    fails alone several times, and the pool has committed another batch
 *    between any two of these failures;
 *  - while all batches fail, no message is refused: each ticket waits until
 *    its deadline and is answered with 503;
 *  - a message is never refused for a transient error, such as a lock that is
 *    not available.  But its batch is halved if other batches are committed
 *    meanwhile, or if such errors last for NGX_PGQ_TRIAL_GRACE, so that one
 *    message does not delay the others;
 *  - suspects do not delay other messages: one is sent after a commit, or
 *    NGX_PGQ_TRIAL_PAUSE after a failure if no other message waits;
 *  - a failing database is not overloaded: when all batches have failed for
 *    NGX_PGQ_TRIAL_GRACE, the pool sends one batch per NGX_PGQ_TRIAL_PAUSE.
 */

#include "ngx_pgq_batch.h"


#define NGX_PGQ_TRIAL_FAILURES  3       /* of a batch before it is halved */
#define NGX_PGQ_TRIAL_ALONE     6       /* of a message before it is refused */
#define NGX_PGQ_TRIAL_LONG      10000   /* ms; see suspect_time() */
#define NGX_PGQ_TRIAL_GRACE     2000    /* ms, since the first failure */
#define NGX_PGQ_TRIAL_PAUSE     100     /* ms between a failure and a send */


static ngx_msec_t ngx_pgq_trial_suspect_time(u_char *sqlstate);
static void ngx_pgq_trial_log(ngx_pgq_batch_t *batch);


/* returns 1 if the batch must be halved or, if bad, refused; 0: sent again */

ngx_uint_t
ngx_pgq_trial_failed(ngx_pgq_batch_t *batch)
{
    ngx_pgq_writes_t  *writes;

    writes = ngx_pgq_writes(batch->db);

    ngx_pgq_trial_log(batch);

    batch->failures++;

    if (writes->failures++ == 0) {
        writes->failing_since = ngx_current_msec;
    }

    writes->next_trial = ngx_current_msec + NGX_PGQ_TRIAL_PAUSE;

    if (batch->n == 1) {

        if (batch->alone_failures && batch->committed == writes->committed) {
            return 0;
        }

        if (batch->alone_failures++ == 0) {
            batch->suspect_since = ngx_current_msec;
        }

        batch->committed = writes->committed;
        batch->bad = batch->alone_failures >= NGX_PGQ_TRIAL_ALONE
                        && ngx_current_msec - batch->suspect_since
                           >= ngx_pgq_trial_suspect_time(batch->call.sqlstate);

        return batch->bad;
    }

    return batch->failures >= NGX_PGQ_TRIAL_FAILURES;
}


/*
 * Returns 1 if the batch must be halved after a transient error, or because it
 * could not be sent; 0: sent again.
 */

ngx_uint_t
ngx_pgq_trial_again(ngx_pgq_batch_t *batch)
{
    ngx_uint_t  transient;

    transient = ngx_pgq_call_is_transient(&batch->call);

    if (transient) {
        ngx_pgq_trial_log(batch);
    }

    if (batch->n == 1) {
        return 0;
    }

    if (batch->failures++ == 0) {
        batch->failing_since = ngx_current_msec;
        batch->committed = ngx_pgq_writes(batch->db)->committed;
    }

    if (batch->failures < NGX_PGQ_TRIAL_FAILURES) {
        return 0;
    }

    return batch->committed != ngx_pgq_writes(batch->db)->committed
           || (transient && ngx_current_msec - batch->failing_since
                            >= NGX_PGQ_TRIAL_GRACE);
}


/* whether a batch may be sent now; if not, the pool's timer is set */

ngx_uint_t
ngx_pgq_trial_ready(ngx_pgq_pool_t *db)
{
    ngx_pgq_writes_t  *writes;

    writes = ngx_pgq_writes(db);

    return writes->failures == 0
           || ngx_current_msec - writes->failing_since < NGX_PGQ_TRIAL_GRACE
           || ngx_pgq_trial_ready_suspect(db);
}


/* whether a suspect, or a batch after NGX_PGQ_TRIAL_GRACE, may be sent now */

ngx_uint_t
ngx_pgq_trial_ready_suspect(ngx_pgq_pool_t *db)
{
    ngx_msec_t  next;

    next = ngx_pgq_writes(db)->next_trial;

    if ((ngx_msec_int_t) (ngx_current_msec - next) >= 0) {
        return 1;
    }

    ngx_pgq_pool_alarm(db, next);

    return 0;
}


/* a half of a batch that has failed is halved at its first failure */

void
ngx_pgq_trial_halved(ngx_pgq_batch_t *batch, ngx_pgq_batch_t *other)
{
    if (batch->failures) {
        batch->failures = NGX_PGQ_TRIAL_FAILURES - 1;
        other->failures = NGX_PGQ_TRIAL_FAILURES - 1;
    }
}


/*
 * The time that a message is a suspect before it can be refused.  A server
 * that lacks space or memory (53, 58, XX) may still commit small messages.
 */

static ngx_msec_t
ngx_pgq_trial_suspect_time(u_char *sqlstate)
{
    return ngx_memcmp(sqlstate, "53", 2) == 0
           || ngx_memcmp(sqlstate, "58", 2) == 0
           || ngx_memcmp(sqlstate, "XX", 2) == 0 ? NGX_PGQ_TRIAL_LONG : 0;
}


/* logs the SQLSTATE only: the error message can quote a message */

static void
ngx_pgq_trial_log(ngx_pgq_batch_t *batch)
{
    ngx_pgq_pool_t    *db;
    ngx_pgq_writes_t  *writes;

    db = batch->db;
    writes = ngx_pgq_writes(db);

    if (writes->logged_at
        && ngx_pgq_seconds() - writes->logged_at < NGX_PGQ_LOG_INTERVAL)
    {
        return;
    }

    writes->logged_at = ngx_pgq_seconds();

    ngx_log_error(NGX_LOG_ERR, db->lane.log, 0,
                  "pgq batch: could not enqueue %ui messages: %s, pool \"%V\"",
                  batch->messages, batch->call.sqlstate, &db->lane.name);
}
