/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "lane": one libpq connection as an event source of nginx.
 * A lane has an owner, which gives it settings and callbacks.
 */

#ifndef NGX_PGQ_LANE_H
#define NGX_PGQ_LANE_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_pgq_metrics.h"
#include "ngx_pgq_module.h"
#include "ngx_pgq_target.h"
#include "ngx_pgq_words.h"


/* libpq's, named so that who only holds lanes need not include it */

struct pg_conn;
struct pg_result;


#define NGX_PGQ_MAX_PARAMS       4


typedef struct {
    const char              *name;      /* NULL: it is not prepared */
    int                      nparams;
    const char              *text;
} ngx_pgq_lane_statement_t;


typedef struct {
    /* the lane can be used; called after each statement, too */
    void                   (*ready)(ngx_pgq_lane_t *lane);
    /* one result of the statement under way; the lane frees it */
    void                   (*result)(ngx_pgq_lane_t *lane,
                                struct pg_result *res);
    /* the server is ready for the next query, and in no transaction */
    void                   (*done)(ngx_pgq_lane_t *lane);
    /* the connection is gone; with a statement under way, or without */
    void                   (*lost)(ngx_pgq_lane_t *lane);
    /* 1: the lane may connect until turn_over(); 0: it is called later */
    ngx_uint_t             (*turn)(ngx_pgq_lane_t *lane);
    void                   (*turn_over)(ngx_pgq_lane_t *lane);
    /* a closed lane that can replace this one, or NULL */
    ngx_pgq_lane_t        *(*spare)(ngx_pgq_lane_t *lane);
    /* how many requests wait, for the log */
    ngx_uint_t             (*waiting)(ngx_pgq_lane_t *lane);
} ngx_pgq_lane_ops_t;


/* what the lanes of one owner have in common */

typedef struct {
    ngx_str_t                  name;       /* of the pgq_pool, for the log */
    ngx_uint_t                 metrics;    /* its place there */
    ngx_log_t                 *log;
    ngx_pgq_target_t          *target;
    ngx_msec_t                 connect_timeout;
    ngx_msec_t                 answer_timeout;
    ngx_msec_t                 age;        /* until it is replaced; 0: never */
    size_t                     common;     /* of a statement or a result */
    char                      *setup;      /* for each new connection */
    ngx_pgq_lane_statement_t  *statements; /* up to a NULL name: prepared */
    const ngx_pgq_lane_ops_t  *ops;
} ngx_pgq_lane_conf_t;


typedef enum {
    NGX_PGQ_LANE_DOWN = 0,     /* waits for its next attempt */
    NGX_PGQ_LANE_CONNECTING,
    NGX_PGQ_LANE_PREPARING,
    NGX_PGQ_LANE_IDLE,
    NGX_PGQ_LANE_BUSY,         /* one statement under way */
    NGX_PGQ_LANE_CLOSED        /* has no place in the metrics */
} ngx_pgq_lane_state_e;


_Static_assert(NGX_PGQ_LANE_CLOSED == NGX_PGQ_METRICS_LANES,
               "each state but closed is a gauge");


struct ngx_pgq_lane_s {
    const ngx_pgq_lane_conf_t *conf;
    ngx_queue_t                queue;      /* the owner's: idle lanes */
    void                      *owner;
    void                      *data;       /* the owner's: what is under way */
    u_char                     sqlstate[6];    /* the owner's: of a failure */
    u_char                     words[128];

    ngx_pgq_lane_state_e       state;
    struct pg_conn            *conn;
    ngx_connection_t          *connection;
    ngx_connection_t          *reserved;   /* while there is none */
    ngx_pgq_endpoint_t         endpoint;
    ngx_event_t                timer;      /* of the attempt, or the wait */
    ngx_event_t                age;        /* until another takes over */
    ngx_pgq_lane_t            *old;        /* that this one takes over from */
    ngx_msec_t                 since;      /* connected */
    ngx_int_t                  prepared;   /* -1: the setup is next */
    ngx_uint_t                 failures;   /* in a row */
    time_t                     complained;
    u_char                     complaint[8];
    time_t                     warning;    /* of the last WARNING logged */
    u_char                     farewell[6];    /* the server's last word */
    u_char                     farewell_words[128];

    unsigned                   queued:1;   /* the owner's: it is in queue */
    unsigned                   warned:1;   /* a WARNING since the last row */
    unsigned                   flushing:1;
    unsigned                   ripe:1;     /* waits for its turn alone */
    unsigned                   announced:1;    /* the last line: connected */
    unsigned                   leaving:1;  /* closes when it is idle */
};


extern const char  *ngx_pgq_lane_states[];      /* names for the metrics */


void ngx_pgq_lane_open(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_close(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_drop(ngx_pgq_lane_t *lane, const char *why,
    const char *words);
ngx_int_t ngx_pgq_lane_send(ngx_pgq_lane_t *lane, ngx_uint_t statement,
    const char *const *values, const int *lengths);
void ngx_pgq_lane_healthy(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_quote(u_char *dst, size_t size,
    const struct pg_result *res);


/* within the room: its life, how it connects, and how it works */

void ngx_pgq_lane_set(ngx_pgq_lane_t *lane, ngx_pgq_lane_state_e state);
void ngx_pgq_lane_reserve(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_unreserve(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_connected(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_outsized(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_end(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_fail(ngx_pgq_lane_t *lane);

void ngx_pgq_lane_connect(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_connect_late(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_connect_end(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_prepare(ngx_pgq_lane_t *lane);

void ngx_pgq_lane_read_handler(ngx_event_t *rev);
void ngx_pgq_lane_write_handler(ngx_event_t *wev);
ngx_int_t ngx_pgq_lane_flush(ngx_pgq_lane_t *lane);
ngx_uint_t ngx_pgq_lane_fits(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_notice(void *data, const struct pg_result *res);


#endif /* NGX_PGQ_LANE_H */
