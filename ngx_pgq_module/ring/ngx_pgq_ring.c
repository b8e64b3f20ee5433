/* SPDX-License-Identifier: PostgreSQL */

/*
 * Creates the memory of a ring and reads it.  A reader never waits: it copies,
 * and then checks that the copy is valid.  ngx_pgq_ring_memory.h says why this
 * is correct.
 */

#include "ngx_pgq_ring_memory.h"


static ngx_uint_t ngx_pgq_ring_readable(ngx_pgq_ring_t *ring, uint64_t place);
static void ngx_pgq_ring_read(ngx_pgq_ring_memory_t *memory,
    uint64_t position, u_char *dst, size_t len);


size_t
ngx_pgq_ring_memory_size(size_t size, ngx_uint_t posts)
{
    return sizeof(ngx_pgq_ring_memory_t) + posts * sizeof(ngx_pgq_ring_entry_t)
           + size;
}


/* memory: ngx_pgq_ring_memory_size() bytes, aligned to a page */

void
ngx_pgq_ring_create(ngx_pgq_ring_t *ring, void *memory)
{
    struct timeval  tv;

    ngx_memzero(memory, sizeof(ngx_pgq_ring_memory_t));
    ngx_gettimeofday(&tv);

    ring->memory = memory;
    ring->memory->created = (uint64_t) tv.tv_sec * 1000 + tv.tv_usec / 1000;
    ring->memory->posts = ring->posts;
    ring->memory->size = ring->size;

    ngx_pgq_ring_attach(ring, memory);
}


/* uses memory that another ring has created */

void
ngx_pgq_ring_attach(ngx_pgq_ring_t *ring, void *memory)
{
    ring->memory = memory;
    ring->posts = ring->memory->posts;
    ring->size = ring->memory->size;

    ngx_queue_init(&ring->listeners);
}


void
ngx_pgq_ring_state(ngx_pgq_ring_t *ring, ngx_pgq_ring_state_t *state)
{
    uint64_t                version;
    ngx_pgq_ring_memory_t  *memory;

    memory = ring->memory;

    do {
        version = __atomic_load_n(&memory->version, __ATOMIC_ACQUIRE);
        *state = memory->copies[version % 2].state;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);

    } while (__atomic_load_n(&memory->version, __ATOMIC_RELAXED) != version);
}


/*
 * Returns the first place of the state with an id greater than after, or
 * state->end.  If an entry on the way was overwritten, returns its place: the
 * caller finds out when it reads the entry.
 */

uint64_t
ngx_pgq_ring_find(ngx_pgq_ring_t *ring, ngx_pgq_ring_state_t *state,
    int64_t after)
{
    uint64_t              low, high, middle;
    ngx_pgq_ring_entry_t  e;

    if (after >= state->newest) {
        return state->end;
    }

    low = state->first;
    high = state->end;

    while (low < high) {
        middle = low + (high - low) / 2;

        if (ngx_pgq_ring_entry(ring, middle, &e) != NGX_OK) {
            return middle;
        }

        if (e.id > after) {
            high = middle;

        } else {
            low = middle + 1;
        }
    }

    return low;
}


/* returns NGX_DECLINED if the entry was overwritten, or does not exist yet */

ngx_int_t
ngx_pgq_ring_entry(ngx_pgq_ring_t *ring, uint64_t place,
    ngx_pgq_ring_entry_t *e)
{
    *e = ring->memory->slots[place % ring->posts];

    return ngx_pgq_ring_readable(ring, place) ? NGX_OK : NGX_DECLINED;
}


/*
 * Copies e->topic_len and e->len bytes; e: from ngx_pgq_ring_entry().  Returns
 * NGX_DECLINED if the entry was overwritten meanwhile: the bytes are void.
 */

ngx_int_t
ngx_pgq_ring_copy(ngx_pgq_ring_t *ring, uint64_t place,
    ngx_pgq_ring_entry_t *e, u_char *topic, u_char *object)
{
    ngx_pgq_ring_memory_t  *memory;

    memory = ring->memory;

    ngx_pgq_ring_read(memory, e->position, topic, e->topic_len);
    ngx_pgq_ring_read(memory, e->position + e->topic_len, object, e->len);

    return ngx_pgq_ring_readable(ring, place) ? NGX_OK : NGX_DECLINED;
}


/* the listener is kept until the worker exits */

void
ngx_pgq_ring_listen(ngx_pgq_ring_t *ring, ngx_pgq_ring_listener_t *l)
{
    ngx_queue_insert_tail(&ring->listeners, &l->queue);
}


void *
ngx_pgq_ring_listening(ngx_pgq_ring_t *ring,
    void (*changed)(ngx_pgq_ring_listener_t *l))
{
    ngx_queue_t              *q;
    ngx_pgq_ring_listener_t  *l;

    for (q = ngx_queue_head(&ring->listeners);
         q != ngx_queue_sentinel(&ring->listeners);
         q = ngx_queue_next(q))
    {
        l = ngx_queue_data(q, ngx_pgq_ring_listener_t, queue);

        if (l->changed == changed) {
            return l->data;
        }
    }

    return NULL;
}


/*
 * topic NULL: of all posts.  While the ring reads its posts again, its topics
 * are not complete; the newest id of all posts is not less than that of one.
 */

void
ngx_pgq_ring_version(ngx_pgq_ring_t *ring, ngx_str_t *topic,
    ngx_pgq_ring_version_t *version)
{
    int64_t               *id, newest;
    ngx_pgq_ring_state_t   s, after;

    ngx_pgq_ring_state(ring, &s);

    version->created = s.confirmed ? 0 : ring->memory->created;
    version->revision = s.shown_revision;
    version->newest = s.shown;

    if (topic == NULL || !s.loaded) {
        return;
    }

    id = ngx_pgq_ring_topic(ring->memory, topic);
    newest = __atomic_load_n(id, __ATOMIC_RELAXED);

    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    ngx_pgq_ring_state(ring, &after);

    if (after.epoch == s.epoch) {
        version->newest = ngx_max(newest, s.floor);
    }
}


/*
 * Called before a worker reads the state whose next change it waits for:
 * either it reads the change, or the follower finds the slot armed.  Both
 * exchange the same word: the second one to do so reads what the first wrote,
 * and with it all that the first had written before.
 */

void
ngx_pgq_ring_arm(ngx_pgq_ring_t *ring, ngx_uint_t slot)
{
    (void) __atomic_exchange_n(&ring->memory->armed[slot], 1,
                               __ATOMIC_SEQ_CST);
}


/* topics of the same hash share the newest id */

int64_t *
ngx_pgq_ring_topic(ngx_pgq_ring_memory_t *memory, ngx_str_t *topic)
{
    size_t      i;
    ngx_uint_t  hash;

    hash = 0;

    for (i = 0; i < topic->len; i++) {
        hash = ngx_hash(hash, topic->data[i]);
    }

    return &memory->topics[hash % NGX_PGQ_RING_TOPICS];
}


/* whether what was read of the place before is valid */

static ngx_uint_t
ngx_pgq_ring_readable(ngx_pgq_ring_t *ring, uint64_t place)
{
    ngx_pgq_ring_state_t  s;

    __atomic_thread_fence(__ATOMIC_ACQUIRE);

    ngx_pgq_ring_state(ring, &s);

    return place >= s.first && place < s.end;
}


static void
ngx_pgq_ring_read(ngx_pgq_ring_memory_t *memory, uint64_t position,
    u_char *dst, size_t len)
{
    size_t   offset, n;
    u_char  *bytes;

    if (len == 0) {
        return;
    }

    bytes = ngx_pgq_ring_bytes(memory);
    offset = position % memory->size;
    n = ngx_min(len, memory->size - offset);

    ngx_memcpy(dst, bytes + offset, n);
    ngx_memcpy(dst + n, bytes, len - n);
}
