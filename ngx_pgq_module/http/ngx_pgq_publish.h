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


typedef struct ngx_pgq_publish_s  ngx_pgq_publish_t;


typedef struct {
    /* set by the caller */
    ngx_http_request_t      *request;
    ngx_str_t               *scope;         /* of the key */
    ngx_pgq_filter_t        *rights;        /* NULL: all topics */

    /* len 0: it is absent */
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

/* whether a message is not complete */

ngx_uint_t ngx_pgq_publish_partial(ngx_pgq_publish_t *p);

/* whether the client has to wait: its messages are not to be read */

ngx_uint_t ngx_pgq_publish_full(ngx_pgq_publish_t *p);

/* whether answers are to come; after this call no message is read */

ngx_uint_t ngx_pgq_publish_waits(ngx_pgq_publish_t *p);

/*
 * publish_read.c: reads a message; its texts are in data and in m.  Returns
 * NGX_OK or NGX_DECLINED.
 */

ngx_int_t ngx_pgq_publish_read(ngx_pgq_publish_message_t *m, u_char *data,
    size_t len, ngx_pgq_problem_t *problem);

/* sends answers; NGX_DECLINED: there is none */

ngx_int_t ngx_pgq_publish_step(ngx_pgq_publish_t *p);


#endif /* NGX_PGQ_PUBLISH_H */
