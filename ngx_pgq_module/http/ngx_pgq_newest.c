/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the answers to GET that this worker has made from the ring of a pool.
 * They are kept until the ring changes, at most NGX_PGQ_NEWEST_ANSWERS.
 *
 * Invariants:
 *  - an answer made from the ring has the bytes and the ETag of PostgreSQL's
 *    answer to the same query at that moment;
 *  - a query gets no answer from the ring unless the ring has each post that
 *    belongs to it;
 *  - an answer does not count in db->size unless a request holds it.
 */

#include "ngx_pgq_http.h"
#include "ngx_pgq_object.h"
#include "ngx_pgq_read.h"
#include "ngx_pgq_ring.h"
#include "ngx_pgq_topic.h"


#define NGX_PGQ_NEWEST_ANSWERS   8
#define NGX_PGQ_NEWEST_SCAN      4096    /* entries, limit of one search */


/* db->http, in each worker */

typedef struct {
    uint64_t                 changes;   /* of the ring, at that time */
    ngx_pgq_answer_t        *answers[NGX_PGQ_NEWEST_ANSWERS];
    ngx_uint_t               next;      /* the answer to replace */
} ngx_pgq_newest_t;


/* an answer that is being made */

typedef struct {
    ngx_pgq_ring_t          *ring;
    ngx_pgq_ring_state_t     state;
    ngx_pgq_filter_t        *filter;
    ngx_pgq_read_query_t    *query;
    ngx_pgq_answer_t        *answer;
    size_t                   bytes;     /* of the data of its posts */
} ngx_pgq_newest_search_t;


static void ngx_pgq_newest_clear(ngx_pgq_newest_t *newest);
static ngx_pgq_answer_t *ngx_pgq_newest_find(ngx_pgq_newest_t *newest,
    ngx_pgq_read_query_t *query);
static void ngx_pgq_newest_keep(ngx_pgq_newest_t *newest,
    ngx_pgq_answer_t *answer);
static size_t ngx_pgq_newest_size(ngx_pgq_newest_search_t *s);
static ngx_int_t ngx_pgq_newest_upwards(ngx_pgq_newest_search_t *s);
static ngx_int_t ngx_pgq_newest_downwards(ngx_pgq_newest_search_t *s);
static ngx_int_t ngx_pgq_newest_add(ngx_pgq_newest_search_t *s,
    uint64_t place);


ngx_int_t
ngx_pgq_newest_init(ngx_pgq_pool_t *db, ngx_pool_t *memory)
{
    db->http = ngx_pcalloc(memory, sizeof(ngx_pgq_newest_t));

    return db->http ? NGX_OK : NGX_ERROR;
}


void
ngx_pgq_newest_exit(ngx_pgq_pool_t *db)
{
    if (db->http) {
        ngx_pgq_newest_clear(db->http);
    }
}


/*
 * Finds or makes the answer to a query.  The caller holds it at once, or does
 * not use it.  age: ms since PostgreSQL has confirmed it.  Returns
 * NGX_DECLINED if only PostgreSQL has the answer.
 */

ngx_int_t
ngx_pgq_newest_answer(ngx_pgq_pool_t *db, ngx_pgq_read_query_t *query,
    ngx_pgq_filter_t *filter, ngx_pgq_answer_t **answer, ngx_msec_t *age)
{
    ngx_msec_int_t            ms;
    ngx_pgq_newest_t         *newest;
    ngx_pgq_newest_search_t   s;

    newest = db->http;

    ngx_pgq_ring_state(db->ring, &s.state);

    if (!s.state.loaded) {
        return NGX_DECLINED;
    }

    ms = (ngx_msec_int_t) (ngx_current_msec - s.state.confirmed);
    *age = ngx_max(ms, 0);

    if (newest->changes != s.state.changes) {
        ngx_pgq_newest_clear(newest);
        newest->changes = s.state.changes;
    }

    *answer = ngx_pgq_newest_find(newest, query);

    if (*answer) {
        return NGX_OK;
    }

    s.ring = db->ring;
    s.filter = filter;
    s.query = query;
    s.bytes = 0;

    s.answer = ngx_pgq_answer_create(db->reads, query,
                                     ngx_pgq_newest_size(&s));
    if (s.answer == NULL) {
        return NGX_DECLINED;
    }

    if ((query->ascending ? ngx_pgq_newest_upwards(&s)
                          : ngx_pgq_newest_downwards(&s))
        != NGX_OK
        || ngx_pgq_answer_end(s.answer) != NGX_OK)
    {
        ngx_pgq_answer_release(s.answer);
        return NGX_DECLINED;
    }

    ngx_pgq_newest_keep(newest, s.answer);
    *answer = s.answer;

    return NGX_OK;
}


static void
ngx_pgq_newest_clear(ngx_pgq_newest_t *newest)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_PGQ_NEWEST_ANSWERS; i++) {
        if (newest->answers[i]) {
            ngx_pgq_answer_discard(newest->answers[i]);
            newest->answers[i] = NULL;
        }
    }
}


static ngx_pgq_answer_t *
ngx_pgq_newest_find(ngx_pgq_newest_t *newest, ngx_pgq_read_query_t *query)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_PGQ_NEWEST_ANSWERS; i++) {
        if (newest->answers[i]
            && ngx_pgq_answer_same(&newest->answers[i]->query, query))
        {
            return newest->answers[i];
        }
    }

    return NULL;
}


static void
ngx_pgq_newest_keep(ngx_pgq_newest_t *newest, ngx_pgq_answer_t *answer)
{
    ngx_pgq_answer_t  **slot;

    slot = &newest->answers[newest->next++ % NGX_PGQ_NEWEST_ANSWERS];

    if (*slot) {
        ngx_pgq_answer_discard(*slot);
    }

    *slot = answer;
    ngx_pgq_answer_keep(answer);
}


/* the bytes of the answer if its posts are as long as the others */

static size_t
ngx_pgq_newest_size(ngx_pgq_newest_search_t *s)
{
    size_t  n, size;

    n = s->state.end - s->state.first;

    if (n == 0) {
        return 0;
    }

    size = (s->state.used / n + 1) * ngx_min(n, (size_t) s->query->limit);

    return ngx_min(size, s->query->size);
}


static ngx_int_t
ngx_pgq_newest_upwards(ngx_pgq_newest_search_t *s)
{
    uint64_t   place, last;
    ngx_int_t  rc;

    if (s->query->id < s->state.since) {
        return NGX_DECLINED;
    }

    /* nothing after state.since was deleted */
    s->answer->complete = 1;

    place = ngx_pgq_ring_find(s->ring, &s->state, s->query->id);
    last = ngx_min(place + NGX_PGQ_NEWEST_SCAN, s->state.end);

    for ( /* void */ ; place < last; place++) {

        if (s->answer->posts.nelts == (ngx_uint_t) s->query->limit) {
            return NGX_OK;
        }

        rc = ngx_pgq_newest_add(s, place);

        if (rc != NGX_AGAIN) {
            return rc;
        }
    }

    return last == s->state.end ? NGX_OK : NGX_DECLINED;
}


static ngx_int_t
ngx_pgq_newest_downwards(ngx_pgq_newest_search_t *s)
{
    uint64_t    place;
    ngx_int_t   rc;
    ngx_uint_t  n;

    place = s->query->id
            ? ngx_pgq_ring_find(s->ring, &s->state, s->query->id - 1)
            : s->state.end;

    for (n = 0; n < NGX_PGQ_NEWEST_SCAN; n++) {

        if (s->answer->posts.nelts == (ngx_uint_t) s->query->limit) {
            return NGX_OK;
        }

        if (place == s->state.first) {
            /* whether there are older posts */
            return s->state.since <= s->state.removed ? NGX_OK : NGX_DECLINED;
        }

        place--;
        rc = ngx_pgq_newest_add(s, place);

        if (rc != NGX_AGAIN) {
            return rc;
        }
    }

    return NGX_DECLINED;
}


/*
 * Adds a post if it belongs to the query.  Returns NGX_AGAIN, or NGX_OK if the
 * answer is complete because of its size, or NGX_DECLINED.
 */

static ngx_int_t
ngx_pgq_newest_add(ngx_pgq_newest_search_t *s, uint64_t place)
{
    u_char                *p, topic[NGX_PGQ_TOPIC_MAX];
    ngx_str_t              data;
    ngx_pgq_ring_entry_t   e, head;

    if (ngx_pgq_ring_entry(s->ring, place, &e) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (s->filter) {
        head = e;
        head.len = 0;

        if (ngx_pgq_ring_copy(s->ring, place, &head, topic, topic) != NGX_OK) {
            return NGX_DECLINED;
        }

        if (!ngx_pgq_filter_admits(s->filter, topic, e.topic_len)) {
            return NGX_AGAIN;
        }
    }

    if (e.hole) {
        return NGX_DECLINED;
    }

    p = ngx_pgq_answer_add(s->answer, e.id, e.len, e.topic_len);

    if (p == NULL
        || ngx_pgq_ring_copy(s->ring, place, &e, topic, p) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    ngx_pgq_object_data(p, e.len, e.topic_len, &data);
    s->bytes += data.len;

    if (s->answer->posts.nelts > 1 && s->bytes > s->query->size) {
        ngx_pgq_answer_remove(s->answer);
        return NGX_OK;
    }

    return NGX_AGAIN;
}
