/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the POSTs whose message is queued and whose client waits until it is a
 * post (Prefer: wait, RFC 7240 4.3): it looks for their message ids among the
 * new entries of the ring.
 *
 * Invariants:
 *  - a request is in the tree of its pool from ngx_pgq_await_start() on, until
 *    it is answered or ends;
 *  - entries before await->place were compared with all requests in the tree;
 *  - a request that waits counts in writes->unread with its message and its
 *    memory, so that requests without a ticket are limited, too.
 */

#include "ngx_pgq_enqueue.h"
#include "ngx_pgq_ring.h"


#define NGX_PGQ_AWAIT_REQUEST    4096    /* bytes, memory of a request */


/* of a pool, in this worker */

typedef struct {
    ngx_pgq_pool_t          *db;
    ngx_pgq_ring_listener_t  listener;
    ngx_rbtree_t             tree;      /* by message id */
    ngx_rbtree_node_t        sentinel;
    uint64_t                 place;     /* of the ring */
} ngx_pgq_await_t;


typedef struct {
    ngx_str_node_t           sn;        /* the first field */
    ngx_pgq_await_t         *await;
    ngx_pgq_enqueue_t       *e;
    ngx_event_t              timer;
    size_t                   len;       /* bytes counted in writes->unread */
    unsigned                 waiting:1;
} ngx_pgq_await_request_t;


static int64_t ngx_pgq_await_search(ngx_pgq_await_t *await, uint64_t place,
    u_char *message_id);
static void ngx_pgq_await_changed(ngx_pgq_ring_listener_t *l);
static void ngx_pgq_await_timer_handler(ngx_event_t *ev);
static void ngx_pgq_await_answer(ngx_pgq_await_request_t *a, int64_t post);
static void ngx_pgq_await_cleanup(void *data);


ngx_int_t
ngx_pgq_await_init(ngx_pgq_pool_t *db, ngx_pool_t *memory)
{
    ngx_pgq_await_t  *await;

    await = ngx_pcalloc(memory, sizeof(ngx_pgq_await_t));
    if (await == NULL) {
        return NGX_ERROR;
    }

    await->db = db;
    ngx_rbtree_init(&await->tree, &await->sentinel,
                    ngx_str_rbtree_insert_value);

    await->listener.changed = ngx_pgq_await_changed;
    await->listener.data = await;

    ngx_pgq_ring_listen(db->ring, &await->listener);

    return NGX_OK;
}


/*
 * Waits for the post of a queued message.  NGX_AGAIN: the request is answered
 * later; else it is to be answered now, with *post, if that is not 0.
 */

ngx_int_t
ngx_pgq_await_start(ngx_pgq_enqueue_t *e, int64_t *post)
{
    size_t                    len;
    ngx_pgq_await_t          *await;
    ngx_msec_int_t            rest;
    ngx_pgq_writes_t         *writes;
    ngx_pool_cleanup_t       *cln;
    ngx_pgq_ring_state_t      state;
    ngx_pgq_await_request_t  *a;

    await = ngx_pgq_ring_listening(e->ticket.base.db->ring,
                                   ngx_pgq_await_changed);

    /* entries that come during the search are compared again later */

    if (await->tree.root == await->tree.sentinel) {
        ngx_pgq_ring_state(await->db->ring, &state);
        await->place = state.end;
    }

    *post = ngx_pgq_await_search(await, e->place, e->ticket.id);

    rest = (ngx_msec_int_t) (e->ticket.base.start + e->wait * 1000
                             - ngx_current_msec);
    writes = ngx_pgq_writes(e->ticket.base.db);
    len = e->ticket.len + NGX_PGQ_AWAIT_REQUEST;

    if (*post || rest <= 0 || ngx_exiting
        || writes->unread + len > e->ticket.base.db->unread_size)
    {
        return NGX_OK;
    }

    cln = ngx_pool_cleanup_add(e->request->pool,
                               sizeof(ngx_pgq_await_request_t));
    if (cln == NULL) {
        return NGX_OK;
    }

    a = cln->data;
    ngx_memzero(a, sizeof(ngx_pgq_await_request_t));
    cln->handler = ngx_pgq_await_cleanup;

    a->await = await;
    a->e = e;
    a->len = len;
    a->waiting = 1;
    a->sn.str.data = e->ticket.id;
    a->sn.str.len = NGX_PGQ_UUID_LEN;
    a->timer.handler = ngx_pgq_await_timer_handler;
    a->timer.data = a;
    a->timer.log = e->request->connection->log;

    writes->unread += len;
    ngx_rbtree_insert(&await->tree, &a->sn.node);
    ngx_add_timer(&a->timer, (ngx_msec_t) rest);

    return NGX_AGAIN;
}


/* returns the id of the post, if it is in the ring from this place on, or 0 */

static int64_t
ngx_pgq_await_search(ngx_pgq_await_t *await, uint64_t place,
    u_char *message_id)
{
    ngx_pgq_ring_entry_t  entry;
    ngx_pgq_ring_state_t  state;

    ngx_pgq_ring_state(await->db->ring, &state);

    for (place = ngx_max(place, state.first); place < state.end; place++) {

        if (ngx_pgq_ring_entry(await->db->ring, place, &entry) == NGX_OK
            && ngx_memcmp(entry.message_id, message_id, NGX_PGQ_UUID_LEN) == 0)
        {
            return entry.id;
        }
    }

    return 0;
}


static void
ngx_pgq_await_changed(ngx_pgq_ring_listener_t *l)
{
    ngx_str_t              id;
    ngx_str_node_t        *sn;
    ngx_pgq_await_t       *await;
    ngx_pgq_ring_entry_t   entry;
    ngx_pgq_ring_state_t   state;

    await = l->data;
    id.data = entry.message_id;
    id.len = NGX_PGQ_UUID_LEN;

    ngx_pgq_ring_state(await->db->ring, &state);
    await->place = ngx_max(await->place, state.first);

    while (await->tree.root != await->tree.sentinel
           && await->place < state.end)
    {
        if (ngx_pgq_ring_entry(await->db->ring, await->place++, &entry)
            != NGX_OK)
        {
            continue;
        }

        /* requests with the same key wait for the same message */

        for ( ;; ) {
            sn = ngx_str_rbtree_lookup(&await->tree, &id, 0);

            if (sn == NULL) {
                break;
            }

            ngx_pgq_await_answer((ngx_pgq_await_request_t *) sn, entry.id);
        }
    }

    while (ngx_exiting && await->tree.root != await->tree.sentinel) {
        ngx_pgq_await_answer((ngx_pgq_await_request_t *) await->tree.root, 0);
    }
}


static void
ngx_pgq_await_timer_handler(ngx_event_t *ev)
{
    ngx_pgq_await_answer(ev->data, 0);
}


static void
ngx_pgq_await_answer(ngx_pgq_await_request_t *a, int64_t post)
{
    ngx_pgq_await_cleanup(a);
    ngx_pgq_outcome_send(a->e, post);
}


static void
ngx_pgq_await_cleanup(void *data)
{
    ngx_pgq_await_request_t  *a = data;

    if (!a->waiting) {
        return;
    }

    a->waiting = 0;
    ngx_pgq_writes(a->await->db)->unread -= a->len;
    ngx_rbtree_delete(&a->await->tree, &a->sn.node);

    if (a->timer.timer_set) {
        ngx_del_timer(&a->timer);
    }
}
