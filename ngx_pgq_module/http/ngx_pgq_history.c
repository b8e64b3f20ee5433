/* SPDX-License-Identifier: PostgreSQL */

/*
 * Asks PostgreSQL for what a reader needs and the ring does not have: posts
 * after its cursor, or where the newest posts or those of a time begin.
 * Readers that ask the same share one answer and one group of frames.
 *
 * Invariants:
 *  - a reader asks one question at a time, and sends nothing meanwhile;
 *  - an answer is used only if retention had deleted no post after the cursor
 *    when the posts were read; else the reader is reset;
 *  - a reader whose question fails asks again after a while: the database may
 *    be away.  A long poll is answered with the problem.
 */

#include "ngx_pgq_reader.h"


#define NGX_PGQ_HISTORY_POSTS    1000
#define NGX_PGQ_HISTORY_SIZE     65536   /* bytes of data */
#define NGX_PGQ_HISTORY_RETRY    1000    /* ms, and up to as much again */


static void ngx_pgq_history_done(ngx_pgq_fetch_t *f,
    ngx_pgq_read_result_e result, ngx_pgq_answer_t *answer);
static ngx_int_t ngx_pgq_history_posts(ngx_pgq_reader_t *rd,
    ngx_pgq_answer_t *answer);
static ngx_int_t ngx_pgq_history_failed(ngx_pgq_reader_t *rd);


/* NGX_AGAIN: the reader waits for the answer; NGX_DONE: it has ended */

ngx_int_t
ngx_pgq_history_ask(ngx_pgq_reader_t *rd, ngx_pgq_ring_state_t *state)
{
    ngx_int_t             rc;
    ngx_pgq_read_query_t  query;

    ngx_memzero(&query, sizeof(ngx_pgq_read_query_t));

    query.topics = rd->topics;
    query.pattern = rd->pattern;

    if (rd->located) {
        query.special = NGX_PGQ_QUERY_HISTORY;
        query.ascending = 1;
        query.limit = NGX_PGQ_HISTORY_POSTS;
        query.id = rd->cursor;
        query.size = NGX_PGQ_HISTORY_SIZE;

    } else {
        query.limit = rd->newest;
        query.size = rd->readers->db->reads->answer_size;
    }

    rd->asked = state->newest;

    rc = ngx_pgq_history_join(rd, &query, ngx_pgq_history_done);

    return rc == NGX_BUSY ? ngx_pgq_history_failed(rd) : rc;
}


/* done() is called later if NGX_AGAIN; NGX_BUSY: too many requests wait */

ngx_int_t
ngx_pgq_history_join(ngx_pgq_reader_t *rd, ngx_pgq_read_query_t *query,
    ngx_pgq_history_done_pt done)
{
    ngx_pgq_pool_t      *db;
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(rd->request, ngx_http_pgq_module);
    db = rd->readers->db->reads;

    if (db->unanswered >= db->max_tickets) {
        return NGX_BUSY;
    }

    rd->fetch.base.db = db;
    rd->fetch.base.timeout = plcf->timeout;
    rd->fetch.done = done;

    if (ngx_pgq_read_join(&rd->fetch, query) != NGX_OK) {
        return NGX_ERROR;
    }

    rd->asking = 1;

    return NGX_AGAIN;
}


static void
ngx_pgq_history_done(ngx_pgq_fetch_t *f, ngx_pgq_read_result_e result,
    ngx_pgq_answer_t *answer)
{
    ngx_int_t               rc;
    ngx_pgq_reader_t       *rd;
    ngx_pgq_answer_post_t  *posts;

    rd = f->data;
    rd->asking = 0;

    if (result != NGX_PGQ_READ_DONE) {
        (void) ngx_pgq_history_failed(rd);
        return;
    }

    if (rd->located) {
        rc = ngx_pgq_history_posts(rd, answer);

    } else {
        posts = answer->posts.elts;

        rc = ngx_pgq_delivery_located(rd, answer->posts.nelts
                                   ? posts[answer->posts.nelts - 1].id - 1
                                   : rd->asked);
    }

    ngx_pgq_reader_continue(rd, rc);
}


static ngx_int_t
ngx_pgq_history_posts(ngx_pgq_reader_t *rd, ngx_pgq_answer_t *answer)
{
    int64_t                 upto;
    ngx_pgq_ring_state_t    state;
    ngx_pgq_frame_cache_t  *cache;

    if (!answer->complete) {
        return ngx_pgq_delivery_reset(rd, NGX_PGQ_RESET_EXPIRED,
                                      answer->oldest, answer->newest);
    }

    if (answer->newest < rd->cursor) {
        return ngx_pgq_delivery_reset(rd, NGX_PGQ_RESET_AHEAD, answer->oldest,
                                      answer->newest);
    }

    rd->checked = 1;

    upto = answer->next;

    if (!answer->more && answer->posts.nelts < NGX_PGQ_HISTORY_POSTS) {
        upto = ngx_max(upto, rd->asked);
    }

    if (answer->posts.nelts == 0) {
        rd->cursor = ngx_max(rd->cursor, upto);
        return NGX_OK;
    }

    cache = &rd->readers->cache;

    if (rd->filter == NULL) {
        ngx_pgq_ring_state(rd->readers->db->ring, &state);
        rd->next = ngx_pgq_frame_find(cache, rd->transport, &state,
                                      rd->cursor);
        if (rd->next) {
            return NGX_OK;
        }
    }

    rd->next = ngx_pgq_frame_answer(cache, rd->transport, rd->epoch,
                                    rd->cursor, upto, answer,
                                    rd->filter == NULL);

    return rd->next ? NGX_OK : NGX_ERROR;
}


/* NGX_AGAIN: the reader asks again later; NGX_DONE: it has ended */

static ngx_int_t
ngx_pgq_history_failed(ngx_pgq_reader_t *rd)
{
    if (rd->transport == NGX_PGQ_TRANSPORT_PAGE) {
        rd->located = 0;
        rd->problem = NGX_PGQ_PROBLEM_READ_FAILED;
        ngx_pgq_reader_finish(rd, NGX_PGQ_READER_ANSWERED);
        return NGX_DONE;
    }

    rd->failed = 1;
    rd->retry = ngx_current_msec + NGX_PGQ_HISTORY_RETRY
                + ngx_random() % NGX_PGQ_HISTORY_RETRY;

    ngx_pgq_reader_alarm(rd);

    return NGX_AGAIN;
}
