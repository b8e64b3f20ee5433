/* SPDX-License-Identifier: PostgreSQL */

/*
 * A reader is a request for posts that waits for more of them, with a cursor:
 * the id up to which it has got every post that it may see.
 */

#ifndef NGX_PGQ_READER_H
#define NGX_PGQ_READER_H


#include "ngx_pgq_http.h"
#include "ngx_pgq_frame.h"
#include "ngx_pgq_read.h"


typedef enum {
    NGX_PGQ_READER_NEWEST = 0,   /* the newest posts, then those after them */
    NGX_PGQ_READER_ID,           /* posts after the cursor */
    NGX_PGQ_READER_UNKNOWN       /* the cursor is not an id */
} ngx_pgq_reader_start_e;


/* why a reader has ended */

typedef enum {
    NGX_PGQ_READER_CLIENT = 0,   /* the client has left */
    NGX_PGQ_READER_AGE,          /* pgq_stream_age */
    NGX_PGQ_READER_UNTIL,        /* pgq_stream_until */
    NGX_PGQ_READER_DRAIN,        /* the worker exits */
    NGX_PGQ_READER_ANSWERED,     /* a long poll */
    NGX_PGQ_READER_REFUSED,      /* what the client sent by WebSocket */

    /* the client cannot be told these */
    NGX_PGQ_READER_TIMEOUT,      /* send_timeout */
    NGX_PGQ_READER_BACKLOG,      /* pgq_backlog */
    NGX_PGQ_READER_ERROR,
    NGX_PGQ_READER_ENDS
} ngx_pgq_reader_end_e;


_Static_assert(NGX_PGQ_READER_ENDS <= NGX_PGQ_METRICS_ENDS
               && NGX_PGQ_TRANSPORTS <= NGX_PGQ_METRICS_TRANSPORTS,
               "each reason and transport has a counter");


typedef struct ngx_pgq_readers_s  ngx_pgq_readers_t;
typedef struct ngx_pgq_socket_s  ngx_pgq_socket_t;


typedef struct {
    ngx_queue_t              queue;         /* in a list of readers */
    ngx_pgq_readers_t       *readers;
    ngx_http_request_t      *request;
    ngx_pgq_ctx_t           *ctx;
    ngx_pgq_socket_t        *socket;        /* its WebSocket, or NULL */

    /* set by the owner before the start */
    ngx_uint_t               transport;     /* ngx_pgq_transport_e */
    ngx_pgq_reader_start_e   start;
    int64_t                  cursor;        /* -1: not known yet */
    ngx_uint_t               newest;        /* posts; may be 0 */
    ngx_pgq_filter_t        *filter;        /* NULL: it may see every post */
    ngx_str_t                topics;        /* the filter, for queries */
    ngx_str_t                pattern;
    ngx_uint_t               limit;         /* posts of a long poll */
    ngx_str_t                time;          /* where it starts; len 0: none */
    ngx_msec_t               heartbeat;     /* or the time of a long poll */
    ngx_msec_t               end;           /* when it ends */
    ngx_pgq_reader_end_e     reason;        /* why it ends then */

    ngx_event_t              timer;         /* heartbeats, and the end */
    ngx_msec_t               sent;          /* time of the last output */
    uint64_t                 epoch;         /* of the ring */
    uint64_t                 mark;          /* end of the ring if blocked */
    ngx_pgq_frame_group_t   *group;         /* being sent, or NULL */
    ngx_chain_t             *free;
    ngx_chain_t             *busy;
    ngx_str_t                body;          /* of a long poll */
    ngx_pgq_problem_e        problem;       /* of one without an answer */
    ngx_pgq_fetch_t          fetch;         /* its question */
    int64_t                  asked;         /* newest id at that time */
    ngx_msec_t               retry;         /* when to ask again */
    ngx_pgq_frame_group_t   *next;          /* to be sent, or NULL */
    unsigned                 opened:1;      /* the first text is sent */
    unsigned                 located:1;     /* the cursor is known */
    unsigned                 blocked:1;     /* the socket takes nothing */
    unsigned                 asking:1;      /* the fetch waits */
    unsigned                 failed:1;      /* the fetch has failed */
    unsigned                 checked:1;     /* the cursor is not ahead */
    unsigned                 left:1;        /* it is in no list */
} ngx_pgq_reader_t;


/* the readers of a pool in this worker */

struct ngx_pgq_readers_s {
    ngx_pgq_ring_listener_t  listener;
    ngx_pgq_pool_t          *db;
    ngx_queue_t              waiting;
    ngx_queue_t              ready;
    ngx_queue_t              blocked;
    ngx_uint_t               n;             /* readers in all lists */
    ngx_event_t              event;         /* runs the ready readers */
    ngx_msec_t               began;         /* when the round began */
    int64_t                  upto;          /* newest id at that time */
    ngx_pgq_frame_cache_t    cache;
    unsigned                 round:1;       /* all readers run once */
    unsigned                 changed:1;     /* another round is to follow */
    unsigned                 draining:1;
};


ngx_int_t ngx_pgq_reader_init(ngx_pgq_pool_t *db, ngx_cycle_t *cycle);
void ngx_pgq_reader_exit(ngx_pgq_pool_t *db);

/* a reader of pgq_stream in the memory of the request */

ngx_pgq_reader_t *ngx_pgq_reader_create(ngx_http_request_t *r,
    ngx_pgq_ctx_t *ctx);

/* called when the header of the response is sent */

void ngx_pgq_reader_start(ngx_pgq_reader_t *rd);

/* called by delivery.c, history.c and socket.c */

void ngx_pgq_reader_move(ngx_pgq_reader_t *rd, ngx_queue_t *list);
void ngx_pgq_reader_ready(ngx_pgq_reader_t *rd);
void ngx_pgq_reader_continue(ngx_pgq_reader_t *rd, ngx_int_t rc);
void ngx_pgq_reader_alarm(ngx_pgq_reader_t *rd);
void ngx_pgq_reader_end_at(ngx_pgq_reader_t *rd, ngx_msec_t end,
    ngx_pgq_reader_end_e reason);
void ngx_pgq_reader_finish(ngx_pgq_reader_t *rd,
    ngx_pgq_reader_end_e reason);

/* delivery.c: what a reader sends */

ngx_int_t ngx_pgq_delivery_step(ngx_pgq_reader_t *rd);
ngx_int_t ngx_pgq_delivery_text(ngx_pgq_reader_t *rd, u_char *text,
    u_char *last);
ngx_int_t ngx_pgq_delivery_output(ngx_pgq_reader_t *rd, ngx_chain_t *out);
ngx_int_t ngx_pgq_delivery_page(ngx_pgq_reader_t *rd);
ngx_int_t ngx_pgq_delivery_located(ngx_pgq_reader_t *rd, int64_t cursor);
ngx_int_t ngx_pgq_delivery_reset(ngx_pgq_reader_t *rd,
    ngx_pgq_reset_e reason, int64_t oldest, int64_t newest);

/* socket.c: the WebSocket of a reader */

ngx_uint_t ngx_pgq_socket_asked(ngx_pgq_reader_t *rd);
ngx_int_t ngx_pgq_socket_create(ngx_pgq_reader_t *rd,
    ngx_pgq_problem_t *problem);
ngx_int_t ngx_pgq_socket_header(ngx_pgq_reader_t *rd);
void ngx_pgq_socket_start(ngx_pgq_socket_t *s);
ngx_int_t ngx_pgq_socket_step(ngx_pgq_socket_t *s);
ngx_uint_t ngx_pgq_socket_waits(ngx_pgq_reader_t *rd);
void ngx_pgq_socket_close(ngx_pgq_socket_t *s, ngx_pgq_reader_end_e reason);

/* history.c: what a reader asks PostgreSQL */

typedef void (*ngx_pgq_history_done_pt)(ngx_pgq_fetch_t *f,
    ngx_pgq_read_result_e result, ngx_pgq_answer_t *answer);


ngx_int_t ngx_pgq_history_ask(ngx_pgq_reader_t *rd,
    ngx_pgq_ring_state_t *state);
ngx_int_t ngx_pgq_history_join(ngx_pgq_reader_t *rd,
    ngx_pgq_read_query_t *query, ngx_pgq_history_done_pt done);


#endif /* NGX_PGQ_READER_H */
