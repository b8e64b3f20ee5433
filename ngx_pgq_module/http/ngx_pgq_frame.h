/* SPDX-License-Identifier: PostgreSQL */

/*
 * Frames are posts as a transport sends them.  They are rendered in groups,
 * which all readers of a worker at the same place share.
 */

#ifndef NGX_PGQ_FRAME_H
#define NGX_PGQ_FRAME_H


#include "ngx_pgq_answer.h"
#include "ngx_pgq_object.h"
#include "ngx_pgq_ring.h"


#define NGX_PGQ_FRAME_TEXT       256     /* bytes of a text without a post */
#define NGX_PGQ_FRAME_RECENT     16      /* groups that the cache holds */


typedef enum {
    NGX_PGQ_TRANSPORT_SSE = 0,
    NGX_PGQ_TRANSPORT_NDJSON,
    NGX_PGQ_TRANSPORT_PAGE,
    NGX_PGQ_TRANSPORT_WEBSOCKET,
    NGX_PGQ_TRANSPORTS
} ngx_pgq_transport_e;


typedef enum {
    NGX_PGQ_RESET_EXPIRED = 0,   /* retention has deleted posts */
    NGX_PGQ_RESET_AHEAD,         /* the cursor is greater than any id */
    NGX_PGQ_RESET_UNKNOWN        /* the cursor is not an id */
} ngx_pgq_reset_e;


typedef struct {
    const char              *name;      /* in metrics */
    ngx_str_t                type;      /* Content-Type */
    size_t                   overhead;  /* most bytes around an object */
    const char              *tail;
} ngx_pgq_transport_t;


typedef struct {
    int64_t                  id;
    size_t                   begin;     /* offset of the frame */
    size_t                   object;    /* offset of the object in it */
    uint32_t                 len;       /* of the object */
    uint32_t                 topic_len;
} ngx_pgq_frame_t;


/* the posts with ids in (after, upto], all of them unless it is private */

typedef struct {
    ngx_queue_t              queue;     /* in cache->groups */
    ngx_uint_t               holders;   /* the group is freed at 0 */
    ngx_uint_t               transport;
    uint64_t                 epoch;
    int64_t                  after;
    int64_t                  upto;
    ngx_pgq_pool_t          *counted;   /* its size counts there, or NULL */
    size_t                   size;
    ngx_uint_t               n;
    ngx_uint_t               topics;    /* frames of posts with a topic */
    ngx_pgq_frame_t         *frames;    /* n, and one that begins at the end */
    u_char                  *data;
} ngx_pgq_frame_group_t;


/* the groups of a pool in a worker */

typedef struct {
    ngx_queue_t              groups;    /* latest first */
    ngx_pgq_frame_group_t   *recent[NGX_PGQ_FRAME_RECENT];
    ngx_uint_t               next;      /* the recent one to replace */
} ngx_pgq_frame_cache_t;


extern const ngx_pgq_transport_t  ngx_pgq_transports[];


void ngx_pgq_frame_exit(ngx_pgq_frame_cache_t *cache);

/* these return a group with one more holder */

ngx_pgq_frame_group_t *ngx_pgq_frame_find(ngx_pgq_frame_cache_t *cache,
    ngx_uint_t transport, ngx_pgq_ring_state_t *state, int64_t cursor);
ngx_int_t ngx_pgq_frame_ring(ngx_pgq_frame_cache_t *cache,
    ngx_uint_t transport, ngx_pgq_ring_t *ring, ngx_pgq_ring_state_t *state,
    int64_t cursor, ngx_pgq_frame_group_t **group);
ngx_pgq_frame_group_t *ngx_pgq_frame_answer(ngx_pgq_frame_cache_t *cache,
    ngx_uint_t transport, uint64_t epoch, int64_t cursor, int64_t upto,
    ngx_pgq_answer_t *answer, ngx_uint_t shared);
ngx_pgq_frame_group_t *ngx_pgq_frame_text(u_char *data, size_t len);

/*
 * These write a text without a post at p, which has NGX_PGQ_FRAME_TEXT bytes,
 * and return the position after it.  It is empty if the transport has none.
 */

u_char *ngx_pgq_frame_open(u_char *p, ngx_uint_t transport);
u_char *ngx_pgq_frame_start(u_char *p, ngx_uint_t transport, int64_t cursor);
u_char *ngx_pgq_frame_heartbeat(u_char *p, ngx_uint_t transport,
    int64_t cursor);
u_char *ngx_pgq_frame_reset(u_char *p, ngx_uint_t transport,
    ngx_pgq_reset_e reason, int64_t oldest, int64_t newest);

/* the index of the first frame with an id greater than the cursor, or n */

ngx_uint_t ngx_pgq_frame_after(ngx_pgq_frame_group_t *group, int64_t cursor);

/* whether a reader with this filter sees the post */

#define ngx_pgq_frame_admitted(group, frame, filter)                          \
    (filter == NULL                                                           \
     || ngx_pgq_filter_admits(filter, ngx_pgq_object_topic(                   \
                                          group->data + frame->object,        \
                                          frame->len, frame->topic_len),      \
                              frame->topic_len))

void ngx_pgq_frame_release(ngx_pgq_frame_group_t *group);


#endif /* NGX_PGQ_FRAME_H */
