/* SPDX-License-Identifier: PostgreSQL */

/*
 * A POST with its ticket.  enqueue.c creates it, outcome.c answers it; await.c
 * delays the answer until the message is a post.
 */

#ifndef NGX_PGQ_ENQUEUE_H
#define NGX_PGQ_ENQUEUE_H


#include "ngx_pgq_http.h"
#include "ngx_pgq_uuid.h"


#define NGX_PGQ_ENQUEUE_WAIT     60      /* s, maximum */

#define NGX_PGQ_OUTCOME_DETAIL   256     /* bytes of a detail */


/* around the message: {"status":"queued","id":"…","msg":…,"post":…} */

#define NGX_PGQ_ENQUEUE_HEAD     "{\"status\":\"queued\",\"id\":\""
#define NGX_PGQ_ENQUEUE_POSTED   "{\"status\":\"posted\",\"id\":\""
#define NGX_PGQ_ENQUEUE_MIDDLE   "\",\"msg\":"

#define NGX_PGQ_ENQUEUE_TAIL_LEN                                              \
    (sizeof(",\"post\":}") - 1 + NGX_INT64_LEN)

#define NGX_PGQ_ENQUEUE_HEAD_LEN                                              \
    (sizeof(NGX_PGQ_ENQUEUE_HEAD) - 1 + NGX_PGQ_UUID_TEXT_LEN                 \
     + sizeof(NGX_PGQ_ENQUEUE_MIDDLE) - 1)


typedef struct {
    ngx_pgq_ticket_t         ticket;
    ngx_http_request_t      *request;
    ngx_pool_cleanup_t      *cleanup;
    ngx_pgq_ctx_t           *ctx;
    ngx_pgq_ndjson_t         ndjson;
    size_t                   unread;    /* bytes counted in writes->unread */
    ngx_pgq_return_e         returns;
    ngx_int_t                wait;      /* for the post, in seconds; or 0 */
    uint64_t                 place;     /* of the ring, before the ticket */
    unsigned                 done:1;
    u_char                   body[1];   /* of the response; has the message */
} ngx_pgq_enqueue_t;


_Static_assert(sizeof(NGX_PGQ_ENQUEUE_POSTED) == sizeof(NGX_PGQ_ENQUEUE_HEAD),
               "one replaces the other");


ngx_int_t ngx_pgq_await_init(ngx_pgq_pool_t *db, ngx_pool_t *memory);
ngx_int_t ngx_pgq_await_start(ngx_pgq_enqueue_t *e, int64_t *post);

/* answers a queued message, which is the post with this id, unless it is 0 */
void ngx_pgq_outcome_send(ngx_pgq_enqueue_t *e, int64_t post);

void ngx_pgq_outcome_answer(ngx_pgq_ticket_t *t, ngx_pgq_outcome_e outcome,
    ngx_str_t *error_text);
void ngx_pgq_outcome_problem(ngx_http_request_t *r, ngx_pgq_ticket_t *t,
    ngx_pgq_outcome_e outcome, ngx_str_t *error_text, u_char *detail,
    ngx_pgq_problem_t *problem);


#endif /* NGX_PGQ_ENQUEUE_H */
