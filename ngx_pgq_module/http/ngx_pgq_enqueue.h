/* SPDX-License-Identifier: PostgreSQL */

/*
 * A POST with its ticket.  enqueue.c creates it, outcome.c answers it.
 */

#ifndef NGX_PGQ_ENQUEUE_H
#define NGX_PGQ_ENQUEUE_H


#include "ngx_pgq_http.h"
#include "ngx_pgq_uuid.h"


/* around the message: {"status":"queued","id":"…","msg":…} */

#define NGX_PGQ_ENQUEUE_HEAD     "{\"status\":\"queued\",\"id\":\""
#define NGX_PGQ_ENQUEUE_MIDDLE   "\",\"msg\":"

#define NGX_PGQ_OUTCOME_DETAIL   256     /* bytes of a detail */

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
    unsigned                 done:1;
    u_char                   body[1];   /* of the response; has the message */
} ngx_pgq_enqueue_t;


void ngx_pgq_outcome_answer(ngx_pgq_ticket_t *t, ngx_pgq_outcome_e outcome,
    ngx_str_t *error_text);
void ngx_pgq_outcome_problem(ngx_http_request_t *r, ngx_pgq_ticket_t *t,
    ngx_pgq_outcome_e outcome, ngx_str_t *error_text, u_char *detail,
    ngx_pgq_problem_t *problem);


#endif /* NGX_PGQ_ENQUEUE_H */
