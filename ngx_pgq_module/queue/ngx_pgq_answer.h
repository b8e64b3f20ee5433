/* SPDX-License-Identifier: PostgreSQL */

/*
 * The posts that a query asks for, as the body of an answer to GET, which all
 * requests with this query share.
 */

#ifndef NGX_PGQ_ANSWER_H
#define NGX_PGQ_ANSWER_H


#include "ngx_pgq_pool.h"


/* the columns of ngx_pgq.recent() and after() */

typedef enum {
    NGX_PGQ_ANSWER_ID = 0,
    NGX_PGQ_ANSWER_AT,         /* null: infinity, not a time in JSON */
    NGX_PGQ_ANSWER_DATA,
    NGX_PGQ_ANSWER_MORE,       /* id of the next post, or null */
    NGX_PGQ_ANSWER_TOPIC,
    /* of ngx_pgq.position() */
    NGX_PGQ_ANSWER_OLDEST,
    NGX_PGQ_ANSWER_NEWEST,
    NGX_PGQ_ANSWER_COMPLETE,
    /* of ngx_pgq.fetch_json() */
    NGX_PGQ_ANSWER_PART = NGX_PGQ_ANSWER_OLDEST,
    NGX_PGQ_ANSWER_GENERATION
} ngx_pgq_answer_field_e;


_Static_assert(NGX_PGQ_ANSWER_COMPLETE < NGX_PGQ_MAX_FIELDS,
               "a call keeps all fields of a row");


typedef enum {
    NGX_PGQ_QUERY_POSTS = 0,
    NGX_PGQ_QUERY_HISTORY,     /* with position(id) */
    NGX_PGQ_QUERY_SINCE,       /* the id before the posts of a time */
    /* a text, kept as the object of one post */
    NGX_PGQ_QUERY_METRICS,
    NGX_PGQ_QUERY_SUBSCRIPTIONS,
    /* of a subscription; its posts belong to one request */
    NGX_PGQ_QUERY_CONSUME,     /* posts and a lease; id: the generation */
    /* each belongs to one request */
    NGX_PGQ_QUERY_ACK,
    NGX_PGQ_QUERY_SUBSCRIBE,   /* answer->next: whether there was none */
    NGX_PGQ_QUERY_UNSUBSCRIBE  /* answer->next: whether there was one */
} ngx_pgq_query_e;


/* queries with equal members have the same answer */

typedef struct {
    ngx_pgq_query_e          special;
    ngx_uint_t               ascending; /* posts after id, else before it */
    ngx_int_t                limit;     /* posts */
    int64_t                  id;        /* 0: none */
    size_t                   size;      /* limit of the posts' data */
    ngx_str_t                topics;    /* text[] in binary form; len 0: all */
    ngx_str_t                pattern;   /* a regular expression; len 0: all;
                                           or a time; or a JSON object */
    ngx_str_t                name;      /* of a subscription */
    ngx_int_t                part;      /* 0: any */
    ngx_int_t                lease;     /* s */
    ngx_uint_t               again;     /* 1: one that waits asks again */
} ngx_pgq_read_query_t;


typedef struct {
    int64_t                  id;
    u_char                  *object;
    size_t                   len;
    size_t                   topic_len;
} ngx_pgq_answer_post_t;


typedef struct {
    ngx_pgq_pool_t          *db;
    ngx_pool_t              *memory;
    ngx_pgq_read_query_t     query;
    ngx_uint_t               holders;   /* the answer is freed at 0 */
    ngx_uint_t               kept;      /* holders that are no request */
    ngx_array_t              pieces;    /* ngx_str_t */
    ngx_array_t              posts;     /* ngx_pgq_answer_post_t */
    size_t                   space;     /* bytes free in the last piece */
    size_t                   allocated; /* bytes of all pieces */
    size_t                   len;       /* bytes of the body */
    int64_t                  next;      /* where the next query begins */
    ngx_str_t                etag;
    int64_t                  oldest;    /* of position() */
    int64_t                  newest;
    int64_t                  part;      /* of a subscription */
    int64_t                  generation;
    unsigned                 complete:1;
    unsigned                 more:1;    /* posts were left out by size */
    unsigned                 failed:1;  /* out of memory */
} ngx_pgq_answer_t;


ngx_uint_t ngx_pgq_answer_same(ngx_pgq_read_query_t *a,
    ngx_pgq_read_query_t *b);
size_t ngx_pgq_answer_strings(ngx_pgq_read_query_t *query);
void ngx_pgq_answer_copy(ngx_pgq_read_query_t *dst, ngx_pgq_read_query_t *src,
    u_char *p);
ngx_pgq_answer_t *ngx_pgq_answer_create(ngx_pgq_pool_t *db,
    ngx_pgq_read_query_t *query, size_t size);
void ngx_pgq_answer_row(ngx_pgq_answer_t *answer, ngx_str_t *fields);
u_char *ngx_pgq_answer_add(ngx_pgq_answer_t *answer, int64_t id, size_t len,
    size_t topic_len);
void ngx_pgq_answer_remove(ngx_pgq_answer_t *answer);
ngx_int_t ngx_pgq_answer_end(ngx_pgq_answer_t *answer);
ngx_int_t ngx_pgq_answer_hold(ngx_pgq_answer_t *answer, ngx_pool_t *memory);
void ngx_pgq_answer_release(ngx_pgq_answer_t *answer);
void ngx_pgq_answer_keep(ngx_pgq_answer_t *answer);
void ngx_pgq_answer_discard(ngx_pgq_answer_t *answer);


#endif /* NGX_PGQ_ANSWER_H */
