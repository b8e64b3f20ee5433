/* SPDX-License-Identifier: PostgreSQL */

/*
 * Chooses the process that writes a ring, and makes its changes.  Each change
 * is published as a whole: ngx_pgq_ring_memory.h has the rules.
 */

#include "ngx_pgq_ring_memory.h"


/* an object larger than this part of the ring is not kept */

#define NGX_PGQ_RING_LARGE       4


#define ngx_pgq_ring_self()  ((uint64_t) ngx_pid * 2)


static ngx_uint_t ngx_pgq_ring_may_take(ngx_pgq_ring_t *ring, uint64_t owner,
    ngx_msec_t now);
static void ngx_pgq_ring_publish(ngx_pgq_ring_memory_t *memory,
    ngx_pgq_ring_state_t *s);
static ngx_int_t ngx_pgq_ring_begin(ngx_pgq_ring_t *ring,
    ngx_pgq_ring_state_t *s);
static void ngx_pgq_ring_end(ngx_pgq_ring_memory_t *memory,
    ngx_pgq_ring_state_t *s, ngx_uint_t news);
static void ngx_pgq_ring_drop(ngx_pgq_ring_memory_t *memory,
    ngx_pgq_ring_state_t *s);
static void ngx_pgq_ring_write(ngx_pgq_ring_memory_t *memory,
    uint64_t position, ngx_str_t *piece);


/*
 * Makes this process the follower if there is none, if it has ended, or if it
 * gave no sign of life for a while and is not writing.  A call of the follower
 * is its sign of life.
 */

ngx_int_t
ngx_pgq_ring_take(ngx_pgq_ring_t *ring, ngx_msec_t now)
{
    uint64_t                owner;
    ngx_pgq_ring_memory_t  *memory;

    memory = ring->memory;
    owner = __atomic_load_n(&memory->owner, __ATOMIC_ACQUIRE);

    if (owner != ngx_pgq_ring_self()
        && (!ngx_pgq_ring_may_take(ring, owner, now)
            || !__atomic_compare_exchange_n(&memory->owner, &owner,
                                            ngx_pgq_ring_self(), 0,
                                            __ATOMIC_ACQ_REL,
                                            __ATOMIC_RELAXED)))
    {
        return NGX_DECLINED;
    }

    __atomic_store_n(&memory->beat, now, __ATOMIC_RELAXED);

    return NGX_OK;
}


static ngx_uint_t
ngx_pgq_ring_may_take(ngx_pgq_ring_t *ring, uint64_t owner, ngx_msec_t now)
{
    uint64_t   beat;
    ngx_pid_t  pid, group;

    pid = (ngx_pid_t) (owner / 2);

    /*
     * This process, or one that is no worker of this nginx, may have the id
     * of one that was killed.  Workers are in the master's process group.
     */

    if (pid == 0 || pid == ngx_pid) {
        return 1;
    }

    group = getpgid(pid);

    if (group == -1 ? ngx_errno == NGX_ESRCH : group != getpgrp()) {
        return 1;
    }

    beat = __atomic_load_n(&ring->memory->beat, __ATOMIC_RELAXED);

    return !(owner & NGX_PGQ_RING_WRITING)
           && (ngx_msec_int_t) (now - (ngx_msec_t) beat)
              > (ngx_msec_int_t) (2 * ring->poll);
}


void
ngx_pgq_ring_leave(ngx_pgq_ring_t *ring)
{
    uint64_t  owner;

    owner = ngx_pgq_ring_self();

    (void) __atomic_compare_exchange_n(&ring->memory->owner, &owner, 0, 0,
                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}


/* 0: there is none */

ngx_pid_t
ngx_pgq_ring_follower(ngx_pgq_ring_t *ring)
{
    return (ngx_pid_t) (__atomic_load_n(&ring->memory->owner, __ATOMIC_RELAXED)
                        / 2);
}


/* called after a change: whether the worker of this slot wants to know it */

ngx_uint_t
ngx_pgq_ring_disarm(ngx_pgq_ring_t *ring, ngx_uint_t slot)
{
    return __atomic_exchange_n(&ring->memory->armed[slot], 0,
                               __ATOMIC_SEQ_CST);
}


/*
 * Adds the next post; its object is the n pieces together.  Ids that are not
 * greater than the newest are ignored.
 */

ngx_int_t
ngx_pgq_ring_append(ngx_pgq_ring_t *ring, int64_t id, u_char *message_id,
    ngx_str_t *topic, ngx_str_t *pieces, ngx_uint_t n)
{
    size_t                  len;
    uint64_t                first, position;
    ngx_uint_t              i, hole;
    ngx_pgq_ring_entry_t   *slot;
    ngx_pgq_ring_state_t    s;
    ngx_pgq_ring_memory_t  *memory;

    memory = ring->memory;

    if (ngx_pgq_ring_begin(ring, &s) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (id <= s.newest) {
        ngx_pgq_ring_end(memory, &s, 0);
        return NGX_OK;
    }

    for (len = 0, i = 0; i < n; i++) {
        len += pieces[i].len;
    }

    hole = topic->len + len > memory->size / NGX_PGQ_RING_LARGE;

    if (hole) {
        n = 0;
        len = 0;
    }

    first = s.first;

    while (s.end - s.first == memory->posts
           || (s.first < s.end
               && s.used + topic->len + len > memory->size))
    {
        ngx_pgq_ring_drop(memory, &s);
    }

    if (s.first != first) {
        ngx_pgq_ring_publish(memory, &s);
    }

    position = s.position;

    slot = &memory->slots[s.end % memory->posts];
    slot->id = id;
    slot->position = position;
    slot->len = len;
    slot->topic_len = topic->len;
    slot->hole = hole;
    ngx_memcpy(slot->message_id, message_id, NGX_PGQ_UUID_LEN);

    ngx_pgq_ring_write(memory, position, topic);
    position += topic->len;

    for (i = 0; i < n; i++) {
        ngx_pgq_ring_write(memory, position, &pieces[i]);
        position += pieces[i].len;
    }

    __atomic_store_n(ngx_pgq_ring_topic(memory, topic), id, __ATOMIC_RELAXED);

    s.used += position - s.position;
    s.position = position;
    s.end++;
    s.newest = id;

    ngx_pgq_ring_end(memory, &s, 1);

    return NGX_OK;
}


/*
 * The next post has this id, and posts before it may be missing: the ring is
 * complete from it on.  Nothing is missing if the ring is already beyond it.
 */

ngx_int_t
ngx_pgq_ring_start(ngx_pgq_ring_t *ring, int64_t id)
{
    ngx_pgq_ring_state_t  s;

    if (ngx_pgq_ring_begin(ring, &s) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (id > s.newest) {
        s.first = s.end;
        s.used = 0;
        s.since = id - 1;
    }

    ngx_pgq_ring_end(ring->memory, &s, 1);

    return NGX_OK;
}


/* all posts up to head are in the ring; those up to removed were deleted */

ngx_int_t
ngx_pgq_ring_confirm(ngx_pgq_ring_t *ring, int64_t head, int64_t removed,
    ngx_msec_t now)
{
    ngx_uint_t              news;
    ngx_pgq_ring_state_t    s;
    ngx_pgq_ring_memory_t  *memory;

    memory = ring->memory;

    if (ngx_pgq_ring_begin(ring, &s) != NGX_OK) {
        return NGX_DECLINED;
    }

    news = !s.loaded || removed > s.removed || head > s.newest;

    while (s.first < s.end
           && memory->slots[s.first % memory->posts].id <= removed)
    {
        ngx_pgq_ring_drop(memory, &s);
    }

    s.removed = ngx_max(s.removed, removed);
    s.since = ngx_max(s.since, s.removed);
    s.newest = ngx_max(s.newest, ngx_max(head, removed));
    s.confirmed = now;

    if (!s.loaded) {
        s.floor = s.since;
        s.loaded = 1;
    }

    s.shown_revision = s.revision;
    s.shown = s.newest;

    ngx_pgq_ring_end(memory, &s, news);

    return NGX_OK;
}


/* the ring has all posts: there is none before its first one */

ngx_int_t
ngx_pgq_ring_whole(ngx_pgq_ring_t *ring, int64_t removed)
{
    ngx_pgq_ring_state_t  s;

    if (ngx_pgq_ring_begin(ring, &s) != NGX_OK) {
        return NGX_DECLINED;
    }

    s.since = removed;

    ngx_pgq_ring_end(ring->memory, &s, 1);

    return NGX_OK;
}


/* drops all posts: they may have changed, or their ids may be given again */

ngx_int_t
ngx_pgq_ring_reset(ngx_pgq_ring_t *ring, int64_t revision)
{
    ngx_pgq_ring_state_t  s;

    if (ngx_pgq_ring_begin(ring, &s) != NGX_OK) {
        return NGX_DECLINED;
    }

    s.first = s.end;
    s.used = 0;
    s.epoch++;
    s.newest = 0;
    s.since = 0;
    s.removed = 0;
    s.revision = revision;
    s.loaded = 0;

    ngx_pgq_ring_publish(ring->memory, &s);
    ngx_memzero(ring->memory->topics, sizeof(ring->memory->topics));
    ngx_pgq_ring_end(ring->memory, &s, 1);

    return NGX_OK;
}


/* the fences order it after earlier, and before later, writes of the owner */

static void
ngx_pgq_ring_publish(ngx_pgq_ring_memory_t *memory,
    ngx_pgq_ring_state_t *s)
{
    uint64_t  version;

    version = __atomic_load_n(&memory->version, __ATOMIC_RELAXED) + 1;

    __atomic_thread_fence(__ATOMIC_RELEASE);
    memory->copies[version % 2].state = *s;
    __atomic_store_n(&memory->version, version, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}


/* starts a change; NGX_DECLINED: another process is the owner */

static ngx_int_t
ngx_pgq_ring_begin(ngx_pgq_ring_t *ring, ngx_pgq_ring_state_t *s)
{
    uint64_t  owner;

    owner = ngx_pgq_ring_self();

    if (!__atomic_compare_exchange_n(&ring->memory->owner, &owner,
                                     owner | NGX_PGQ_RING_WRITING, 0,
                                     __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
    {
        return NGX_DECLINED;
    }

    ngx_pgq_ring_state(ring, s);

    return NGX_OK;
}


static void
ngx_pgq_ring_end(ngx_pgq_ring_memory_t *memory, ngx_pgq_ring_state_t *s,
    ngx_uint_t news)
{
    s->changes += news;

    ngx_pgq_ring_publish(memory, s);

    __atomic_store_n(&memory->owner, ngx_pgq_ring_self(), __ATOMIC_RELEASE);
}


/* removes the first entry from the state, which is then to be published */

static void
ngx_pgq_ring_drop(ngx_pgq_ring_memory_t *memory, ngx_pgq_ring_state_t *s)
{
    ngx_pgq_ring_entry_t  *slot;

    slot = &memory->slots[s->first % memory->posts];

    s->since = slot->id;
    s->used -= slot->topic_len + slot->len;
    s->first++;
}


static void
ngx_pgq_ring_write(ngx_pgq_ring_memory_t *memory, uint64_t position,
    ngx_str_t *piece)
{
    size_t   offset, n;
    u_char  *bytes;

    if (piece->len == 0) {
        return;
    }

    bytes = ngx_pgq_ring_bytes(memory);
    offset = position % memory->size;
    n = ngx_min(piece->len, memory->size - offset);

    ngx_memcpy(bytes + offset, piece->data, n);
    ngx_memcpy(bytes, piece->data + n, piece->len - n);
}
