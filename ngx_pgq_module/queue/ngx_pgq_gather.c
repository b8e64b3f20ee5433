/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file decides whether new tickets wait for more before they become a
 * batch: a commit costs as much as 70 messages, so that few large batches use
 * less CPU time than many small ones.
 *
 * Invariants:
 *  - tickets only wait while another batch of this worker is in flight, or
 *    for a few turns of the event loop, each of which brings more of them;
 *  - a batch that takes longer than NGX_PGQ_GATHER_LATE delays no other: the
 *    next lane sends;
 *  - tickets do not wait if batches are small, as one at a time would be
 *    slower for few clients; if commits are slow, as behind a synchronous
 *    standby, where lanes wait at the same time; or if a batch was full.
 */

#include "ngx_pgq_batch.h"


#define NGX_PGQ_GATHER_FEW       4       /* tickets of a small batch */
#define NGX_PGQ_GATHER_TURNS     8       /* of the event loop */
#define NGX_PGQ_GATHER_SLOW      3       /* ms of a slow commit */
#define NGX_PGQ_GATHER_LATE      50      /* ms; the batch may never end */


/* moving averages are multiplied by this */

#define NGX_PGQ_GATHER_WEIGHT    8


/* returns 1 if the waiting tickets become a batch later, at the next event */

ngx_uint_t
ngx_pgq_gather(ngx_pgq_pool_t *db)
{
    ngx_pgq_batch_t   *oldest;
    ngx_pgq_writes_t  *writes;

    writes = ngx_pgq_writes(db);

    if (writes->full
        || writes->usual < NGX_PGQ_GATHER_FEW * NGX_PGQ_GATHER_WEIGHT
        || writes->took >= NGX_PGQ_GATHER_SLOW * NGX_PGQ_GATHER_WEIGHT)
    {
        return 0;
    }

    if (!ngx_queue_empty(&writes->sent)) {
        oldest = ngx_queue_data(ngx_queue_head(&writes->sent),
                                ngx_pgq_batch_t, queue);

        if (ngx_current_msec - oldest->sent_at >= NGX_PGQ_GATHER_LATE) {
            return 0;
        }

        ngx_pgq_pool_alarm(db, oldest->sent_at + NGX_PGQ_GATHER_LATE);
        return 1;
    }

    if (writes->turns < NGX_PGQ_GATHER_TURNS
        && db->unanswered > writes->gathered)
    {
        writes->turns++;
        writes->gathered = db->unanswered;
        ngx_pgq_pool_wake_next(db);
        return 1;
    }

    return 0;
}


/* called when a batch is committed, before its tickets are answered */

void
ngx_pgq_gather_committed(ngx_pgq_batch_t *batch)
{
    ngx_pgq_writes_t  *writes;

    writes = ngx_pgq_writes(batch->db);

    writes->usual += batch->n - writes->usual / NGX_PGQ_GATHER_WEIGHT;
    writes->took += ngx_current_msec - batch->sent_at
                    - writes->took / NGX_PGQ_GATHER_WEIGHT;
}
