/* SPDX-License-Identifier: PostgreSQL */

/*
 * The ring in one process: what is kept, found and dropped.
 */

#include "ring_posts.h"


/* The bytes of a post in the ring. */

static size_t
stored_len(int64_t id)
{
    u_char  topic[32];

    return topic_of(id, topic) + (is_hole(id) ? 0 : object_len(id));
}


/* The place that a search from the first entry on finds. */

static uint64_t
linear(ngx_pgq_ring_state_t *state, int64_t after)
{
    uint64_t              place;
    ngx_pgq_ring_entry_t  e;

    for (place = state->first; place < state->end; place++) {
        if (ngx_pgq_ring_entry(&ring, place, &e) == NGX_OK && e.id > after) {
            break;
        }
    }

    return place;
}


static void
test_sequence(void)
{
    int                   same, full, good;
    int64_t               id, after;
    ngx_uint_t            holes, drops;
    ngx_pgq_ring_state_t  before, state;

    new_ring(SIZE, POSTS);

    ngx_pgq_ring_state(&ring, &state);
    ok(state.first == state.end && state.newest == 0 && !state.loaded,
       "a new ring is empty and not loaded");
    ok(append(1) == NGX_DECLINED, "only the follower may write");
    ok(ngx_pgq_ring_take(&ring, 0) == NGX_OK, "a ring without follower is"
       " taken");

    same = full = good = 1;
    holes = drops = 0;

    for (id = 1; id <= 20000; id++) {
        ngx_pgq_ring_state(&ring, &before);

        if (append(id) != NGX_OK) {
            good = 0;
        }

        ngx_pgq_ring_state(&ring, &state);
        holes += is_hole(id);
        drops += state.first - before.first;

        /* the post that was dropped last would still have had its place */

        if (state.first != before.first && state.end - state.first < POSTS
            && state.used + stored_len(state.since) <= SIZE)
        {
            full = 0;
        }

        good = good && state.newest == id && state.end == before.end + 1;

        if (id % 50 == 0) {
            after = state.since - 2 + chance(state.end - state.first + 4);

            same = same && ngx_pgq_ring_find(&ring, &state, after)
                           == linear(&state, after);
            good = good && whole();
        }
    }

    ok(good, "20000 posts of all sizes: the ring has the newest ones");
    ok(same, "find() agrees with a linear search");
    ok(full, "a post is dropped only if its place is needed");
    ok(holes > 100 && drops > 10000, "%d posts were holes, %d were dropped",
       (int) holes, (int) drops);

    ngx_pgq_ring_state(&ring, &before);
    ok(append(20000) == NGX_OK && append(7) == NGX_OK,
       "ids that are not greater are accepted");
    ngx_pgq_ring_state(&ring, &state);
    ok(state.end == before.end, "... and ignored");
}


static void
test_state(void)
{
    int64_t               id;
    uint64_t              place;
    ngx_pgq_ring_entry_t  e;
    ngx_pgq_ring_state_t  state;

    new_ring(SIZE, POSTS);
    (void) ngx_pgq_ring_take(&ring, 0);

    (void) ngx_pgq_ring_start(&ring, 100);

    for (id = 100; id < 110; id++) {
        (void) append(id);
    }

    ngx_pgq_ring_state(&ring, &state);
    ok(state.since == 99 && state.newest == 109 && !state.loaded && whole(),
       "a ring that starts at a post is complete from it on");

    (void) ngx_pgq_ring_confirm(&ring, 109, 0, 5);
    ngx_pgq_ring_state(&ring, &state);
    ok(state.loaded && state.confirmed == 5 && state.newest == 109,
       "it is loaded when all posts are confirmed");

    place = state.first;
    (void) ngx_pgq_ring_confirm(&ring, 109, 104, 6);
    ngx_pgq_ring_state(&ring, &state);
    ok(state.since == 104 && state.removed == 104
       && state.end - state.first == 5 && whole(),
       "posts that retention has removed cannot be read");
    ok(ngx_pgq_ring_entry(&ring, place, &e) == NGX_DECLINED,
       "... not by their places either");
    ok(ngx_pgq_ring_entry(&ring, state.end, &e) == NGX_DECLINED,
       "an entry that does not exist yet cannot be read");

    (void) ngx_pgq_ring_start(&ring, 107);
    ngx_pgq_ring_state(&ring, &state);
    ok(state.since == 104 && state.end - state.first == 5,
       "a start before the newest post drops nothing");

    (void) ngx_pgq_ring_start(&ring, 200);
    (void) append(200);
    ngx_pgq_ring_state(&ring, &state);
    ok(state.since == 199 && state.end - state.first == 1 && state.epoch == 0
       && whole(), "a start after a gap drops what is before it");

    (void) ngx_pgq_ring_confirm(&ring, 200, 200, 7);
    ngx_pgq_ring_state(&ring, &state);
    ok(state.first == state.end && state.since == 200 && state.newest == 200
       && state.used == 0, "all posts may be removed");

    place = state.end;
    (void) append(201);
    (void) ngx_pgq_ring_reset(&ring, 9);
    ngx_pgq_ring_state(&ring, &state);
    ok(state.first == state.end && state.epoch == 1 && state.newest == 0
       && state.revision == 9
       && state.removed == 0 && !state.loaded, "a reset drops all posts and increases the epoch");
    ok(ngx_pgq_ring_entry(&ring, place, &e) == NGX_DECLINED,
       "the places of before the reset cannot be read");

    (void) ngx_pgq_ring_start(&ring, 3);
    (void) append(3);
    ngx_pgq_ring_state(&ring, &state);
    ok(state.since == 2 && state.newest == 3 && whole(),
       "smaller ids can follow a reset");

    ngx_pgq_ring_leave(&ring);
    ok(append(4) == NGX_DECLINED && ngx_pgq_ring_follower(&ring) == 0,
       "a follower that has left cannot write");
}


static void
test_small(void)
{
    int64_t               id;
    ngx_pgq_ring_state_t  state;

    new_ring(8, 4);
    (void) ngx_pgq_ring_take(&ring, 0);

    for (id = 3; id <= 300; id += 3) {
        (void) append(id);
    }

    ngx_pgq_ring_state(&ring, &state);
    ok(state.end - state.first == 4 && state.newest == 300,
       "a ring smaller than a post has holes");
}


static int64_t
version_of(const char *name)
{
    ngx_str_t               topic;
    ngx_pgq_ring_version_t  version;

    topic.data = (u_char *) name;
    topic.len = strlen(name);

    ngx_pgq_ring_version(&ring, topic.len ? &topic : NULL, &version);

    return version.created ? -1 : version.newest;
}


static void
test_version(void)
{
    int64_t                 id;
    ngx_pgq_ring_version_t  version;

    new_ring(SIZE, POSTS);
    (void) ngx_pgq_ring_take(&ring, 0);

    ngx_pgq_ring_version(&ring, NULL, &version);
    ok(version.created > 1700000000000, "the version of a ring without posts"
       " is the time of its creation");

    (void) ngx_pgq_ring_reset(&ring, 5);
    (void) ngx_pgq_ring_start(&ring, 100);
    (void) append(100);
    ok(version_of("") == -1 && version_of("t/100") == -1,
       "posts that are not confirmed do not change it");

    (void) ngx_pgq_ring_confirm(&ring, 100, 0, 1);
    ngx_pgq_ring_version(&ring, NULL, &version);
    ok(version.created == 0 && version.revision == 5 && version.newest == 100,
       "it is the revision and the newest id that was confirmed");
    ok(version_of("t/100") == 100, "a topic has its newest id");
    ok(version_of("other") == 99, "a topic that is not in the ring has the id"
       " before its first post");

    for (id = 101; id <= 400; id++) {
        (void) append(id);
    }

    ok(version_of("") == 100, "the version stands still until posts are"
       " confirmed");
    (void) ngx_pgq_ring_confirm(&ring, 400, 0, 2);
    ok(version_of("") == 400 && version_of("t/400") == 400
       && version_of("t/101") == 101 && version_of("other") == 99,
       "topics keep their ids when the ring has dropped their posts");

    (void) ngx_pgq_ring_reset(&ring, 6);
    ngx_pgq_ring_version(&ring, NULL, &version);
    ok(version.revision == 5 && version.newest == 400
       && version_of("t/101") == 400,
       "during a reset all topics have the version of before");

    (void) ngx_pgq_ring_start(&ring, 50);
    (void) append(50);
    (void) ngx_pgq_ring_confirm(&ring, 50, 0, 3);
    ngx_pgq_ring_version(&ring, NULL, &version);
    ok(version.revision == 6 && version.newest == 50
       && version_of("t/101") == 49 && version_of("t/50") == 50,
       "a reset forgets the ids of topics");
}


int
main(void)
{
    posts_init();

    test_sequence();
    test_state();
    test_version();
    test_small();

    return tap_done();
}
