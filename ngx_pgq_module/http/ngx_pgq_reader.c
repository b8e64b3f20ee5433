/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file owns the readers of a worker from their start to their end.  Each
 * is in the memory of its request.
 *
 * There is one loop, ngx_pgq_reader_run(): it sends what is after the cursor.
 * A reader whose socket takes everything and that has got every post waits;
 * that a post is new makes no difference.
 *
 * Invariant: a reader is in one list until it ends: waiting (for posts), ready
 * (to run), or blocked (its socket is full).
 */

#include "ngx_pgq_reader.h"


#define NGX_PGQ_READER_STEPS     4       /* groups a reader sends at once */
#define NGX_PGQ_READER_SLICE     128     /* readers that run in one event */
#define NGX_PGQ_READER_RATE      512     /* readers for a ms of pause */
#define NGX_PGQ_READER_PAUSE     100     /* ms, longest between two rounds */


static void ngx_pgq_reader_changed(ngx_pgq_ring_listener_t *listener);
static void ngx_pgq_reader_grown(ngx_pgq_readers_t *readers);
static void ngx_pgq_reader_drain(ngx_pgq_readers_t *readers);
static void ngx_pgq_reader_round(ngx_pgq_readers_t *readers);
static void ngx_pgq_reader_event_handler(ngx_event_t *ev);
static void ngx_pgq_reader_run(ngx_pgq_reader_t *rd);
static void ngx_pgq_reader_write_handler(ngx_http_request_t *r);
static void ngx_pgq_reader_timer_handler(ngx_event_t *ev);
static void ngx_pgq_reader_leave(ngx_pgq_reader_t *rd,
    ngx_pgq_reader_end_e reason);
static void ngx_pgq_reader_cleanup(void *data);


ngx_int_t
ngx_pgq_reader_init(ngx_pgq_pool_t *db, ngx_cycle_t *cycle)
{
    ngx_pgq_readers_t  *readers;

    readers = ngx_pcalloc(cycle->pool, sizeof(ngx_pgq_readers_t));
    if (readers == NULL) {
        return NGX_ERROR;
    }

    readers->db = db;

    ngx_queue_init(&readers->waiting);
    ngx_queue_init(&readers->ready);
    ngx_queue_init(&readers->blocked);
    ngx_queue_init(&readers->cache.groups);

    readers->event.handler = ngx_pgq_reader_event_handler;
    readers->event.data = readers;
    readers->event.log = cycle->log;
    readers->event.cancelable = 1;

    readers->listener.changed = ngx_pgq_reader_changed;
    readers->listener.data = readers;

    ngx_pgq_ring_listen(db->ring, &readers->listener);

    return NGX_OK;
}


void
ngx_pgq_reader_exit(ngx_pgq_pool_t *db)
{
    ngx_pgq_readers_t  *readers;

    if (db->ring) {
        readers = ngx_pgq_ring_listening(db->ring, ngx_pgq_reader_changed);
        ngx_pgq_frame_exit(&readers->cache);
    }
}


ngx_pgq_reader_t *
ngx_pgq_reader_create(ngx_http_request_t *r, ngx_pgq_ctx_t *ctx)
{
    ngx_pgq_reader_t    *rd;
    ngx_pool_cleanup_t  *cln;
    ngx_pgq_loc_conf_t  *plcf;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_pgq_reader_t));
    if (cln == NULL) {
        return NULL;
    }

    rd = cln->data;
    ngx_memzero(rd, sizeof(ngx_pgq_reader_t));

    cln->handler = ngx_pgq_reader_cleanup;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    rd->readers = ngx_pgq_ring_listening(plcf->stream->ring,
                                         ngx_pgq_reader_changed);
    rd->left = 1;
    rd->request = r;
    rd->ctx = ctx;
    rd->cursor = -1;
    rd->problem = NGX_PGQ_PROBLEM_RING_STALE;
    rd->fetch.data = rd;

    return rd;
}


/* the reader runs by an event, when the handler of the request has returned */

void
ngx_pgq_reader_start(ngx_pgq_reader_t *rd)
{
    ngx_pgq_readers_t   *readers;
    ngx_http_request_t  *r;

    r = rd->request;
    readers = rd->readers;

    rd->left = 0;
    rd->ctx->reader = rd;
    rd->sent = ngx_current_msec;
    rd->timer.handler = ngx_pgq_reader_timer_handler;
    rd->timer.data = rd;
    rd->timer.log = r->connection->log;

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_pgq_reader_write_handler;

    readers->n++;
    ngx_pgq_metrics_reader(readers->db->lane.metrics, rd->transport, 1);

    ngx_queue_insert_tail(&readers->waiting, &rd->queue);
    ngx_pgq_reader_ready(rd);
    ngx_pgq_reader_alarm(rd);

    if (readers->draining) {
        ngx_pgq_reader_end_at(rd, ngx_current_msec, NGX_PGQ_READER_DRAIN);
    }
}


static void
ngx_pgq_reader_changed(ngx_pgq_ring_listener_t *listener)
{
    ngx_pgq_readers_t  *readers;

    readers = listener->data;

    if (ngx_exiting && !readers->draining) {
        ngx_pgq_reader_drain(readers);
    }

    ngx_pgq_reader_grown(readers);

    if (readers->n == 0) {
        return;
    }

    if (readers->round || readers->event.timer_set) {
        readers->changed = 1;
        return;
    }

    ngx_pgq_reader_round(readers);
}


/* closes blocked readers that are too far behind */

static void
ngx_pgq_reader_grown(ngx_pgq_readers_t *readers)
{
    ngx_queue_t           *q;
    ngx_pgq_reader_t      *rd;
    ngx_pgq_loc_conf_t    *plcf;
    ngx_pgq_ring_state_t   state;

    ngx_pgq_ring_state(readers->db->ring, &state);

    for (q = ngx_queue_head(&readers->blocked);
         q != ngx_queue_sentinel(&readers->blocked);
         /* void */ )
    {
        rd = ngx_queue_data(q, ngx_pgq_reader_t, queue);
        q = ngx_queue_next(q);

        plcf = ngx_http_get_module_loc_conf(rd->request, ngx_http_pgq_module);

        if (state.position - rd->mark > plcf->backlog) {
            ngx_pgq_reader_end_at(rd, ngx_current_msec,
                                  NGX_PGQ_READER_BACKLOG);
        }
    }
}


/* the worker exits: the readers end one after the other */

static void
ngx_pgq_reader_drain(ngx_pgq_readers_t *readers)
{
    ngx_uint_t           i;
    ngx_queue_t         *q, *lists[3];
    ngx_pgq_reader_t    *rd;
    ngx_pgq_loc_conf_t  *plcf;

    readers->draining = 1;

    lists[0] = &readers->waiting;
    lists[1] = &readers->ready;
    lists[2] = &readers->blocked;

    for (i = 0; i < 3; i++) {
        for (q = ngx_queue_head(lists[i]);
             q != ngx_queue_sentinel(lists[i]);
             q = ngx_queue_next(q))
        {
            rd = ngx_queue_data(q, ngx_pgq_reader_t, queue);
            plcf = ngx_http_get_module_loc_conf(rd->request,
                                                ngx_http_pgq_module);

            ngx_pgq_reader_end_at(rd, ngx_current_msec
                                      + ngx_random() % (plcf->drain + 1),
                                  NGX_PGQ_READER_DRAIN);
        }
    }
}


static void
ngx_pgq_reader_round(ngx_pgq_readers_t *readers)
{
    ngx_pgq_ring_state_t  state;

    ngx_pgq_ring_state(readers->db->ring, &state);

    readers->upto = state.newest;
    readers->changed = 0;
    readers->round = 1;
    readers->began = ngx_current_msec;

    if (!ngx_queue_empty(&readers->waiting)) {
        ngx_queue_add(&readers->ready, &readers->waiting);
        ngx_queue_init(&readers->waiting);
    }

    ngx_post_event(&readers->event, &ngx_posted_events);
}


/*
 * Runs some of the ready readers; others run when other sockets were served.
 * After a round there is a pause of the same length: while posts come faster
 * than rounds end, each output has several posts, and the worker has time for
 * other requests.
 */

static void
ngx_pgq_reader_event_handler(ngx_event_t *ev)
{
    ngx_uint_t          i;
    ngx_msec_t          pause;
    ngx_queue_t        *q;
    ngx_pgq_reader_t   *rd;
    ngx_pgq_readers_t  *readers;

    readers = ev->data;
    ev->timedout = 0;

    for (i = 0; i < NGX_PGQ_READER_SLICE; i++) {

        if (ngx_queue_empty(&readers->ready)) {
            break;
        }

        q = ngx_queue_head(&readers->ready);
        rd = ngx_queue_data(q, ngx_pgq_reader_t, queue);

        ngx_pgq_reader_move(rd, &readers->waiting);
        ngx_pgq_reader_run(rd);
    }

    if (!ngx_queue_empty(&readers->ready)) {
        ngx_post_event(ev, &ngx_posted_next_events);
        return;
    }

    if (readers->round) {
        readers->round = 0;
        pause = ngx_max(ngx_current_msec - readers->began,
                        readers->n / NGX_PGQ_READER_RATE);

        if (pause > 1) {
            ngx_add_timer(ev, ngx_min(pause, NGX_PGQ_READER_PAUSE));
        }
    }

    if (readers->changed && !ev->timer_set) {
        ngx_pgq_reader_round(readers);
    }
}


void
ngx_pgq_reader_move(ngx_pgq_reader_t *rd, ngx_queue_t *list)
{
    ngx_queue_remove(&rd->queue);
    ngx_queue_insert_tail(list, &rd->queue);
}


void
ngx_pgq_reader_ready(ngx_pgq_reader_t *rd)
{
    ngx_pgq_reader_move(rd, &rd->readers->ready);
    ngx_post_event(&rd->readers->event, &ngx_posted_events);
}


/* sends what is after the cursor, until nothing is or the socket is full */

static void
ngx_pgq_reader_run(ngx_pgq_reader_t *rd)
{
    ngx_int_t   rc;
    ngx_uint_t  i;

    rc = NGX_OK;

    for (i = 0; i < NGX_PGQ_READER_STEPS && rc == NGX_OK; i++) {
        rc = ngx_pgq_delivery_step(rd);
    }

    ngx_pgq_reader_continue(rd, rc);
}


/* NGX_OK: it runs again; NGX_AGAIN: it waits; NGX_DONE: it has ended */

void
ngx_pgq_reader_continue(ngx_pgq_reader_t *rd, ngx_int_t rc)
{
    if (rc == NGX_OK) {
        ngx_pgq_reader_ready(rd);

    } else if (rc != NGX_AGAIN && rc != NGX_DONE) {
        ngx_pgq_reader_finish(rd, NGX_PGQ_READER_ERROR);
    }
}


static void
ngx_pgq_reader_write_handler(ngx_http_request_t *r)
{
    ngx_int_t          rc;
    ngx_event_t       *wev;
    ngx_pgq_ctx_t     *ctx;
    ngx_pgq_reader_t  *rd;

    ctx = ngx_http_get_module_ctx(r, ngx_http_pgq_module);
    rd = ctx->reader;
    wev = r->connection->write;

    if (wev->timedout) {
        r->connection->timedout = 1;
        ngx_pgq_reader_finish(rd, NGX_PGQ_READER_TIMEOUT);
        return;
    }

    if (!rd->blocked || wev->delayed) {

        if (ngx_handle_write_event(wev, 0) != NGX_OK) {
            ngx_pgq_reader_finish(rd, NGX_PGQ_READER_ERROR);
        }

        return;
    }

    rc = ngx_pgq_delivery_output(rd, NULL);

    if (rc == NGX_ERROR) {
        ngx_pgq_reader_finish(rd, NGX_PGQ_READER_ERROR);
        return;
    }

    if (rc == NGX_OK) {
        rd->blocked = 0;

        if (wev->timer_set) {
            ngx_del_timer(wev);
        }

        ngx_pgq_reader_ready(rd);
    }
}


static void
ngx_pgq_reader_timer_handler(ngx_event_t *ev)
{
    u_char             text[NGX_PGQ_FRAME_TEXT], *last;
    ngx_pgq_reader_t  *rd;

    rd = ev->data;

    if ((ngx_msec_int_t) (rd->end - ngx_current_msec) <= 0
        && !ngx_pgq_socket_waits(rd))
    {
        ngx_pgq_reader_finish(rd, rd->reason);
        return;
    }

    if (rd->failed && (ngx_msec_int_t) (rd->retry - ngx_current_msec) <= 0) {
        rd->failed = 0;

        if (!rd->blocked) {
            ngx_pgq_reader_ready(rd);
        }
    }

    last = ngx_pgq_frame_heartbeat(text, rd->transport, rd->cursor);

    if (last > text && rd->opened && !rd->blocked
        && (ngx_msec_int_t) (rd->sent + rd->heartbeat - ngx_current_msec) <= 0
        && ngx_pgq_delivery_text(rd, text, last) == NGX_ERROR)
    {
        ngx_pgq_reader_finish(rd, NGX_PGQ_READER_ERROR);
        return;
    }

    ngx_pgq_reader_alarm(rd);
}


/* an output does not set the timer: it is set again when it expires */

void
ngx_pgq_reader_alarm(ngx_pgq_reader_t *rd)
{
    ngx_msec_int_t  end, heartbeat;

    end = (ngx_msec_int_t) (rd->end - ngx_current_msec);
    heartbeat = (ngx_msec_int_t) (rd->sent + rd->heartbeat
                                  - ngx_current_msec);

    if (heartbeat <= 0) {
        /* it is blocked, or its transport has no heartbeats */
        heartbeat = ngx_max(rd->heartbeat, 100);
    }

    end = ngx_min(end, heartbeat);

    if (rd->failed) {
        end = ngx_min(end, (ngx_msec_int_t) (rd->retry - ngx_current_msec));
    }

    ngx_add_timer(&rd->timer, ngx_max(end, 0));
}


/* the reader ends then unless it ends before */

void
ngx_pgq_reader_end_at(ngx_pgq_reader_t *rd, ngx_msec_t end,
    ngx_pgq_reader_end_e reason)
{
    if ((ngx_msec_int_t) (rd->end - end) > 0) {
        rd->end = end;
        rd->reason = reason;
        ngx_pgq_reader_alarm(rd);
    }
}


/* ends a reader; its client, which has the id of the last post, may return */

void
ngx_pgq_reader_finish(ngx_pgq_reader_t *rd, ngx_pgq_reader_end_e reason)
{
    ngx_int_t            rc;
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = rd->request;
    c = r->connection;
    rc = NGX_ERROR;

    if (!rd->blocked && reason <= NGX_PGQ_READER_REFUSED) {

        if (rd->socket) {
            ngx_pgq_socket_close(rd->socket, reason);
        }

        rc = rd->transport == NGX_PGQ_TRANSPORT_PAGE
             ? ngx_pgq_delivery_page(rd)
             : ngx_http_send_special(r, NGX_HTTP_LAST);
    }

    ngx_pgq_reader_leave(rd, reason);
    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


static void
ngx_pgq_reader_leave(ngx_pgq_reader_t *rd, ngx_pgq_reader_end_e reason)
{
    ngx_pgq_readers_t  *readers;

    if (rd->left) {
        return;
    }

    rd->left = 1;
    readers = rd->readers;

    ngx_queue_remove(&rd->queue);

    if (rd->timer.timer_set) {
        ngx_del_timer(&rd->timer);
    }

    if (rd->asking) {
        rd->asking = 0;
        ngx_pgq_read_leave(&rd->fetch);
    }

    readers->n--;
    ngx_pgq_metrics_reader(readers->db->lane.metrics, rd->transport, -1);
    ngx_pgq_metrics_reader_end(reason);
}


static void
ngx_pgq_reader_cleanup(void *data)
{
    ngx_pgq_reader_t  *rd = data;

    ngx_pgq_reader_leave(rd, NGX_PGQ_READER_CLIENT);

    if (rd->asking) {
        ngx_pgq_read_leave(&rd->fetch);
    }

    if (rd->group) {
        ngx_pgq_frame_release(rd->group);
    }

    if (rd->next) {
        ngx_pgq_frame_release(rd->next);
    }
}
