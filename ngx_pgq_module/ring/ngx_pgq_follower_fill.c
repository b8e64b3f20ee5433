/* SPDX-License-Identifier: PostgreSQL */

/*
 * The question of the follower, and how its answer gets into the ring and is
 * announced to the other workers.
 *
 * Invariants:
 *  - a notification is a hint, never data: the follower asks for the posts
 *    after the ring's newest one, and asks at each poll as well;
 *  - rows go into the ring as they arrive, in the order of ids;
 *  - the ring is confirmed when all posts up to the head of the answer are in
 *    it.  If posts come faster than answers can bring them, it is confirmed
 *    for the time of an earlier answer, when it has all posts of that time;
 *  - the ring reads its posts again if the revision of posts is another one,
 *    or if the database has smaller ids only than the ring.  It keeps the old
 *    ones until the database answers;
 *  - of an answer that the ring did not take as a whole, nothing is confirmed:
 *    the next poll asks for the rest.
 */

#include "ngx_pgq_follower.h"
#include "ngx_pgq_bell.h"
#include "ngx_pgq_object.h"


#define NGX_PGQ_FOLLOWER_MOST    1000    /* posts of one answer */


static void ngx_pgq_follower_notified(ngx_pgq_pool_t *db,
    const char *payload);
static ngx_pgq_call_t *ngx_pgq_follower_next(ngx_pgq_pool_t *db);
static ngx_int_t ngx_pgq_follower_encode(ngx_pgq_call_t *call);
static void ngx_pgq_follower_row(ngx_pgq_call_t *call, ngx_str_t *fields);
static void ngx_pgq_follower_head(ngx_pgq_follower_t *f, ngx_str_t *fields);
static void ngx_pgq_follower_done(ngx_pgq_call_t *call,
    ngx_pgq_outcome_e outcome);
static void ngx_pgq_follower_complete(ngx_pgq_follower_t *f);
static void ngx_pgq_follower_reset(ngx_pgq_follower_t *f);


static ngx_pgq_source_t  ngx_pgq_follower_source = {
    ngx_pgq_follower_next,
    NULL,
    NULL,
    ngx_pgq_follower_notified
};


void
ngx_pgq_follower_fill_init(ngx_pgq_follower_t *f)
{
    f->db->source = &ngx_pgq_follower_source;
    f->db->data = f;

    f->call.statement = NGX_PGQ_FOLLOW;
    f->call.read = 1;
    f->call.encode = ngx_pgq_follower_encode;
    f->call.row = ngx_pgq_follower_row;
    f->call.done = ngx_pgq_follower_done;
    f->call.data = f;
}


void
ngx_pgq_follower_fill_ask(ngx_pgq_follower_t *f)
{
    f->due = 1;
    ngx_pgq_pool_wake(f->db);
}


/* all: also those of workers that do not wait for new posts */

void
ngx_pgq_follower_fill_ring_bells(ngx_pgq_follower_t *f, ngx_uint_t all)
{
    ngx_uint_t  i, n, armed;

    n = ngx_pgq_bell_count();

    for (i = 0; i < n; i++) {
        armed = ngx_pgq_ring_disarm(&f->ring, i);

        if ((armed || all) && i != (ngx_uint_t) ngx_process_slot) {
            ngx_pgq_bell_ring(i);
        }
    }

    ngx_post_event(&f->changed, &ngx_posted_events);
}


static void
ngx_pgq_follower_notified(ngx_pgq_pool_t *db, const char *payload)
{
    ngx_pgq_follower_fill_ask(db->data);
}


static ngx_pgq_call_t *
ngx_pgq_follower_next(ngx_pgq_pool_t *db)
{
    ngx_pgq_follower_t  *f;

    f = db->data;

    if (!f->following || !f->due || f->sent) {
        return NULL;
    }

    f->due = 0;
    f->sent = 1;
    f->last = 0;
    f->reset = 0;
    f->skip = 0;

    return &f->call;
}


static ngx_int_t
ngx_pgq_follower_encode(ngx_pgq_call_t *call)
{
    ngx_pgq_follower_t    *f;
    ngx_pgq_ring_state_t   state;

    f = call->data;

    ngx_pgq_ring_state(&f->ring, &state);

    f->asked = ngx_current_msec;
    f->after = htobe64((uint64_t) state.newest);
    f->most = htonl(NGX_PGQ_FOLLOWER_MOST);
    f->size = htonl((uint32_t) f->posts->answer_size);
    f->newest = htonl((uint32_t) f->ring.posts);

    call->values[0] = f->loading && f->loaded == 0 ? NULL : (char *) &f->after;
    call->lengths[0] = sizeof(f->after);
    call->values[1] = (char *) &f->most;
    call->lengths[1] = sizeof(f->most);
    call->values[2] = (char *) &f->size;
    call->lengths[2] = sizeof(f->size);
    call->values[3] = (char *) &f->newest;
    call->lengths[3] = sizeof(f->newest);

    return NGX_OK;
}


static void
ngx_pgq_follower_row(ngx_pgq_call_t *call, ngx_str_t *fields)
{
    u_char                *uuid, message_id[NGX_PGQ_UUID_LEN];
    int64_t                id;
    ngx_str_t              pieces[NGX_PGQ_OBJECT_PIECES];
    ngx_pgq_follower_t    *f;
    ngx_pgq_object_row_t   row;

    f = call->data;

    if (fields[NGX_PGQ_FOLLOWER_ID].data == NULL) {
        ngx_pgq_follower_head(f, fields);
        return;
    }

    if (f->reset || f->skip) {
        return;
    }

    row.id = fields[NGX_PGQ_FOLLOWER_ID];
    row.at = fields[NGX_PGQ_FOLLOWER_AT];
    row.data = fields[NGX_PGQ_FOLLOWER_DATA];
    row.topic = fields[NGX_PGQ_FOLLOWER_TOPIC];

    ngx_pgq_object_check(&row);

    id = ngx_atoof(row.id.data, row.id.len);
    uuid = fields[NGX_PGQ_FOLLOWER_MESSAGE_ID].data;

    if (uuid == NULL || ngx_pgq_uuid_read(message_id, uuid) != 0) {
        ngx_memzero(message_id, NGX_PGQ_UUID_LEN);
    }

    if ((f->loading && f->loaded == 0
         && ngx_pgq_ring_start(&f->ring, id) != NGX_OK)
        || ngx_pgq_ring_append(&f->ring, id, message_id, &row.topic, pieces,
                               ngx_pgq_object_pieces(&row, pieces))
           != NGX_OK)
    {
        f->skip = 1;
        return;
    }

    /* posts with which the ring begins have been there before */

    if (f->last == 0 && f->delay >= 0 && !f->loading) {
        ngx_pgq_metrics_observe(NGX_PGQ_METRICS_RING_SECONDS,
                                f->delay + ngx_current_msec - f->asked);
    }

    f->last = id;
    f->loaded++;
}


/*
 * The first row: what the database knows of all posts.  If the question was
 * for the newest ones, the rows that follow replace those of the ring.
 */

static void
ngx_pgq_follower_head(ngx_pgq_follower_t *f, ngx_str_t *fields)
{
    int64_t               revision;
    ngx_pgq_ring_state_t  state;

    f->head = ngx_atoof(fields[NGX_PGQ_FOLLOWER_HEAD].data,
                        fields[NGX_PGQ_FOLLOWER_HEAD].len);
    f->removed = ngx_atoof(fields[NGX_PGQ_FOLLOWER_REMOVED].data,
                           fields[NGX_PGQ_FOLLOWER_REMOVED].len);
    f->delay = ngx_atoof(fields[NGX_PGQ_FOLLOWER_DELAY].data,
                         fields[NGX_PGQ_FOLLOWER_DELAY].len);

    revision = ngx_atoof(fields[NGX_PGQ_FOLLOWER_REVISION].data,
                         fields[NGX_PGQ_FOLLOWER_REVISION].len);

    if (f->loading && f->loaded == 0) {
        f->skip = ngx_pgq_ring_reset(&f->ring, revision) != NGX_OK;
        return;
    }

    ngx_pgq_ring_state(&f->ring, &state);

    f->reset = f->head < state.newest || revision != state.revision;
}


static void
ngx_pgq_follower_done(ngx_pgq_call_t *call, ngx_pgq_outcome_e outcome)
{
    ngx_pgq_follower_t  *f;

    f = call->data;
    f->sent = 0;

    if (outcome == NGX_PGQ_DONE) {

        if (f->reset) {
            ngx_pgq_follower_reset(f);

        } else if (!f->skip) {
            ngx_pgq_follower_complete(f);
        }

        return;
    }

    if (outcome == NGX_PGQ_AGAIN || outcome == NGX_PGQ_UNKNOWN) {
        ngx_pgq_follower_fill_ask(f);
        return;
    }

    /* the next poll asks again */

    if (f->logged_at == 0
        || ngx_pgq_seconds() - f->logged_at >= NGX_PGQ_LOG_INTERVAL)
    {
        f->logged_at = ngx_pgq_seconds();
        ngx_log_error(NGX_LOG_ERR, f->posts->lane.log, 0,
                      "pgq follower: could not read posts: %V (%s), pool"
                      " \"%V\"", &call->error_text, call->sqlstate,
                      &f->ring.name);
    }
}


static void
ngx_pgq_follower_complete(ngx_pgq_follower_t *f)
{
    ngx_pgq_ring_state_t  state;

    if (f->last && f->last < f->head) {

        /* the answer had no place for more posts */

        if (f->behind && f->last >= f->behind && !f->loading) {
            (void) ngx_pgq_ring_confirm(&f->ring, f->last, f->removed,
                                        f->behind_at);
            f->behind = 0;
        }

        if (f->behind == 0) {
            f->behind = f->head;
            f->behind_at = ngx_current_msec;
        }

        ngx_pgq_follower_fill_ring_bells(f, 0);
        ngx_pgq_follower_fill_ask(f);
        return;
    }

    f->behind = 0;

    if (f->loading) {
        f->loading = 0;

        ngx_pgq_ring_state(&f->ring, &state);

        if (f->loaded < f->ring.posts && state.end - state.first == f->loaded)
        {
            (void) ngx_pgq_ring_whole(&f->ring, f->removed);
        }
    }

    /* the next poll finds out if another worker has taken over */

    (void) ngx_pgq_ring_confirm(&f->ring, f->head, f->removed,
                                ngx_current_msec);

    ngx_pgq_ring_state(&f->ring, &state);

    if (state.changes != f->version) {
        ngx_pgq_follower_fill_ring_bells(f, 0);
    }
}


static void
ngx_pgq_follower_reset(ngx_pgq_follower_t *f)
{
    ngx_log_error(NGX_LOG_NOTICE, f->posts->lane.log, 0,
                  "pgq ring: reset, reading all posts again, pool \"%V\"",
                  &f->ring.name);

    ngx_pgq_metrics_ring(f->posts->lane.metrics, NGX_PGQ_METRICS_RING_RESETS);

    f->loading = 1;
    f->loaded = 0;
    f->behind = 0;

    ngx_pgq_follower_fill_ask(f);
}
