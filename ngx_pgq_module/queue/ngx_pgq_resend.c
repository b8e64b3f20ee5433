/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file decides when a batch is sent again, and owns the order in
 * writes->again.
 *
 * Invariant: a batch is sent again after a pause, which grows each time, and
 * in which other batches may be sent.
 */

#include "ngx_pgq_batch.h"


#define NGX_PGQ_RESEND_PAUSE      10      /* ms, then doubled each time */
#define NGX_PGQ_RESEND_PAUSE_MAX  1000    /* ms */


static ngx_pgq_batch_t *ngx_pgq_resend_find(ngx_pgq_pool_t *db,
    ngx_uint_t suspects);


/* the batch must be in no list */

void
ngx_pgq_resend(ngx_pgq_batch_t *batch)
{
    ngx_msec_t  pause;

    pause = NGX_PGQ_RESEND_PAUSE << ngx_min(batch->resends, 8);
    pause = ngx_min(pause, NGX_PGQ_RESEND_PAUSE_MAX);
    pause = pause / 2 + ngx_random() % (pause / 2 + 1);

    batch->resends++;
    batch->due = ngx_current_msec + pause;

    ngx_queue_insert_tail(&ngx_pgq_writes(batch->db)->again, &batch->queue);
    ngx_pgq_pool_alarm(batch->db, batch->due);
}


/*
 * Removes the next batch from writes->again.  Returns NULL if no batch is due,
 * or if it is the turn of new messages.
 */

ngx_pgq_batch_t *
ngx_pgq_resend_next(ngx_pgq_pool_t *db)
{
    ngx_uint_t         waiting;
    ngx_pgq_batch_t   *batch;
    ngx_pgq_writes_t  *writes;

    writes = ngx_pgq_writes(db);
    waiting = !ngx_queue_empty(&writes->waiting);

    /* while batches fail, new messages and repeated batches alternate */

    if (waiting && (writes->failures & 1)) {
        return NULL;
    }

    batch = ngx_pgq_resend_find(db, writes->failures == 0);

    if (batch == NULL && !waiting && ngx_pgq_trial_ready_suspect(db)) {
        batch = ngx_pgq_resend_find(db, 1);
    }

    return batch;
}


/* returns the first batch that is due; suspects: it may be a suspect */

static ngx_pgq_batch_t *
ngx_pgq_resend_find(ngx_pgq_pool_t *db, ngx_uint_t suspects)
{
    ngx_queue_t       *q;
    ngx_pgq_batch_t   *batch;
    ngx_pgq_writes_t  *writes;

    writes = ngx_pgq_writes(db);

    for (q = ngx_queue_head(&writes->again);
         q != ngx_queue_sentinel(&writes->again);
         q = ngx_queue_next(q))
    {
        batch = ngx_queue_data(q, ngx_pgq_batch_t, queue);

        if (batch->alone_failures && !suspects) {
            continue;
        }

        if ((ngx_msec_int_t) (batch->due - ngx_current_msec) <= 0) {
            ngx_queue_remove(q);
            return batch;
        }
    }

    return NULL;
}


/* whether the batch table may no longer have the id of this batch */

ngx_uint_t
ngx_pgq_resend_is_old(ngx_pgq_batch_t *batch)
{
    return batch->repeated
           && ngx_pgq_resend_clock() - batch->first_sent
              > NGX_PGQ_MAX_TIMEOUT / 1000;
}


/* elapsed seconds, including those in which the host was suspended */

time_t
ngx_pgq_resend_clock(void)
{
#ifdef CLOCK_BOOTTIME
    struct timespec  now;

    if (clock_gettime(CLOCK_BOOTTIME, &now) == 0) {
        return now.tv_sec;
    }
#endif

    return ngx_pgq_seconds();
}
