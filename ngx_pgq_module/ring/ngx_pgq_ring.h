/* SPDX-License-Identifier: PostgreSQL */

/*
 * The ring is a copy of the newest posts of a pool in shared memory.  One
 * process of the host writes it, the follower; any process reads it without a
 * lock.
 *
 * A place is the number of an entry.  It only grows, also when the ring is
 * reset, so a place names one post as long as the ring exists.
 */

#ifndef NGX_PGQ_RING_H
#define NGX_PGQ_RING_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_pgq_module.h"
#include "ngx_pgq_uuid.h"


typedef struct ngx_pgq_ring_memory_s    ngx_pgq_ring_memory_t;
typedef struct ngx_pgq_ring_listener_s  ngx_pgq_ring_listener_t;


struct ngx_pgq_ring_s {
    ngx_str_t                name;      /* of its pool */
    size_t                   size;      /* bytes of the objects */
    ngx_uint_t               posts;     /* entries */
    ngx_msec_t               stale;     /* age that is too old for readers */
    ngx_msec_t               poll;      /* time between two questions */
    ngx_pgq_ring_memory_t   *memory;

    /* in each worker */
    ngx_queue_t              listeners;
};


/* a post in the ring; its object is the JSON text that GET shows */

typedef struct {
    int64_t                  id;
    uint64_t                 position;  /* of the topic, then the object */
    uint32_t                 len;       /* bytes of the object; 0: a hole */
    uint16_t                 topic_len;
    uint16_t                 hole;      /* its object is only in PostgreSQL */
    u_char                   message_id[NGX_PGQ_UUID_LEN];
} ngx_pgq_ring_entry_t;


typedef struct {
    /* the entries with first <= place < end can be read */
    uint64_t                 first;
    uint64_t                 end;
    uint64_t                 epoch;     /* grows: earlier copies are void */
    int64_t                  newest;    /* greatest id of posts; 0: none */
    int64_t                  since;     /* has since < id <= newest */
    int64_t                  removed;   /* posts has no id <= removed */
    int64_t                  revision;  /* of posts, see ngx_pgq.refresh() */
    uint64_t                 changes;   /* all but confirmations of no news */
    uint64_t                 used;      /* bytes of topics and objects */
    uint64_t                 position;  /* of the next entry; it only grows */
    ngx_msec_t               confirmed; /* when PostgreSQL last answered */
    ngx_uint_t               loaded;    /* has been up to date once */

    /* only for ngx_pgq_ring_version() */
    int64_t                  shown_revision;  /* of the last confirmation */
    int64_t                  shown;     /* newest id at that time */
    int64_t                  floor;     /* since, when it was loaded */
} ngx_pgq_ring_state_t;


/*
 * What tells pages of different posts apart, for the keys of caches.  It is
 * never that of a time at which there were fewer posts.
 */

typedef struct {
    uint64_t                 created;   /* of a ring without posts; or 0 */
    int64_t                  revision;
    int64_t                  newest;    /* id */
} ngx_pgq_ring_version_t;


/* l->changed(l) is called from the event loop of this worker */

struct ngx_pgq_ring_listener_s {
    ngx_queue_t              queue;
    void                   (*changed)(ngx_pgq_ring_listener_t *l);
    void                    *data;
};


/* to be increased when the memory of rings changes its form */

#define NGX_PGQ_RING_LAYOUT      4


/* for readers */

void ngx_pgq_ring_state(ngx_pgq_ring_t *ring, ngx_pgq_ring_state_t *state);
uint64_t ngx_pgq_ring_find(ngx_pgq_ring_t *ring, ngx_pgq_ring_state_t *state,
    int64_t after);
ngx_int_t ngx_pgq_ring_entry(ngx_pgq_ring_t *ring, uint64_t place,
    ngx_pgq_ring_entry_t *e);
ngx_int_t ngx_pgq_ring_copy(ngx_pgq_ring_t *ring, uint64_t place,
    ngx_pgq_ring_entry_t *e, u_char *topic, u_char *object);
void ngx_pgq_ring_listen(ngx_pgq_ring_t *ring, ngx_pgq_ring_listener_t *l);

/* the data of the listener with this function, in this worker, or NULL */
void *ngx_pgq_ring_listening(ngx_pgq_ring_t *ring,
    void (*changed)(ngx_pgq_ring_listener_t *l));

/* asks for one ring of the bell of this slot at the next change */
void ngx_pgq_ring_arm(ngx_pgq_ring_t *ring, ngx_uint_t slot);

void ngx_pgq_ring_version(ngx_pgq_ring_t *ring, ngx_str_t *topic,
    ngx_pgq_ring_version_t *version);

/* for the master */

ngx_int_t ngx_pgq_ring_zone(ngx_conf_t *cf, ngx_pgq_ring_t *ring,
    ngx_str_t *conninfo);
size_t ngx_pgq_ring_memory_size(size_t size, ngx_uint_t posts);
void ngx_pgq_ring_create(ngx_pgq_ring_t *ring, void *memory);
void ngx_pgq_ring_attach(ngx_pgq_ring_t *ring, void *memory);

/* for the follower; NGX_DECLINED: another process is the follower */

ngx_int_t ngx_pgq_ring_take(ngx_pgq_ring_t *ring, ngx_msec_t now);
void ngx_pgq_ring_leave(ngx_pgq_ring_t *ring);
ngx_int_t ngx_pgq_ring_append(ngx_pgq_ring_t *ring, int64_t id,
    u_char *message_id, ngx_str_t *topic, ngx_str_t *pieces, ngx_uint_t n);
ngx_int_t ngx_pgq_ring_start(ngx_pgq_ring_t *ring, int64_t id);
ngx_int_t ngx_pgq_ring_confirm(ngx_pgq_ring_t *ring, int64_t head,
    int64_t removed, ngx_msec_t now);
ngx_int_t ngx_pgq_ring_whole(ngx_pgq_ring_t *ring, int64_t removed);
ngx_int_t ngx_pgq_ring_reset(ngx_pgq_ring_t *ring, int64_t revision);
ngx_pid_t ngx_pgq_ring_follower(ngx_pgq_ring_t *ring);
ngx_uint_t ngx_pgq_ring_disarm(ngx_pgq_ring_t *ring, ngx_uint_t slot);


#endif /* NGX_PGQ_RING_H */
