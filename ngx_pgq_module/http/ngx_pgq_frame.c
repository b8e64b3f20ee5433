/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file owns the groups of frames of a worker, each in one block of
 * memory.  The holders of a group are the readers that send it and, while it
 * is one of the latest, the cache; the last one to release it frees it.
 *
 * Invariants:
 *  - a group that can be found has every post with an id in (after, upto], in
 *    order: a reader whose cursor is there continues in it;
 *  - a group is not changed after it is made;
 *  - a group of posts that are only in PostgreSQL is found while a reader
 *    sends it, and is not kept for others: retention may delete its posts;
 *  - all groups that have holders can be found, so that there are not many
 *    more bytes of groups than of the ring, however slow the readers are.
 */

#include "ngx_pgq_http.h"
#include "ngx_pgq_frame.h"
#include "ngx_pgq_topic.h"
#include "ngx_pgq_websocket.h"


#define NGX_PGQ_FRAME_GROUP      65536   /* bytes; one frame may be larger */
#define NGX_PGQ_FRAME_POSTS      1000    /* most frames of a group */


static ngx_pgq_frame_group_t *ngx_pgq_frame_create(ngx_uint_t n, size_t size);
static void ngx_pgq_frame_share(ngx_pgq_frame_cache_t *cache,
    ngx_pgq_frame_group_t *group);
static u_char *ngx_pgq_frame_begin(ngx_pgq_frame_group_t *group, int64_t id,
    size_t len, size_t topic_len);
static void ngx_pgq_frame_end(ngx_pgq_frame_group_t *group);
static u_char *ngx_pgq_frame_head(u_char *p, ngx_uint_t transport, int64_t id,
    size_t len);


/* indexed by ngx_pgq_transport_e */

const ngx_pgq_transport_t  ngx_pgq_transports[] = {

    { "sse", ngx_string("text/event-stream"),
      sizeof("id: \ndata: \n\n") - 1 + NGX_INT64_LEN, "\n\n" },

    { "ndjson", ngx_string("application/x-ndjson"), 1, "\n" },

    /* a long poll: frames are separated by commas */

    { "page", ngx_string("application/json"), 1, "," },

    { "websocket", ngx_null_string, NGX_PGQ_WEBSOCKET_HEADER_MAX, "" }
};


_Static_assert(sizeof(ngx_pgq_transports) / sizeof(ngx_pgq_transports[0])
               == NGX_PGQ_TRANSPORTS, "each transport has a row");


void
ngx_pgq_frame_exit(ngx_pgq_frame_cache_t *cache)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_PGQ_FRAME_RECENT; i++) {
        if (cache->recent[i]) {
            ngx_pgq_frame_release(cache->recent[i]);
        }
    }
}


/*
 * Most readers are at the end: the latest group is the first.  One that was
 * made from the ring may have posts that retention has deleted since.
 */

ngx_pgq_frame_group_t *
ngx_pgq_frame_find(ngx_pgq_frame_cache_t *cache, ngx_uint_t transport,
    ngx_pgq_ring_state_t *state, int64_t cursor)
{
    ngx_queue_t            *q;
    ngx_pgq_frame_group_t  *group;

    for (q = ngx_queue_head(&cache->groups);
         q != ngx_queue_sentinel(&cache->groups);
         q = ngx_queue_next(q))
    {
        group = ngx_queue_data(q, ngx_pgq_frame_group_t, queue);

        if (group->after <= cursor && cursor < group->upto
            && group->transport == transport && group->epoch == state->epoch
            && (group->counted || group->after >= state->since))
        {
            group->holders++;
            return group;
        }
    }

    return NULL;
}


/*
 * Makes a group of the posts after the cursor.  NGX_AGAIN: there is none;
 * NGX_DONE: the next post is in the database only; NGX_DECLINED: the ring was
 * overwritten meanwhile, its state is to be read again.
 */

ngx_int_t
ngx_pgq_frame_ring(ngx_pgq_frame_cache_t *cache, ngx_uint_t transport,
    ngx_pgq_ring_t *ring, ngx_pgq_ring_state_t *state, int64_t cursor,
    ngx_pgq_frame_group_t **out)
{
    size_t                  size;
    u_char                 *p, topic[NGX_PGQ_TOPIC_MAX];
    uint64_t                first, place, end;
    ngx_pgq_ring_entry_t    e;
    ngx_pgq_frame_group_t  *group;

    first = ngx_pgq_ring_find(ring, state, cursor);
    end = ngx_min(state->end, first + NGX_PGQ_FRAME_POSTS);
    size = 0;

    for (place = first; place < end; place++) {

        if (ngx_pgq_ring_entry(ring, place, &e) != NGX_OK) {
            return NGX_DECLINED;
        }

        if (e.hole || (size && size + e.len > NGX_PGQ_FRAME_GROUP)) {
            break;
        }

        size += e.len + ngx_pgq_transports[transport].overhead;
    }

    if (place == first) {
        return place == state->end ? NGX_AGAIN : NGX_DONE;
    }

    group = ngx_pgq_frame_create(place - first, size);
    if (group == NULL) {
        return NGX_ERROR;
    }

    group->transport = transport;
    group->epoch = state->epoch;
    group->after = cursor;
    end = place;

    for (place = first; place < end; place++) {

        if (ngx_pgq_ring_entry(ring, place, &e) != NGX_OK) {
            break;
        }

        p = ngx_pgq_frame_begin(group, e.id, e.len, e.topic_len);

        if (p == NULL
            || ngx_pgq_ring_copy(ring, place, &e, topic, p) != NGX_OK)
        {
            break;
        }

        ngx_pgq_frame_end(group);
    }

    if (group->n == 0) {
        ngx_free(group);
        return NGX_DECLINED;
    }

    group->upto = place == state->end ? ngx_max(e.id, state->newest)
                                      : group->frames[group->n - 1].id;
    ngx_pgq_frame_share(cache, group);
    *out = group;

    return NGX_OK;
}


/*
 * Makes a group of the posts of an answer.  Its bytes count as those of
 * answers that clients have not read.
 */

ngx_pgq_frame_group_t *
ngx_pgq_frame_answer(ngx_pgq_frame_cache_t *cache, ngx_uint_t transport,
    uint64_t epoch, int64_t cursor, int64_t upto, ngx_pgq_answer_t *answer,
    ngx_uint_t shared)
{
    size_t                  size;
    u_char                 *p;
    ngx_uint_t              i;
    ngx_pgq_answer_post_t  *posts;
    ngx_pgq_frame_group_t  *group;

    posts = answer->posts.elts;
    size = 0;

    for (i = 0; i < answer->posts.nelts; i++) {
        size += posts[i].len + ngx_pgq_transports[transport].overhead;
    }

    group = ngx_pgq_frame_create(answer->posts.nelts, size);
    if (group == NULL) {
        return NULL;
    }

    group->transport = transport;
    group->epoch = epoch;
    group->after = cursor;
    group->upto = upto;
    group->counted = answer->db;

    for (i = 0; i < answer->posts.nelts; i++) {
        p = ngx_pgq_frame_begin(group, posts[i].id, posts[i].len,
                                posts[i].topic_len);
        ngx_memcpy(p, posts[i].object, posts[i].len);
        ngx_pgq_frame_end(group);
    }

    ngx_pgq_pool_count(group->counted, 0, size);

    if (shared) {
        ngx_queue_insert_head(&cache->groups, &group->queue);
    }

    return group;
}


/* a group without posts, which cannot be found */

ngx_pgq_frame_group_t *
ngx_pgq_frame_text(u_char *data, size_t len)
{
    ngx_pgq_frame_group_t  *group;

    group = ngx_pgq_frame_create(0, len);
    if (group == NULL) {
        return NULL;
    }

    ngx_memcpy(group->data, data, len);
    group->frames[0].begin = len;

    return group;
}


ngx_uint_t
ngx_pgq_frame_after(ngx_pgq_frame_group_t *group, int64_t cursor)
{
    ngx_uint_t  low, high, middle;

    if (group->after == cursor) {
        return 0;
    }

    low = 0;
    high = group->n;

    while (low < high) {
        middle = low + (high - low) / 2;

        if (group->frames[middle].id > cursor) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }

    return low;
}


void
ngx_pgq_frame_release(ngx_pgq_frame_group_t *group)
{
    if (--group->holders) {
        return;
    }

    if (group->counted) {
        ngx_pgq_pool_count(group->counted, 0, -(ngx_int_t) group->size);
        ngx_pgq_pool_wake(group->counted);
    }

    ngx_queue_remove(&group->queue);
    ngx_free(group);
}


static ngx_pgq_frame_group_t *
ngx_pgq_frame_create(ngx_uint_t n, size_t size)
{
    ngx_pgq_frame_group_t  *group;

    group = ngx_alloc(sizeof(ngx_pgq_frame_group_t)
                      + (n + 1) * sizeof(ngx_pgq_frame_t) + size,
                      ngx_cycle->log);
    if (group == NULL) {
        return NULL;
    }

    ngx_memzero(group, sizeof(ngx_pgq_frame_group_t));
    ngx_queue_init(&group->queue);

    group->holders = 1;
    group->size = size;
    group->frames = (ngx_pgq_frame_t *) (group + 1);
    group->frames[0].begin = 0;
    group->data = (u_char *) (group->frames + n + 1);

    return group;
}


/* the cache becomes a holder, instead of one of its oldest group */

static void
ngx_pgq_frame_share(ngx_pgq_frame_cache_t *cache, ngx_pgq_frame_group_t *group)
{
    ngx_pgq_frame_group_t  **oldest;

    group->holders++;
    ngx_queue_insert_head(&cache->groups, &group->queue);

    oldest = &cache->recent[cache->next++ % NGX_PGQ_FRAME_RECENT];

    if (*oldest) {
        ngx_pgq_frame_release(*oldest);
    }

    *oldest = group;
}


/*
 * Returns where the object is to be written; NULL: the group has no space
 * for it.
 */

static u_char *
ngx_pgq_frame_begin(ngx_pgq_frame_group_t *group, int64_t id, size_t len,
    size_t topic_len)
{
    u_char           *p;
    size_t            overhead;
    ngx_pgq_frame_t  *frame;

    frame = &group->frames[group->n];
    overhead = ngx_pgq_transports[group->transport].overhead;

    if (frame->begin + overhead + len > group->size) {
        return NULL;
    }

    p = ngx_pgq_frame_head(group->data + frame->begin, group->transport, id,
                           len);

    frame->id = id;
    frame->object = p - group->data;
    frame->len = len;
    frame->topic_len = topic_len;
    group->topics += (topic_len != 0);

    return p;
}


/*
 * The object is written.  A line break in it is white space: a string of JSON
 * contains none.
 */

static void
ngx_pgq_frame_end(ngx_pgq_frame_group_t *group)
{
    size_t            len;
    u_char           *p, *last;
    const char       *tail;
    ngx_pgq_frame_t  *frame;

    frame = &group->frames[group->n++];
    p = group->data + frame->object;
    last = p + frame->len;

    for (p = memchr(p, LF, last - p); p; p = memchr(p, LF, last - p)) {
        *p = ' ';
    }

    p = group->data + frame->object;

    for (p = memchr(p, CR, last - p); p; p = memchr(p, CR, last - p)) {
        *p = ' ';
    }

    tail = ngx_pgq_transports[group->transport].tail;
    len = ngx_strlen(tail);

    ngx_memcpy(last, tail, len);
    group->frames[group->n].begin = last + len - group->data;
}


static u_char *
ngx_pgq_frame_head(u_char *p, ngx_uint_t transport, int64_t id, size_t len)
{
    switch (transport) {

    case NGX_PGQ_TRANSPORT_SSE:
        return ngx_sprintf(p, "id: %L\ndata: ", id);

    case NGX_PGQ_TRANSPORT_WEBSOCKET:
        return ngx_pgq_websocket_header(p, NGX_PGQ_WEBSOCKET_TEXT, len);

    default:
        return p;
    }
}


/* clients that lose their connections at the same time return over 3 s */

u_char *
ngx_pgq_frame_open(u_char *p, ngx_uint_t transport)
{
    if (transport != NGX_PGQ_TRANSPORT_SSE) {
        return p;
    }

    return ngx_sprintf(p, "retry: %ui\n\n",
                       (ngx_uint_t) (2000 + ngx_random() % 3001));
}


/* without data no event is dispatched, but the client keeps the id */

u_char *
ngx_pgq_frame_start(u_char *p, ngx_uint_t transport, int64_t cursor)
{
    if (transport != NGX_PGQ_TRANSPORT_SSE) {
        return p;
    }

    return ngx_sprintf(p, "id: %L\n\n", cursor);
}


u_char *
ngx_pgq_frame_heartbeat(u_char *p, ngx_uint_t transport, int64_t cursor)
{
    switch (transport) {

    case NGX_PGQ_TRANSPORT_SSE:
        return cursor < 0 ? ngx_sprintf(p, ":\n\n")
                          : ngx_sprintf(p, ":\nid: %L\n\n", cursor);

    case NGX_PGQ_TRANSPORT_NDJSON:
        *p++ = LF;
        return p;

    case NGX_PGQ_TRANSPORT_WEBSOCKET:
        return ngx_pgq_websocket_header(p, NGX_PGQ_WEBSOCKET_PING, 0);

    default:
        return p;
    }
}


u_char *
ngx_pgq_frame_reset(u_char *p, ngx_uint_t transport, ngx_pgq_reset_e reason,
    int64_t oldest, int64_t newest)
{
    size_t  len;
    u_char  object[NGX_PGQ_FRAME_TEXT];

    static const char  *reasons[] = { "expired", "ahead", "unknown" };

    (void) ngx_sprintf(object,
                       "{\"reason\":\"%s\",\"oldest\":%L,\"newest\":%L}%Z",
                       reasons[reason], oldest, newest);

    switch (transport) {

    case NGX_PGQ_TRANSPORT_SSE:
        return ngx_sprintf(p, "event: reset\nid: %L\ndata: %s\n\n", newest,
                           object);

    case NGX_PGQ_TRANSPORT_PAGE:
        return ngx_sprintf(p, "{\"msg\":[],\"next\":%L,\"reset\":%s}", newest,
                           object);

    case NGX_PGQ_TRANSPORT_WEBSOCKET:
        len = sizeof("{\"reset\":}") - 1 + ngx_strlen(object);
        p = ngx_pgq_websocket_header(p, NGX_PGQ_WEBSOCKET_TEXT, len);

        return ngx_sprintf(p, "{\"reset\":%s}", object);

    default:
        return ngx_sprintf(p, "{\"reset\":%s}\n", object);
    }
}
