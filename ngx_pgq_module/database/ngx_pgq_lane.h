/* SPDX-License-Identifier: PostgreSQL */

/*
 * A libpq connection as an event source of nginx.  The owner of a lane gives
 * it settings and callbacks.
 */

#ifndef NGX_PGQ_LANE_H
#define NGX_PGQ_LANE_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_pgq_metrics.h"
#include "ngx_pgq_module.h"
#include "ngx_pgq_resolve.h"
#include "ngx_pgq_error_text.h"


/* libpq's types, for files that do not include libpq */

struct pg_conn;
struct pg_result;


#define NGX_PGQ_MAX_PARAMS       6     /* parameters of a statement */


typedef struct {
    const char              *name;      /* NULL: an unprepared statement */
    int                      nparams;
    const char              *text;
} ngx_pgq_lane_statement_t;


typedef struct {
    /* the lane is idle: it has connected, or has ended a statement */
    void                   (*ready)(ngx_pgq_lane_t *lane);
    /* one result of the statement; the lane frees it */
    void                   (*result)(ngx_pgq_lane_t *lane,
                                struct pg_result *res);
    /* the server is ready for the next query and in no transaction */
    void                   (*done)(ngx_pgq_lane_t *lane);
    /* the connection is lost; a statement may be in progress */
    void                   (*lost)(ngx_pgq_lane_t *lane);
    /* 1: the lane may connect until connect_unlock(); 0: another one connects,
       and the lane's timer event is posted later */
    ngx_uint_t             (*connect_lock)(ngx_pgq_lane_t *lane);
    void                   (*connect_unlock)(ngx_pgq_lane_t *lane);
    /* a closed lane that can replace this one; NULL: none */
    ngx_pgq_lane_t        *(*spare)(ngx_pgq_lane_t *lane);
    /* NOTIFY of a channel that setup listens to; it must not use the lane;
       NULL: ignored */
    void                   (*notified)(ngx_pgq_lane_t *lane,
                                const char *payload);
} ngx_pgq_lane_ops_t;


/* settings of all lanes of one owner */

typedef struct {
    ngx_str_t                  name;       /* name of the pgq_pool, for logs */
    ngx_uint_t                 metrics;    /* the pool's index in metrics */
    ngx_uint_t                *waiting;    /* number of waiting requests */
    ngx_log_t                 *log;
    ngx_pgq_target_t          *target;
    ngx_msec_t                 connect_timeout;
    ngx_msec_t                 answer_timeout;
    ngx_msec_t                 age;        /* of a lane; 0: never replaced */
    /* the lane is replaced after a larger statement or result, in bytes */
    size_t                     large;
    char                      *setup;      /* SQL for each new connection */
    /* prepared are the statements before the first NULL name */
    ngx_pgq_lane_statement_t  *statements;
    const ngx_pgq_lane_ops_t  *ops;
} ngx_pgq_lane_conf_t;


typedef enum {
    NGX_PGQ_LANE_DOWN = 0,     /* in back-off, or connect_due is set */
    NGX_PGQ_LANE_CONNECTING,
    NGX_PGQ_LANE_PREPARING,
    NGX_PGQ_LANE_IDLE,
    NGX_PGQ_LANE_BUSY,         /* runs a statement */
    NGX_PGQ_LANE_CLOSED        /* not in use; has no gauge */
} ngx_pgq_lane_state_e;


_Static_assert(NGX_PGQ_LANE_CLOSED == NGX_PGQ_METRICS_LANES,
               "each state but closed is a gauge");


struct ngx_pgq_lane_s {
    const ngx_pgq_lane_conf_t *conf;
    /* used by the owner only */
    void                      *owner;
    ngx_queue_t                queue;      /* link in the list of idle lanes */
    void                      *data;       /* the call in progress, or NULL */
    u_char                     sqlstate[6];
    u_char                     error_text[NGX_PGQ_ERROR_TEXT_LEN];

    ngx_pgq_lane_state_e       state;
    struct pg_conn            *conn;
    ngx_connection_t          *connection;
    ngx_connection_t          *reserved;   /* kept free for the next attempt */
    ngx_pgq_endpoint_t         endpoint;
    ngx_pgq_resolve_waiter_t   waiter;     /* for the address of its host */
    ngx_event_t                timer;      /* end of back-off, or a timeout */
    ngx_event_t                age;        /* the time to replace the lane */
    ngx_pgq_lane_t            *replaces;   /* lane to close when connected */
    ngx_msec_t                 connected_at;
    ngx_int_t                  prepared;   /* statements; -1: not set up */
    ngx_uint_t                 failures;   /* failed connections in a row */
    time_t                     logged_at;  /* when a failure was last logged */
    u_char                     logged_reason[8];
    time_t                     warned_at;  /* when a WARNING was last logged */
    u_char                     fatal_sqlstate[6];  /* of a FATAL message */
    u_char                     fatal_text[NGX_PGQ_ERROR_TEXT_LEN];

    unsigned                   queued:1;   /* is in the list of idle lanes */
    unsigned                   warned:1;   /* a WARNING since the last row */
    unsigned                   flushing:1; /* libpq has data to send */
    unsigned                   connect_due:1;  /* waits for connect_lock() */
    unsigned                   announced:1;    /* "connected" is logged */
    unsigned                   retiring:1; /* closes when it is idle */
};


#define ngx_pgq_lane_is_connected(lane)                                       \
    ((lane)->state == NGX_PGQ_LANE_IDLE || (lane)->state == NGX_PGQ_LANE_BUSY)


extern const char  *ngx_pgq_lane_states[];      /* names for the metrics */


void ngx_pgq_lane_open(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_close(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_drop(ngx_pgq_lane_t *lane, const char *why,
    const char *text);
ngx_int_t ngx_pgq_lane_send(ngx_pgq_lane_t *lane, ngx_uint_t statement,
    const char *const *values, const int *lengths);
void ngx_pgq_lane_healthy(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_error_text(u_char *dst, size_t size,
    const struct pg_result *res);


/* only for ngx_pgq_lane.c, ngx_pgq_lane_connect.c and ngx_pgq_lane_io.c */

void ngx_pgq_lane_set_state(ngx_pgq_lane_t *lane, ngx_pgq_lane_state_e state);
void ngx_pgq_lane_reserve(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_unreserve(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_connected(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_shrink(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_statement_end(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_fail(ngx_pgq_lane_t *lane);

void ngx_pgq_lane_connect(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_resolve_timeout(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_connect_end(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_prepare(ngx_pgq_lane_t *lane);

void ngx_pgq_lane_read_handler(ngx_event_t *rev);
void ngx_pgq_lane_write_handler(ngx_event_t *wev);
ngx_int_t ngx_pgq_lane_flush(ngx_pgq_lane_t *lane);
ngx_uint_t ngx_pgq_lane_has_role(ngx_pgq_lane_t *lane);
void ngx_pgq_lane_notice(void *data, const struct pg_result *res);


#endif /* NGX_PGQ_LANE_H */
