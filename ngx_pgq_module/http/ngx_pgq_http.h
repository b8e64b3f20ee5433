/* SPDX-License-Identifier: PostgreSQL */

/*
 * Shared by the files in http/ and ngx_http_pgq_module.c: the configuration,
 * the context of a request, problems, and the functions that read requests
 * and send responses.
 */

#ifndef NGX_PGQ_HTTP_H
#define NGX_PGQ_HTTP_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_pgq_metrics.h"
#include "ngx_pgq_answer.h"
#include "ngx_pgq_read.h"


/* fields.c: the header fields of a request */

typedef enum {
    NGX_PGQ_FORM_JSON = 0,
    NGX_PGQ_FORM_TEXT,
    NGX_PGQ_FORM_ANY,           /* JSON if it is valid, else text */
    NGX_PGQ_FORM_NDJSON,        /* JSON texts, one per line */
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
    ngx_pgq_return_e         returns;       /* the preference "return" */
    ngx_str_t               *key;           /* last Idempotency-Key, or NULL */
    ngx_uint_t               keys;          /* Idempotency-Key fields */
    ngx_str_t                origin;        /* the last Origin field */
    ngx_uint_t               origins;       /* Origin fields */
    ngx_str_t               *last_event_id; /* the last field, or NULL */
    ngx_str_t               *websocket_key;     /* the last one, or NULL */
    ngx_str_t               *websocket_version;
    ngx_int_t                wait;          /* the preference, or -1 */
    unsigned                 type_seen:1;
    unsigned                 encoded:1;     /* a coding other than identity */
    unsigned                 return_seen:1;
    unsigned                 accept_ndjson:1;
    unsigned                 prefer_malformed:1;
    unsigned                 cross_site:1;  /* Sec-Fetch-Site: another site */
    unsigned                 preflight:1;   /* a CORS preflight request */
    unsigned                 websocket:1;   /* Upgrade has it */
    unsigned                 upgrade:1;     /* Connection has it */
    unsigned                 websocket_repeated:1;  /* a second line */
} ngx_pgq_fields_t;


void ngx_pgq_fields_read(ngx_http_request_t *r, ngx_pgq_fields_t *fields);


/* variables.c: the context of a request, for the log and the metrics */

typedef struct {
    ngx_http_request_t      *request;
    ngx_pgq_fields_t         fields;
    ngx_str_t                key;           /* idempotency key, with scope */
    ngx_str_t                topic;         /* of the message; len 0: none */
    ngx_pgq_metrics_handler_e  handler;
    ngx_uint_t               batch;         /* messages in its batch, or 0 */
    ngx_msec_t               wait;          /* ms that the request waited */
    u_char                   id[NGX_PGQ_UUID_LEN];
    unsigned                 ticket:1;      /* id is set */
    unsigned                 replayed:1;
    unsigned                 answered:1;    /* wait and batch are set */

    /* of a stream */
    void                    *reader;        /* ngx_pgq_reader_t; or NULL */
    int64_t                  cursor;        /* id of the last post sent */
    ngx_uint_t               frames;        /* posts sent */
} ngx_pgq_ctx_t;


ngx_int_t ngx_pgq_variables_add(ngx_conf_t *cf);
ngx_int_t ngx_pgq_variables_check(ngx_conf_t *cf, ngx_uint_t rings);
ngx_pgq_ctx_t *ngx_pgq_variables_ctx(ngx_http_request_t *r,
    ngx_pgq_metrics_handler_e handler);


/*
 * Why a request is refused.  A function that reads a request sets the problem
 * and returns NGX_DECLINED; NGX_OK means that the request is accepted so far,
 * NGX_ERROR that this server has failed.  It sends no response.
 */

typedef enum {
#define NGX_PGQ_PROBLEM(name, status, code, title, detail)                    \
    NGX_PGQ_PROBLEM_##name,
#include "ngx_pgq_problem.h"
#undef NGX_PGQ_PROBLEM
    NGX_PGQ_PROBLEMS
} ngx_pgq_problem_e;


typedef struct {
    ngx_uint_t               status;    /* 0: any other status */
    const char              *code;      /* for programs */
    const char              *title;
    const char              *status_line;
    const char              *detail;    /* for people */
} ngx_pgq_problem_row_t;


extern const ngx_pgq_problem_row_t  ngx_pgq_problems[];


typedef struct {
    ngx_pgq_problem_e        kind;
    const char              *detail;    /* NULL: the default detail */
    ngx_int_t                offset;    /* of the first wrong byte, or -1 */
    ngx_int_t                line;      /* line of the message, or 0 */
} ngx_pgq_problem_t;


#define ngx_pgq_problem_init(kind)  { kind, NULL, -1, 0 }


ngx_int_t ngx_pgq_problem_detail(ngx_http_request_t *r,
    ngx_pgq_problem_t *problem, ngx_pgq_problem_e kind, const char *fmt, ...);


/* ndjson.c: the messages of one request, one per line */

typedef struct {
    ngx_http_request_t      *request;
    ngx_uint_t               n;             /* messages */
    size_t                   size;          /* bytes of all messages */
} ngx_pgq_ndjson_t;


ngx_int_t ngx_pgq_ndjson_read(ngx_http_request_t *r, ngx_pgq_ndjson_t *ndjson,
    ngx_pgq_problem_t *problem);
ngx_int_t ngx_pgq_ndjson_write(ngx_pgq_ndjson_t *ndjson, u_char *p);
ngx_uint_t ngx_pgq_ndjson_line(ngx_pgq_ndjson_t *ndjson, ngx_uint_t n);
size_t ngx_pgq_ndjson_answer_size(ngx_pgq_ndjson_t *ndjson);
ngx_int_t ngx_pgq_ndjson_answer(ngx_pgq_ndjson_t *ndjson, u_char *first,
    ngx_str_t *body);


/* the configuration */

typedef struct {
    ngx_array_t              pools;         /* ngx_pgq_pool_t * */
    ngx_array_t              followers;     /* ngx_pgq_follower_t * */
    ngx_shm_zone_t          *metrics;
} ngx_pgq_main_conf_t;


typedef struct {
    ngx_http_handler_pt      handler;
    ngx_pgq_pool_t          *post;
    ngx_pgq_pool_t          *get;
    ngx_pgq_pool_t          *stream;
    ngx_pgq_pool_t          *subscription;
    ngx_pgq_pool_t          *metrics;       /* also of pgq_status, or NULL */
    ngx_pgq_pool_t          *version;       /* NULL: of the first pgq_ring */
    ngx_http_complex_value_t  *version_of;  /* a topic */
    ngx_int_t                readers;       /* of a worker */
    size_t                   backlog;
    ngx_msec_t               heartbeat;
    ngx_msec_t               stream_age;
    ngx_msec_t               drain;
    time_t                   log_cache;     /* seconds; 0: off */
    ngx_flag_t               stream_post;   /* by WebSocket */
    ngx_http_complex_value_t  *stream_until;
    ngx_int_t                depth;
    ngx_int_t                lines;
    ngx_msec_t               timeout;
    ngx_uint_t               idempotency;
    ngx_flag_t               scoped;        /* keys have a scope */
    ngx_http_complex_value_t  *scope;       /* NULL: user name or address */
    ngx_array_t             *origins;       /* ngx_str_t; NULL: none */
    ngx_flag_t               details;       /* the database's error is sent */
    ngx_str_t                prefix;        /* of URIs that name topics */
    ngx_http_complex_value_t  *topic;       /* NULL: from the URI */
    ngx_http_complex_value_t  *topics;      /* NULL: all are permitted */
} ngx_pgq_loc_conf_t;


/* pgq_idempotency */

#define NGX_PGQ_IDEMPOTENCY_OFF       0
#define NGX_PGQ_IDEMPOTENCY_ON        1
#define NGX_PGQ_IDEMPOTENCY_REQUIRED  2


extern ngx_module_t  ngx_http_pgq_module;


/* conf.c */

void *ngx_pgq_conf_create_main(ngx_conf_t *cf);
void *ngx_pgq_conf_create_location(ngx_conf_t *cf);
char *ngx_pgq_conf_merge_location(ngx_conf_t *cf, void *parent, void *child);
char *ngx_pgq_conf_pool(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_pgq_conf_ring(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_pgq_conf_endpoint(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_pgq_conf_version(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_pgq_conf_page(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


ngx_int_t ngx_pgq_enqueue_handler(ngx_http_request_t *r);
void ngx_pgq_enqueue_warn_size(ngx_conf_t *cf, ngx_pgq_pool_t *db);
char *ngx_pgq_enqueue_set_scope(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
ngx_int_t ngx_pgq_message_supported(ngx_pgq_fields_t *fields,
    ngx_pgq_problem_t *problem);
ngx_int_t ngx_pgq_message_read(ngx_http_request_t *r, ngx_pool_t **memory,
    ngx_str_t *message, ngx_pgq_problem_t *problem);
ngx_int_t ngx_pgq_message_key(ngx_http_request_t *r, ngx_str_t *key,
    ngx_pgq_problem_t *problem);
ngx_int_t ngx_pgq_message_scope(ngx_http_request_t *r, ngx_str_t *key,
    ngx_pgq_problem_t *problem);
ngx_int_t ngx_pgq_fetch_handler(ngx_http_request_t *r);
ngx_int_t ngx_pgq_stream_handler(ngx_http_request_t *r);
ngx_int_t ngx_pgq_subscription_handler(ngx_http_request_t *r);
ngx_int_t ngx_pgq_status_metrics_handler(ngx_http_request_t *r);
ngx_int_t ngx_pgq_status_handler(ngx_http_request_t *r);
ngx_int_t ngx_pgq_page_handler(ngx_http_request_t *r);


/*
 * reply.c: each function sends the whole response and returns the code to
 * finalize the request with.  The code comes from nginx's filters and may be
 * NGX_AGAIN: the caller passes it on and does not interpret it.
 */

ngx_int_t ngx_pgq_reply_body(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *type, u_char *data, size_t len);
ngx_int_t ngx_pgq_reply_chain(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *type, ngx_chain_t *out, size_t len);
ngx_int_t ngx_pgq_reply_problem(ngx_http_request_t *r,
    ngx_pgq_problem_t *problem);
ngx_int_t ngx_pgq_reply_default(ngx_http_request_t *r, ngx_pgq_problem_e kind);
ngx_int_t ngx_pgq_reply_unavailable(ngx_http_request_t *r,
    ngx_pgq_pool_t *db, ngx_pgq_problem_e kind);
ngx_table_elt_t *ngx_pgq_reply_header(ngx_http_request_t *r,
    const char *name, ngx_str_t *value);
ngx_int_t ngx_pgq_reply_field(ngx_http_request_t *r, const char *name,
    const char *fmt, ...);
ngx_int_t ngx_pgq_reply_handler(ngx_http_request_t *r);


/* origin.c: which pages may post and read */

char *ngx_pgq_origin_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
void ngx_pgq_origin_init(void);
ngx_uint_t ngx_pgq_origin_foreign(ngx_http_request_t *r,
    ngx_pgq_fields_t *fields);


/* filter.c: the topics of a request, and which ones it may use */

typedef struct ngx_pgq_filter_s  ngx_pgq_filter_t;


ngx_int_t ngx_pgq_filter_topic(ngx_http_request_t *r, ngx_str_t *topic,
    ngx_pgq_problem_t *problem);
ngx_int_t ngx_pgq_filter_asked(ngx_http_request_t *r, ngx_str_t *asked);
ngx_int_t ngx_pgq_filter_read(ngx_http_request_t *r, ngx_str_t *asked,
    ngx_pgq_filter_t **filter, ngx_pgq_problem_t *problem);
ngx_uint_t ngx_pgq_filter_admits(ngx_pgq_filter_t *filter,
    const u_char *topic, size_t len);
ngx_int_t ngx_pgq_filter_sql(ngx_pgq_filter_t *filter, ngx_pool_t *pool,
    ngx_str_t *topics, ngx_str_t *pattern);
char *ngx_pgq_filter_set_rights(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


/*
 * fetch.c: the topics that a request asks for, as a filter and for a query;
 * the response to a read
 */

ngx_int_t ngx_pgq_fetch_filter(ngx_http_request_t *r,
    ngx_pgq_filter_t **filter, ngx_str_t *topics, ngx_str_t *pattern,
    ngx_pgq_problem_t *problem);


ngx_int_t ngx_pgq_fetch_body(ngx_http_request_t *r, ngx_pgq_answer_t *answer);
ngx_int_t ngx_pgq_fetch_failed(ngx_http_request_t *r, ngx_pgq_fetch_t *fetch,
    ngx_pgq_read_result_e result);


/*
 * consumer.c: the requests of consumers.  full() returns 1 if the request is
 * answered as too many wait; wait: for posts, in seconds.
 */

ngx_int_t ngx_pgq_consumer_init(ngx_pgq_pool_t *db, ngx_pool_t *memory);
ngx_uint_t ngx_pgq_consumer_full(ngx_http_request_t *r, ngx_int_t *rc);
ngx_int_t ngx_pgq_consumer_start(ngx_http_request_t *r,
    ngx_pgq_read_query_t *query, ngx_int_t wait);


/* newest.c: answers to GET from the ring */

ngx_int_t ngx_pgq_newest_init(ngx_pgq_pool_t *db, ngx_pool_t *memory);
void ngx_pgq_newest_exit(ngx_pgq_pool_t *db);
ngx_int_t ngx_pgq_newest_answer(ngx_pgq_pool_t *db,
    ngx_pgq_read_query_t *query, ngx_pgq_filter_t *filter,
    ngx_pgq_answer_t **answer, ngx_msec_t *age);


/* endpoint.c: first checks, the body, and waiting */

ngx_uint_t ngx_pgq_endpoint_admits(ngx_http_request_t *r,
    ngx_pgq_fields_t *fields, ngx_uint_t methods, ngx_int_t *rc);
ngx_int_t ngx_pgq_endpoint_receive(ngx_http_request_t *r, ngx_uint_t single,
    ngx_http_client_body_handler_pt handler);
void ngx_pgq_endpoint_wait(ngx_http_request_t *r);


/* argument.c: a number in the query string */

ngx_int_t ngx_pgq_argument_number(ngx_http_request_t *r, const char *name,
    ngx_int_t least, ngx_int_t most, ngx_int_t *n, ngx_pgq_problem_t *problem);


#endif /* NGX_PGQ_HTTP_H */
