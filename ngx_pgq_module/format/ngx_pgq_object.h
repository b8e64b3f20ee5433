/* SPDX-License-Identifier: PostgreSQL */

/*
 * The object of a post is its JSON as readers see it:
 * {"id":3,"data":…,"at":"…"}, and with a topic
 * {"id":3,"data":…,"at":"…","topic":"a/b"}.
 */

#ifndef NGX_PGQ_OBJECT_H
#define NGX_PGQ_OBJECT_H


#include <ngx_config.h>
#include <ngx_core.h>


/* a post as columns of a result, as text */

typedef struct {
    ngx_str_t                id;
    ngx_str_t                at;        /* data NULL: null */
    ngx_str_t                data;
    ngx_str_t                topic;     /* len 0: none */
} ngx_pgq_object_row_t;


/*
 * Must be called first: a table that users can change may have an invalid
 * topic, which is not shown, or null as data.
 */

void ngx_pgq_object_check(ngx_pgq_object_row_t *row);

/* the object as pieces, whose number is returned */

#define NGX_PGQ_OBJECT_PIECES    13

ngx_uint_t ngx_pgq_object_pieces(ngx_pgq_object_row_t *row,
    ngx_str_t *pieces);

/* the length of the object, and the position after it */

size_t ngx_pgq_object_len(ngx_pgq_object_row_t *row);
u_char *ngx_pgq_object_write(u_char *p, ngx_pgq_object_row_t *row);

/* finds the data in an object whose topic has this length */

void ngx_pgq_object_data(u_char *object, size_t len, size_t topic_len,
    ngx_str_t *data);

/* the topic in the same object */

#define ngx_pgq_object_topic(object, len, topic_len)                          \
    ((object) + (len) - sizeof("\"}") + 1 - (topic_len))


#endif /* NGX_PGQ_OBJECT_H */
