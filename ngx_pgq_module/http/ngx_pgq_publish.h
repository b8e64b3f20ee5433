/* SPDX-License-Identifier: PostgreSQL */

/*
 * The posts that a client sends over its WebSocket.
 */

#ifndef NGX_PGQ_PUBLISH_H
#define NGX_PGQ_PUBLISH_H


#include "ngx_pgq_enqueue.h"
#include "ngx_pgq_key.h"
#include "ngx_pgq_reader.h"


#define NGX_PGQ_PUBLISH_REF      128     /* bytes of ref */
#define NGX_PGQ_PUBLISH_TEXT     2048    /* bytes of topic and of key */
#define NGX_PGQ_PUBLISH_POSTS    64      /* without an answer; then it waits */


typedef struct {
    ngx_pgq_reader_t        *reader;
    ngx_queue_t              tickets;
    ngx_queue_t              answers;
    ngx_uint_t               n;             /* in both */
    ngx_str_t                scope;         /* of keys */
    ngx_pgq_filter_t        *rights;        /* NULL: all topics */
    u_char                  *partial;       /* pieces of a message, or NULL */
    size_t                   partial_len;
    size_t                   partial_size;
    size_t                   max;           /* bytes of a message */
    unsigned                 closing:1;     /* nothing more is read */
} ngx_pgq_publish_t;


/* whether the client has to wait: its messages are not to be read */

#define ngx_pgq_publish_full(p)                                               \
    ((p)->closing || (p)->n >= NGX_PGQ_PUBLISH_POSTS)


/* a message; len 0: it is absent */

typedef struct {
    ngx_str_t                post;          /* JSON */
    ngx_str_t                topic;
    ngx_str_t                key;           /* with its scope */
    ngx_str_t                ref;           /* JSON */

    u_char                   topic_text[NGX_PGQ_PUBLISH_TEXT];
    u_char                   key_text[2 * NGX_PGQ_KEY_SCOPE_MAX
                                      + NGX_PGQ_PUBLISH_TEXT];
    u_char                   detail[NGX_PGQ_OUTCOME_DETAIL];
} ngx_pgq_publish_message_t;


/*
 * NULL without pgq_stream_post; NGX_DECLINED: the request is refused.  max:
 * bytes of a message, of which the caller gives no more.
 */

ngx_int_t ngx_pgq_publish_create(ngx_pgq_reader_t *rd, size_t max,
    ngx_pgq_publish_t **out, ngx_pgq_problem_t *problem);

/*
 * Takes the next piece of a message.  NGX_DECLINED: there are too many bytes
 * of messages that are not complete.
 */

ngx_int_t ngx_pgq_publish_piece(ngx_pgq_publish_t *p, u_char *data,
    size_t len, ngx_uint_t last);

/*
 * publish_read.c: reads a message; its texts are in data and in m.  Returns
 * NGX_OK or NGX_DECLINED.
 */

ngx_int_t ngx_pgq_publish_read(ngx_pgq_publish_t *p,
    ngx_pgq_publish_message_t *m, u_char *data, size_t len,
    ngx_pgq_problem_t *problem);

/* sends answers; NGX_DECLINED: there is none */

ngx_int_t ngx_pgq_publish_step(ngx_pgq_publish_t *p);


#endif /* NGX_PGQ_PUBLISH_H */
