/* SPDX-License-Identifier: PostgreSQL */

/*
 * The body of an answer to GET, shared by all requests that it answers.
 */

#ifndef NGX_PGQ_ANSWER_H
#define NGX_PGQ_ANSWER_H


#include "ngx_pgq_pool.h"

#include <ngx_md5.h>


/* the columns of ngx_pgq.recent() */

typedef enum {
    NGX_PGQ_ANSWER_ID = 0,
    NGX_PGQ_ANSWER_AT,         /* null: infinity, not a time in JSON */
    NGX_PGQ_ANSWER_DATA,
    NGX_PGQ_ANSWER_OLDER       /* id of the next older post, or null */
} ngx_pgq_answer_field_e;


_Static_assert(NGX_PGQ_ANSWER_OLDER < NGX_PGQ_MAX_FIELDS,
               "a call keeps all fields of a row");


typedef struct {
    ngx_pgq_pool_t          *db;
    ngx_pool_t              *memory;
    ngx_uint_t               holders;   /* the answer is freed at 0 */
    ngx_array_t              pieces;    /* ngx_str_t */
    size_t                   space;     /* bytes free in the last piece */
    size_t                   allocated; /* bytes of all pieces */
    size_t                   len;       /* bytes of the body */
    ngx_md5_t                md5;
    ngx_str_t                etag;
    u_char                   last_id[NGX_INT64_LEN];    /* id as text */
    size_t                   last_id_len;
    unsigned                 more:1;    /* there are older posts */
    unsigned                 failed:1;  /* out of memory */
} ngx_pgq_answer_t;


ngx_pgq_answer_t *ngx_pgq_answer_create(ngx_pgq_pool_t *db);
void ngx_pgq_answer_row(ngx_pgq_answer_t *answer, ngx_str_t *fields);
ngx_int_t ngx_pgq_answer_end(ngx_pgq_answer_t *answer);
ngx_int_t ngx_pgq_answer_hold(ngx_pgq_answer_t *answer, ngx_pool_t *memory);
void ngx_pgq_answer_release(ngx_pgq_answer_t *answer);


#endif /* NGX_PGQ_ANSWER_H */
