/* SPDX-License-Identifier: PostgreSQL */

/*
 * The map of the module: its words, its types, and which room owns what.
 *
 *   message  what a client sends
 *   ticket   one waiting request; it outlives its request
 *   batch    tickets that travel and commit together, under one batch id
 *   call     one statement on its way to the database and back
 *   read     the call that answers all GETs that wait for the same posts
 *   lane     one libpq connection of one nginx worker
 *   pool     the lanes of one worker to one database, and what waits for them
 *
 * Calls go one way, along the flow, and come back by callback:
 *
 *   POST -> enqueue -> ticket -> batch -> pool -> call -> lane ==> database
 *           (fields, message,   (batch_io)
 *            ndjson)
 *   GET  -> fetch -> read --------------> pool -> call -> lane ==> database
 *                   (answer)
 *
 * Who has something to count calls metrics, which calls nobody; status shows
 * what was counted, variables what became of one request.
 *
 * The folders: http touches ngx_http_request_t, as the front desk
 * (ngx_http_pgq_module.c) and answer do, and no other file; queue has what
 * waits; database has all that includes libpq; format depends on nothing.
 */

#ifndef NGX_PGQ_MODULE_H
#define NGX_PGQ_MODULE_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_pgq_metrics.h"


typedef struct ngx_pgq_target_s  ngx_pgq_target_t;
typedef struct ngx_pgq_lane_s    ngx_pgq_lane_t;
typedef struct ngx_pgq_call_s    ngx_pgq_call_t;
typedef struct ngx_pgq_pool_s    ngx_pgq_pool_t;
typedef struct ngx_pgq_batch_s   ngx_pgq_batch_t;
typedef struct ngx_pgq_ticket_s  ngx_pgq_ticket_t;


#define NGX_PGQ_VERSION          "1.0"     /* as the extension's */

#define NGX_PGQ_UUID_LEN         16
#define NGX_PGQ_SQLSTATE_LEN     5

#define NGX_PGQ_MAX_TIMEOUT      300000    /* ms, of pgq_timeout */

/* elapsed seconds, by a clock that nobody sets; the same in all workers */

#define ngx_pgq_seconds()        ((time_t) (ngx_current_msec / 1000))

/* s, until a complaint that has not changed is logged again */

#define NGX_PGQ_QUIET            10

/* of the event loop's turn, in milliseconds since 1970: for ids only */

#define ngx_pgq_now()                                                         \
    ((uint64_t) ngx_cached_time->sec * 1000 + ngx_cached_time->msec)


/* of two times to wait, either of which may be -1: none */

static ngx_inline ngx_msec_int_t
ngx_pgq_sooner(ngx_msec_int_t a, ngx_msec_int_t b)
{
    return b < 0 || (a >= 0 && a < b) ? a : b;
}


/* what became of a call, or of a ticket */

typedef enum {
    NGX_PGQ_DONE = 0,      /* committed, here and where it is replicated to */
    NGX_PGQ_REPLAYED,      /* was committed before, under the same key */
    NGX_PGQ_REFUSED,       /* not committed: the data will never be taken */
    NGX_PGQ_FAILED,        /* not committed: the data or the database failed */
    NGX_PGQ_IN_FLIGHT,     /* not committed: its key is under way elsewhere */
    NGX_PGQ_REUSED,        /* not committed: its key is another message's */
    NGX_PGQ_KEYS_FULL,     /* not committed: its key is new, one too many */
    NGX_PGQ_AGAIN,         /* not committed: the database cannot, for now */
    NGX_PGQ_UNKNOWN        /* sent, and nobody said what became of it */
} ngx_pgq_outcome_e;


/*
 * The room "call": one statement, its parameters, and its way back.
 * The owner fills in the upper part, keeps the values alive until done() has
 * been called, and frees the call itself.
 */

typedef enum {
    NGX_PGQ_ENQUEUE = 0,
    NGX_PGQ_ENQUEUE_KEYED,
    NGX_PGQ_ENQUEUE_ALL,
    NGX_PGQ_FENCE
} ngx_pgq_write_e;


typedef enum {
    NGX_PGQ_RECENT = 0
} ngx_pgq_read_e;


#define NGX_PGQ_MAX_PARAMS       4
#define NGX_PGQ_MAX_FIELDS       4


struct ngx_pgq_call_s {
    ngx_uint_t               statement;     /* a write, or a read */
    const char              *values[NGX_PGQ_MAX_PARAMS];
    int                      lengths[NGX_PGQ_MAX_PARAMS];

    /* encodes the parameters, just before they are sent */
    ngx_int_t              (*encode)(ngx_pgq_call_t *call);
    /* one row of the result, as text; absent fields have no data */
    void                   (*row)(ngx_pgq_call_t *call, ngx_str_t *fields);
    /* the end, once a start; the call belongs to its owner again */
    void                   (*done)(ngx_pgq_call_t *call,
                                ngx_pgq_outcome_e outcome);
    void                    *data;

    /* of call.c, while the statement is under way */
    ngx_pgq_outcome_e        outcome;
    unsigned                 answered:1;    /* a result without an error */
    ngx_str_t                problem;       /* until done() returns */
    u_char                  *sqlstate;      /* as long; NULL: not sent */
};


ngx_int_t ngx_pgq_call_start(ngx_pgq_call_t *call, ngx_pgq_lane_t *lane);
ngx_int_t ngx_pgq_call_init_lanes(ngx_pgq_pool_t *pool, ngx_log_t *log);
void ngx_pgq_call_open_lanes(ngx_pgq_pool_t *pool);
void ngx_pgq_call_exit_lanes(ngx_pgq_pool_t *pool);
ngx_uint_t ngx_pgq_call_is_momentary(ngx_pgq_call_t *call);
ngx_uint_t ngx_pgq_call_libpq(void);


/*
 * The room "pool": lanes, and who has work for them.  Configured once, before
 * the workers are made; the lower parts live in each worker.  What pgq_pool
 * configures are two: the pool of POSTs, and in pool->reads the pool of GETs.
 * Each has lanes of its own, so that no POST waits for a GET.
 */

typedef struct {
    /* the next call to make, or NULL */
    ngx_pgq_call_t        *(*next)(ngx_pgq_pool_t *pool);
    /* answers what is too old; ms until more will be, -1 if nothing waits */
    ngx_msec_int_t         (*expire)(ngx_pgq_pool_t *pool, ngx_msec_t now);
    /* the worker ends: frees what is left, answers nobody */
    void                   (*clear)(ngx_pgq_pool_t *pool);
} ngx_pgq_source_t;


#define NGX_PGQ_DRAIN_SECONDS    8      /* what Retry-After is taken from */


struct ngx_pgq_pool_s {
    ngx_str_t                name;
    ngx_uint_t               metrics;       /* its place there */
    ngx_pgq_target_t        *target;
    ngx_uint_t               nlanes;
    ngx_uint_t               batch_tickets;
    size_t                   batch_size;
    ngx_uint_t               max_tickets;
    size_t                   max_size;
    ngx_msec_t               connect_timeout;
    ngx_msec_t               answer_timeout;
    ngx_msec_t               lane_age;
    ngx_uint_t               read_lanes;
    size_t                   answer_size;   /* of the posts in one answer */
    size_t                   unread_size;   /* of all answers not yet read */
    ngx_pgq_pool_t          *reads;         /* the pool of GETs */
    char                    *setup;         /* said to each new connection */
    ngx_flag_t               verify;        /* before a password is sent */

    /* of pool.c */
    ngx_log_t               *log;
    ngx_pgq_lane_t          *lanes;         /* and one more, to renew */
    ngx_pgq_lane_t          *connecting;    /* one at a time */
    ngx_queue_t              idle;          /* lanes without a call */
    ngx_event_t              dispatch;
    ngx_event_t              timer;
    ngx_pgq_source_t        *source;
    ngx_uint_t               unanswered;    /* requests */
    size_t                   counted;       /* of size, by the metrics */
    ngx_uint_t               drained[NGX_PGQ_DRAIN_SECONDS];
    time_t                   drained_at;    /* the last second of them */

    /* of ticket.c; of answer.c in a pool of GETs */
    ngx_queue_t              waiting;       /* oldest first */
    ngx_uint_t               messages;      /* unanswered ones */
    size_t                   size;          /* of them; or of answers */

    /* of enqueue.c */
    size_t                   unread;        /* of answers being sent */

    /* of batch.c */
    ngx_queue_t              again;         /* batches to send again */
    ngx_queue_t              sent;          /* batches on their way */
    ngx_uint_t               committed;     /* batches so far */

    /* of trial.c */
    ngx_uint_t               failures;      /* of batches, in a row */
    ngx_msec_t               failing;       /* since when */
    ngx_msec_t               next_trial;
    time_t                   logged;        /* the last failure */

    /* of read.c */
    ngx_queue_t              fetches;       /* waiting, oldest first */
    ngx_queue_t              fetching;      /* on their way */
    time_t                   complained;

    unsigned                 reading:1;     /* a pool of GETs */
    unsigned                 opened:1;      /* has its lanes */
};


ngx_int_t ngx_pgq_pool_reads(ngx_conf_t *cf, ngx_pgq_pool_t *pool);
ngx_int_t ngx_pgq_pool_init(ngx_pgq_pool_t *pool, ngx_cycle_t *cycle);
void ngx_pgq_pool_exit(ngx_pgq_pool_t *pool);
void ngx_pgq_pool_open(ngx_pgq_pool_t *pool);
void ngx_pgq_pool_hold(ngx_pgq_pool_t *pool, ngx_msec_t deadline);
void ngx_pgq_pool_alarm(ngx_pgq_pool_t *pool, ngx_msec_t moment);
void ngx_pgq_pool_release(ngx_pgq_pool_t *pool);
void ngx_pgq_pool_count(ngx_pgq_pool_t *pool, ngx_int_t tickets);
void ngx_pgq_pool_drained(ngx_pgq_pool_t *pool);
void ngx_pgq_pool_wake(ngx_pgq_pool_t *pool);
ngx_uint_t ngx_pgq_pool_retry_after(ngx_pgq_pool_t *pool);
ngx_uint_t ngx_pgq_pool_connected(ngx_pgq_pool_t *pool);

/* of call.c, when a lane has nothing to do, and when it is lost */
void ngx_pgq_pool_lane_idle(ngx_pgq_lane_t *lane);
void ngx_pgq_pool_lane_gone(ngx_pgq_lane_t *lane);


/* The room "ticket": they wait here, and are answered. */

typedef void (*ngx_pgq_ticket_answer_pt)(ngx_pgq_ticket_t *t,
    ngx_pgq_outcome_e outcome, ngx_str_t *problem);


struct ngx_pgq_ticket_s {
    ngx_queue_t              queue;         /* in pool->waiting, or a batch */
    ngx_pgq_pool_t          *pool;
    ngx_pgq_batch_t         *batch;         /* NULL while waiting */
    ngx_msec_t               start;
    ngx_msec_t               timeout;
    ngx_uint_t               mates;         /* size of its batch, or 0 */
    u_char                   id[NGX_PGQ_UUID_LEN];  /* the first one's */
    ngx_str_t                key;           /* len 0: none */
    ngx_uint_t               n;             /* messages */
    size_t                   len;           /* of them all */
    u_char                  *message;       /* lives as long as the ticket */

    /*
     * For many messages, all or none of which are to be queued: writes them
     * as the items of an array, each time they are sent.
     */
    ngx_int_t              (*write)(ngx_pgq_ticket_t *t, u_char *p);

    /*
     * Called once, unless the ticket was left.  On NGX_PGQ_DONE and
     * NGX_PGQ_REPLAYED, whose problem is the former id as text, the ticket is
     * the caller's again; otherwise the room keeps and frees it.
     */
    ngx_pgq_ticket_answer_pt  answer;
    void                    *data;

    /* of batch_io.c: what the database says of it, when it is committed */
    ngx_pgq_outcome_e        verdict;
    ngx_uint_t               ordinal;       /* of the message to blame */
    u_char                   sqlstate[NGX_PGQ_SQLSTATE_LEN];
    ngx_str_t                problem;
};


#define ngx_pgq_ticket_wait(t)  (ngx_current_msec - (t)->start)


ngx_uint_t ngx_pgq_ticket_full(ngx_pgq_pool_t *pool, ngx_uint_t n,
    size_t len);
void ngx_pgq_ticket_add(ngx_pgq_ticket_t *t);
void ngx_pgq_ticket_leave(ngx_pgq_ticket_t *t);
ngx_msec_int_t ngx_pgq_ticket_expire(ngx_queue_t *tickets, ngx_msec_t now,
    ngx_pgq_outcome_e outcome);
void ngx_pgq_ticket_answer(ngx_pgq_ticket_t *t, ngx_pgq_outcome_e outcome,
    ngx_str_t *problem);
void ngx_pgq_ticket_free(ngx_queue_t *tickets);


/* The room "batch": tickets leave together. */

void ngx_pgq_batch_init(ngx_pgq_pool_t *pool);


/* The room "fields": what the headers of a request say. */

typedef enum {
    NGX_PGQ_FORM_JSON = 0,
    NGX_PGQ_FORM_TEXT,
    NGX_PGQ_FORM_ANY,           /* JSON if it is JSON, else text */
    NGX_PGQ_FORM_NDJSON,        /* JSON texts, one a line */
    NGX_PGQ_FORM_UNSUPPORTED,
    NGX_PGQ_FORM_MALFORMED
} ngx_pgq_form_e;


typedef enum {
    NGX_PGQ_RETURN_DEFAULT = 0,
    NGX_PGQ_RETURN_MINIMAL,
    NGX_PGQ_RETURN_REPRESENTATION
} ngx_pgq_return_e;


typedef struct {
    ngx_pgq_form_e           form;
    ngx_pgq_return_e         returns;       /* of Prefer */
    ngx_str_t               *key;           /* the last one's value, or NULL */
    ngx_uint_t               keys;          /* how many there are */
    unsigned                 coded:1;       /* has a content coding */
    unsigned                 typed:1;
    unsigned                 return_seen:1;
    unsigned                 prefer_malformed:1;
} ngx_pgq_fields_t;


/* what a browser says of the page that sent the request */

typedef struct {
    ngx_str_t                origin;        /* the last one's value */
    ngx_uint_t               origins;       /* how many there are */
    unsigned                 cross_site:1;
    unsigned                 preflight:1;   /* asks for a method */
} ngx_pgq_fields_page_t;


void ngx_pgq_fields_read(ngx_http_request_t *r, ngx_pgq_fields_t *fields);
void ngx_pgq_fields_page(ngx_http_request_t *r, ngx_pgq_fields_page_t *page);


/* The room "variables": what is told of a request when it is over. */

typedef struct {
    ngx_http_request_t      *request;
    ngx_pgq_fields_t         fields;        /* of a POST */
    ngx_str_t                key;           /* of a POST; len 0: none */
    ngx_pgq_metrics_handler_e  handler;
    ngx_uint_t               batch;         /* messages, or 0 */
    ngx_msec_t               wait;
    u_char                   id[NGX_PGQ_UUID_LEN];
    unsigned                 ticket:1;      /* id is set */
    unsigned                 replayed:1;
    unsigned                 answered:1;    /* wait is set */
} ngx_pgq_ctx_t;


ngx_int_t ngx_pgq_variables_add(ngx_conf_t *cf);
ngx_pgq_ctx_t *ngx_pgq_variables_ctx(ngx_http_request_t *r,
    ngx_pgq_metrics_handler_e handler);


/*
 * Why a request is refused.  The functions that read a request fill in what
 * differs from ngx_pgq_problem_init, and return NGX_DECLINED; NGX_OK means
 * that the request may go on, NGX_ERROR that this server has failed.  They
 * answer nothing themselves.
 */

#define NGX_PGQ_PROBLEM_TEXT     192      /* of a detail made for it */


typedef struct {
    ngx_uint_t               status;
    const char              *code;      /* for programs: a word */
    const char              *detail;    /* for people: a sentence */
    ngx_int_t                offset;    /* of the offending byte, or -1 */
    ngx_int_t                line;      /* the offending one, or 0 */
} ngx_pgq_problem_t;


#define ngx_pgq_problem_init     { 0, NULL, NULL, -1, 0 }


/* The room "ndjson": the messages of one request, one a line. */

typedef struct {
    ngx_http_request_t      *request;
    ngx_uint_t               n;
    size_t                   size;          /* of all messages */
} ngx_pgq_ndjson_t;


ngx_int_t ngx_pgq_ndjson_read(ngx_http_request_t *r, ngx_pgq_ndjson_t *ndjson,
    ngx_pgq_problem_t *problem);
ngx_int_t ngx_pgq_ndjson_write(ngx_pgq_ndjson_t *ndjson, u_char *p);
ngx_uint_t ngx_pgq_ndjson_line(ngx_pgq_ndjson_t *ndjson, ngx_uint_t n);
size_t ngx_pgq_ndjson_answer_size(ngx_pgq_ndjson_t *ndjson);
ngx_int_t ngx_pgq_ndjson_answer(ngx_pgq_ndjson_t *ndjson, u_char *first,
    ngx_str_t *body);


/* The room "parameter": what pgq_pool is told of a pool. */

void ngx_pgq_parameter_defaults(ngx_pgq_pool_t *pool);
char *ngx_pgq_parameter_read(ngx_conf_t *cf, ngx_pgq_pool_t *pool,
    ngx_str_t *parameter);
void ngx_pgq_parameter_warn(ngx_conf_t *cf, ngx_pgq_pool_t *pool);
char *ngx_pgq_parameter_scope(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


/* The doors, and what goes out through them. */

typedef struct {
    ngx_array_t              pools;         /* ngx_pgq_pool_t * */
    ngx_shm_zone_t          *metrics;
} ngx_pgq_main_conf_t;


typedef struct {
    ngx_http_handler_pt      handler;       /* of the door, or the page */
    ngx_pgq_pool_t          *post;
    ngx_pgq_pool_t          *get;
    ngx_int_t                depth;
    ngx_int_t                lines;
    ngx_msec_t               timeout;
    ngx_uint_t               idempotency;
    ngx_flag_t               scoped;        /* keys have a scope */
    ngx_http_complex_value_t  *scope;       /* NULL: user, else address */
    ngx_array_t             *origins;       /* ngx_str_t; NULL: none */
    ngx_flag_t               details;       /* of the database's refusals */
} ngx_pgq_loc_conf_t;


/* pgq_idempotency */

#define NGX_PGQ_IDEMPOTENCY_OFF       0
#define NGX_PGQ_IDEMPOTENCY_ON        1
#define NGX_PGQ_IDEMPOTENCY_REQUIRED  2


extern ngx_module_t  ngx_http_pgq_module;


ngx_int_t ngx_pgq_enqueue_handler(ngx_http_request_t *r);
ngx_int_t ngx_pgq_message_announced(ngx_http_request_t *r,
    ngx_pgq_problem_t *problem);
ngx_uint_t ngx_pgq_message_ndjson(ngx_http_request_t *r);
ngx_int_t ngx_pgq_message_read(ngx_http_request_t *r, ngx_pool_t **memory,
    ngx_str_t *message, ngx_pgq_problem_t *problem);
ngx_int_t ngx_pgq_message_key(ngx_http_request_t *r, ngx_str_t *key,
    ngx_pgq_problem_t *problem);
ngx_pgq_return_e ngx_pgq_message_returns(ngx_http_request_t *r);
ngx_int_t ngx_pgq_fetch_handler(ngx_http_request_t *r);
void ngx_pgq_read_init(ngx_pgq_pool_t *pool);
ngx_int_t ngx_pgq_status_metrics_handler(ngx_http_request_t *r);
ngx_int_t ngx_pgq_status_handler(ngx_http_request_t *r);


/*
 * The room "reply".  Each function answers the whole request and returns what
 * the request is to be finalized with.  That is whatever nginx's filters have
 * returned, NGX_AGAIN included while the client does not read: it may only be
 * handed on to nginx, and no value of it has a meaning of ours.
 */

ngx_int_t ngx_pgq_reply_body(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *type, u_char *data, size_t len);
ngx_int_t ngx_pgq_reply_chain(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *type, ngx_chain_t *out, size_t len);
ngx_int_t ngx_pgq_reply_problem(ngx_http_request_t *r,
    ngx_pgq_problem_t *problem);
ngx_int_t ngx_pgq_reply_options(ngx_http_request_t *r, ngx_str_t *allow);
ngx_int_t ngx_pgq_reply_method(ngx_http_request_t *r, ngx_str_t *allow);
ngx_int_t ngx_pgq_reply_unavailable(ngx_http_request_t *r,
    ngx_pgq_pool_t *pool, const char *code, const char *detail);
ngx_table_elt_t *ngx_pgq_reply_header(ngx_http_request_t *r,
    const char *name, ngx_str_t *value);
ngx_int_t ngx_pgq_reply_handler(ngx_http_request_t *r);


/* The room "origin": which pages of browsers may post and read. */

char *ngx_pgq_origin_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
void ngx_pgq_origin_init(void);
ngx_uint_t ngx_pgq_origin_foreign(ngx_http_request_t *r);
ngx_int_t ngx_pgq_origin_refuse(ngx_http_request_t *r);


#endif /* NGX_PGQ_MODULE_H */
