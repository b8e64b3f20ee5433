/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "trial" finds out whether a message or the database is to blame
 * when a batch fails with an SQL error that may be due to either.
 *
 * Invariants:
 *  - a batch that has failed a few times is halved; its halves are halved
 *    when they fail once more;
 *  - a message is to blame when it has failed several times alone, and between
 *    each of these times and the next another batch of the pool has been
 *    committed;
 *  - if everything fails, no message is to blame: each ticket waits until its
 *    deadline, and is answered with 503;
 *  - a database that takes nothing is not flooded: after a few failures in a
 *    row a pool sends a batch from time to time only, until one is committed.
 */

#include "ngx_pgq_batch.h"


#define NGX_PGQ_TRIAL_FAILURES  3       /* of a batch, until it is halved */
#define NGX_PGQ_TRIAL_ALONE     5       /* of a message, after the first */
#define NGX_PGQ_TRIAL_ROW       8       /* failures without a pause */
#define NGX_PGQ_TRIAL_PAUSE     100     /* ms */


static void ngx_pgq_trial_log(ngx_pgq_batch_t *batch);


/*
 * The batch has failed.  Returns 1 if it is to be halved, or refused if
 * batch->blamed is set; 0 if it is to be sent again as it is.
 */

ngx_uint_t
ngx_pgq_trial_failed(ngx_pgq_batch_t *batch)
{
    ngx_pgq_pool_t  *pool;

    pool = batch->pool;

    ngx_pgq_trial_log(batch);

    batch->failures++;

    pool->failures++;
    pool->trial = ngx_current_msec + NGX_PGQ_TRIAL_PAUSE;

    if (batch->n == 1) {

        if (batch->alone && batch->witnesses == pool->committed) {
            return 0;
        }

        batch->witnesses = pool->committed;
        batch->blamed = ++batch->alone > NGX_PGQ_TRIAL_ALONE;

        return batch->blamed;
    }

    return batch->failures >= NGX_PGQ_TRIAL_FAILURES;
}


/* whether a batch may be sent now; if not, the pool is woken when it may */

ngx_uint_t
ngx_pgq_trial_may(ngx_pgq_pool_t *pool)
{
    if (pool->failures < NGX_PGQ_TRIAL_ROW
        || (ngx_msec_int_t) (ngx_current_msec - pool->trial) >= 0)
    {
        return 1;
    }

    ngx_pgq_pool_alarm(pool, pool->trial);

    return 0;
}


/* a half of a batch that has failed is halved when it fails, too */

void
ngx_pgq_trial_halved(ngx_pgq_batch_t *batch, ngx_pgq_batch_t *other)
{
    if (batch->failures) {
        batch->failures = NGX_PGQ_TRIAL_FAILURES - 1;
        other->failures = NGX_PGQ_TRIAL_FAILURES - 1;
    }
}


/* the text of the error may quote a message */

static void
ngx_pgq_trial_log(ngx_pgq_batch_t *batch)
{
    ngx_pgq_pool_t  *pool;

    pool = batch->pool;

    if (pool->failure && ngx_pgq_seconds() - pool->failure < NGX_PGQ_QUIET) {
        return;
    }

    pool->failure = ngx_pgq_seconds();

    ngx_log_error(NGX_LOG_ERR, pool->log, 0,
                  "pgq batch: the database fails to take %ui messages: %s,"
                  " pool \"%V\"",
                  batch->messages, batch->call.sqlstate, &pool->name);
}
