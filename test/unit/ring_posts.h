/* SPDX-License-Identifier: PostgreSQL */

/*
 * Posts for the tests of the ring.  Each can be checked alone: its topic, its
 * length and its bytes follow from its id.
 */

#ifndef RING_POSTS_H
#define RING_POSTS_H


#include "ngx_pgq_ring.h"
#include "tap.h"

#include <sys/mman.h>


#define POSTS      64
#define SIZE       16384
#define LARGEST    (SIZE / 4)
#define POLL       1000


ngx_pid_t  ngx_pid;


/* Shared by all processes: what the readers found. */

typedef struct {
    uint64_t  stop;
    uint64_t  objects;      /* read and checked */
    uint64_t  overwritten;
    uint64_t  bad;
    int       why;          /* line of the first bad finding */
} found_t;


static found_t        *found;
static ngx_pgq_ring_t  ring;
static uint32_t        seed = 1;


static uint32_t
chance(uint32_t n)
{
    seed = seed * 1664525 + 1013904223;

    return (seed >> 8) % n;
}


static void
new_ring(size_t size, ngx_uint_t posts)
{
    void  *memory;

    memory = mmap(NULL, ngx_pgq_ring_memory_size(size, posts),
                  PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1, 0);

    ring.size = size;
    ring.posts = posts;
    ring.poll = POLL;

    ngx_pgq_ring_create(&ring, memory);
}


/* Sizes: many small ones, some about the largest, some too large. */

static size_t
object_len(int64_t id)
{
    uint32_t  h;

    h = (uint32_t) id * 2654435761u >> 8;

    switch (h % 16) {

    case 0:
        return LARGEST - 8 + h / 16 % 16;

    case 1:
        return LARGEST + h / 16 % LARGEST;

    case 2:
        return h / 16 % LARGEST;

    default:
        return 1 + h / 16 % 200;
    }
}


static u_char
object_byte(int64_t id, size_t i)
{
    return (u_char) ((uint64_t) id >> i % 8 * 8) ^ (u_char) (i >> 3);
}


static size_t
topic_of(int64_t id, u_char *topic)
{
    return id % 3 ? sprintf((char *) topic, "t/%lld", (long long) id) : 0;
}


static void
message_id_of(int64_t id, u_char *message_id)
{
    size_t  i;

    for (i = 0; i < NGX_PGQ_UUID_LEN; i++) {
        message_id[i] = object_byte(id, 8 * i);
    }
}


static ngx_int_t
append(int64_t id)
{
    u_char     topic[32], object[SIZE], message_id[NGX_PGQ_UUID_LEN];
    size_t     i, len;
    ngx_str_t  name, pieces[3];

    len = object_len(id);

    for (i = 0; i < len; i++) {
        object[i] = object_byte(id, i);
    }

    name.data = topic;
    name.len = topic_of(id, topic);

    pieces[0].data = object;
    pieces[0].len = len / 3;
    pieces[1].data = object + len / 3;
    pieces[1].len = 0;
    pieces[2].data = object + len / 3;
    pieces[2].len = len - len / 3;

    message_id_of(id, message_id);

    return ngx_pgq_ring_append(&ring, id, message_id, &name, pieces, 3);
}


static int
is_hole(int64_t id)
{
    u_char  topic[32];

    return topic_of(id, topic) + object_len(id) > ring.size / 4;
}


static int
bad(int line)
{
    if (__atomic_fetch_add(&found->bad, 1, __ATOMIC_RELAXED) == 0) {
        found->why = line;
    }

    return 0;
}


/* Whether the entry at this place is whole, or was overwritten. */

static int
check(uint64_t place, int64_t *id)
{
    u_char                topic[256], name[32], object[SIZE];
    u_char                message_id[NGX_PGQ_UUID_LEN];
    size_t                i;
    ngx_pgq_ring_entry_t  e;

    *id = 0;

    if (ngx_pgq_ring_entry(&ring, place, &e) != NGX_OK) {
        __atomic_fetch_add(&found->overwritten, 1, __ATOMIC_RELAXED);
        return 1;
    }

    if (e.topic_len > sizeof(topic) || e.len > sizeof(object)) {
        return bad(__LINE__);
    }

    if (ngx_pgq_ring_copy(&ring, place, &e, topic, object) != NGX_OK) {
        __atomic_fetch_add(&found->overwritten, 1, __ATOMIC_RELAXED);
        return 1;
    }

    *id = e.id;
    message_id_of(e.id, message_id);

    if (e.hole != is_hole(e.id)
        || e.len != (e.hole ? 0 : object_len(e.id))
        || e.topic_len != topic_of(e.id, name)
        || memcmp(topic, name, e.topic_len) != 0
        || memcmp(e.message_id, message_id, sizeof(message_id)) != 0)
    {
        return bad(__LINE__);
    }

    for (i = 0; i < e.len; i++) {
        if (object[i] != object_byte(e.id, i)) {
            return bad(__LINE__);
        }
    }

    __atomic_fetch_add(&found->objects, 1, __ATOMIC_RELAXED);

    return 1;
}


/* Whether all entries are whole, without gaps, and found by their ids. */

static int
whole(void)
{
    int64_t               id, last;
    uint64_t              place;
    ngx_pgq_ring_state_t  state;

    ngx_pgq_ring_state(&ring, &state);

    last = state.since;

    for (place = state.first; place < state.end; place++) {
        if (!check(place, &id) || id != last + 1) {
            return bad(__LINE__);
        }

        last = id;

        if (ngx_pgq_ring_find(&ring, &state, id) != place + 1
            || ngx_pgq_ring_find(&ring, &state, id - 1) != place)
        {
            return bad(__LINE__);
        }
    }

    return last <= state.newest && state.used <= ring.size
           && state.end - state.first <= ring.posts;
}


static inline void
posts_init(void)
{
    ngx_pid = getpid();
    found = mmap(NULL, sizeof(found_t), PROT_READ|PROT_WRITE,
                 MAP_SHARED|MAP_ANONYMOUS, -1, 0);
}


#endif /* RING_POSTS_H */
