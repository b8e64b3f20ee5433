/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the requests of consumers while they wait: for the database, or for
 * posts.  Each question is one call of a function of PostgreSQL, which has all
 * the state.
 *
 * Invariants:
 *  - a request asks (its fetch belongs to a read), or it waits in the list of
 *    its pool, or it is answered; its cleanup ends both;
 *  - a GET that waits asks again when the ring has a newer post than it had
 *    at the last question, and from time to time, as leases end without one;
 *  - those of a subscription ask at the same times, so that they share a read;
 *  - a call whose outcome is unknown is repeated: each can be.  The posts
 *    of a lease whose answer was lost are returned again when it has ended.
 */

#include "ngx_pgq_http.h"
#include "ngx_pgq_ring.h"


#define NGX_PGQ_CONSUMER_POLL    1000    /* ms between two questions */
#define NGX_PGQ_CONSUMER_PAUSE   50      /* the same, with newer posts */


/* the waiting GETs of a pool in this worker; with a ring they are told */

typedef struct {
    ngx_pgq_ring_listener_t  listener;
    ngx_pgq_ring_t          *ring;      /* or NULL */
    ngx_queue_t              waiting;
    ngx_uint_t               n;
} ngx_pgq_consumers_t;


typedef struct {
    ngx_queue_t              queue;     /* in consumers->waiting */
    ngx_pgq_consumers_t     *consumers;
    ngx_pgq_fetch_t          fetch;
    ngx_pgq_read_query_t     query;
    ngx_http_request_t      *request;
    ngx_event_t              timer;     /* the next question */
    ngx_msec_t               start;
    ngx_msec_t               wait;      /* from the start, for posts */
    ngx_msec_t               asked;     /* time of the last question */
    ngx_msec_t               phase;     /* of its times, from the name */
    int64_t                  newest;    /* post of the ring at that time */
    unsigned                 asking:1;
    unsigned                 waiting:1;
} ngx_pgq_consumer_t;


typedef struct {
    const char              *sqlstate;
    ngx_pgq_problem_e        kind;
} ngx_pgq_consumer_refusal_t;


static ngx_int_t ngx_pgq_consumer_ask(ngx_pgq_consumer_t *c);
static int64_t ngx_pgq_consumer_newest(ngx_pgq_consumers_t *consumers);
static void ngx_pgq_consumer_done(ngx_pgq_fetch_t *f,
    ngx_pgq_read_result_e result, ngx_pgq_answer_t *answer);
static ngx_int_t ngx_pgq_consumer_answer(ngx_pgq_consumer_t *c,
    ngx_pgq_answer_t *answer);
static ngx_int_t ngx_pgq_consumer_refused(ngx_http_request_t *r,
    ngx_pgq_call_t *call);
static ngx_int_t ngx_pgq_consumer_status(ngx_http_request_t *r,
    ngx_uint_t status);
static ngx_int_t ngx_pgq_consumer_wait(ngx_pgq_consumer_t *c);
static ngx_msec_t ngx_pgq_consumer_delay(ngx_pgq_consumer_t *c,
    ngx_msec_t period);
static void ngx_pgq_consumer_changed(ngx_pgq_ring_listener_t *l);
static void ngx_pgq_consumer_timer_handler(ngx_event_t *ev);
static void ngx_pgq_consumer_leave(ngx_pgq_consumer_t *c);
static void ngx_pgq_consumer_finish(ngx_pgq_consumer_t *c, ngx_int_t rc);
static void ngx_pgq_consumer_cleanup(void *data);


static ngx_str_t  ngx_pgq_consumer_type = ngx_string("application/json");
static ngx_str_t  ngx_pgq_consumer_none = ngx_string("{\"msg\":[]}");


/* the SQLSTATEs of the functions; any other of class 22 is an argument */

static ngx_pgq_consumer_refusal_t  ngx_pgq_consumer_refusals[] = {
    { "PQ404", NGX_PGQ_PROBLEM_NO_SUBSCRIPTION },
    { "PQ410", NGX_PGQ_PROBLEM_FENCED },
    { "PQ422", NGX_PGQ_PROBLEM_SUBSCRIPTION_DIFFERS },
    { "PQ507", NGX_PGQ_PROBLEM_SUBSCRIPTIONS_FULL },
    { NULL, NGX_PGQ_PROBLEM_BAD_ARGUMENT }
};


ngx_int_t
ngx_pgq_consumer_init(ngx_pgq_pool_t *db, ngx_pool_t *memory)
{
    ngx_pgq_consumers_t  *consumers;

    consumers = ngx_pcalloc(memory, sizeof(ngx_pgq_consumers_t));
    if (consumers == NULL) {
        return NGX_ERROR;
    }

    ngx_queue_init(&consumers->waiting);

    db->consumers->http = consumers;
    consumers->ring = db->ring;

    if (db->ring) {
        consumers->listener.changed = ngx_pgq_consumer_changed;
        consumers->listener.data = consumers;

        ngx_pgq_ring_listen(db->ring, &consumers->listener);
    }

    return NGX_OK;
}


/* 1: the request is answered; *rc is the code to finalize it with */

ngx_uint_t
ngx_pgq_consumer_full(ngx_http_request_t *r, ngx_int_t *rc)
{
    ngx_pgq_pool_t       *db;
    ngx_pgq_loc_conf_t   *plcf;
    ngx_pgq_consumers_t  *consumers;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);
    db = plcf->subscription->consumers;
    consumers = db->http;

    if (db->size >= db->unread_size) {
        *rc = ngx_pgq_reply_unavailable(r, db, NGX_PGQ_PROBLEM_READS_FULL);
        return 1;
    }

    if (db->unanswered + consumers->n >= db->max_tickets) {
        *rc = ngx_pgq_reply_unavailable(r, db, NGX_PGQ_PROBLEM_QUEUE_FULL);
        return 1;
    }

    return 0;
}


ngx_int_t
ngx_pgq_consumer_start(ngx_http_request_t *r, ngx_pgq_read_query_t *query,
    ngx_int_t wait)
{
    ngx_pgq_consumer_t  *c;
    ngx_pool_cleanup_t  *cln;
    ngx_pgq_loc_conf_t  *plcf;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_pgq_consumer_t));
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    c = cln->data;
    ngx_memzero(c, sizeof(ngx_pgq_consumer_t));
    cln->handler = ngx_pgq_consumer_cleanup;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    c->request = r;
    c->query = *query;
    c->query.size = plcf->subscription->answer_size;
    c->start = ngx_current_msec;
    c->wait = wait * 1000;
    c->phase = ngx_crc32_short(query->name.data, query->name.len)
               % NGX_PGQ_CONSUMER_POLL;
    c->consumers = plcf->subscription->consumers->http;

    c->fetch.base.db = plcf->subscription->consumers;
    c->fetch.base.timeout = plcf->timeout;
    c->fetch.done = ngx_pgq_consumer_done;
    c->fetch.data = c;

    c->timer.handler = ngx_pgq_consumer_timer_handler;
    c->timer.data = c;
    c->timer.log = r->connection->log;

    if (ngx_pgq_consumer_ask(c) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_pgq_endpoint_wait(r);

    return NGX_DONE;
}


static ngx_int_t
ngx_pgq_consumer_ask(ngx_pgq_consumer_t *c)
{
    c->asked = ngx_current_msec;
    c->newest = ngx_pgq_consumer_newest(c->consumers);

    if (ngx_pgq_read_join(&c->fetch, &c->query) != NGX_OK) {
        return NGX_ERROR;
    }

    c->asking = 1;

    return NGX_OK;
}


/* the newest post of the ring; 0: there is no ring */

static int64_t
ngx_pgq_consumer_newest(ngx_pgq_consumers_t *consumers)
{
    ngx_pgq_ring_state_t  state;

    if (consumers->ring == NULL) {
        return 0;
    }

    ngx_pgq_ring_state(consumers->ring, &state);

    return state.newest;
}


static void
ngx_pgq_consumer_done(ngx_pgq_fetch_t *f, ngx_pgq_read_result_e result,
    ngx_pgq_answer_t *answer)
{
    ngx_int_t            rc;
    ngx_pgq_consumer_t  *c;
    ngx_http_request_t  *r;

    c = f->data;
    r = c->request;

    c->asking = 0;

    switch (result) {

    case NGX_PGQ_READ_DONE:
        rc = ngx_pgq_consumer_answer(c, answer);
        break;

    case NGX_PGQ_READ_REFUSED:
        rc = ngx_pgq_consumer_refused(r, f->refused);
        break;

    default:
        rc = ngx_pgq_fetch_failed(r, f, result);
    }

    if (rc != NGX_AGAIN || !c->waiting) {
        ngx_pgq_consumer_finish(c, rc);
    }
}


/* returns the code to finalize the request with, unless it waits now */

static ngx_int_t
ngx_pgq_consumer_answer(ngx_pgq_consumer_t *c, ngx_pgq_answer_t *answer)
{
    switch (c->query.special) {

    case NGX_PGQ_QUERY_CONSUME:

        if (answer->posts.nelts == 0) {
            return ngx_pgq_consumer_wait(c);
        }

        return ngx_pgq_fetch_body(c->request, answer);

    case NGX_PGQ_QUERY_SUBSCRIBE:
        return ngx_pgq_consumer_status(c->request, answer->next
                                                   ? NGX_HTTP_CREATED
                                                   : NGX_HTTP_NO_CONTENT);

    case NGX_PGQ_QUERY_UNSUBSCRIBE:

        if (answer->next == 0) {
            return ngx_pgq_reply_default(c->request,
                                         NGX_PGQ_PROBLEM_NO_SUBSCRIPTION);
        }

        /* fall through */

    default: /* NGX_PGQ_QUERY_ACK */
        return ngx_pgq_consumer_status(c->request, NGX_HTTP_NO_CONTENT);
    }
}


/* the text is one of the functions', or of a type of PostgreSQL */

static ngx_int_t
ngx_pgq_consumer_refused(ngx_http_request_t *r, ngx_pgq_call_t *call)
{
    ngx_pgq_problem_t            problem = ngx_pgq_problem_init(0);
    ngx_pgq_consumer_refusal_t  *refusal;

    for (refusal = ngx_pgq_consumer_refusals;
         refusal->sqlstate
         && ngx_strcmp(call->sqlstate, refusal->sqlstate) != 0;
         refusal++)
    {
        /* void */
    }

    if (ngx_pgq_problem_detail(r, &problem, refusal->kind, "%V.",
                               &call->error_text)
        != NGX_DECLINED)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_pgq_reply_problem(r, &problem);
}


static ngx_int_t
ngx_pgq_consumer_status(ngx_http_request_t *r, ngx_uint_t status)
{
    r->headers_out.status = status;
    r->headers_out.content_length_n = 0;
    r->header_only = 1;

    return ngx_http_send_header(r);
}


/* NGX_AGAIN: the request waits; else it has been answered without posts */

static ngx_int_t
ngx_pgq_consumer_wait(ngx_pgq_consumer_t *c)
{
    ngx_msec_t  passed, delay;

    passed = ngx_current_msec - c->start;

    if (passed >= c->wait || ngx_exiting) {
        return ngx_pgq_reply_body(c->request, NGX_HTTP_OK,
                                  &ngx_pgq_consumer_type,
                                  ngx_pgq_consumer_none.data,
                                  ngx_pgq_consumer_none.len);
    }

    delay = ngx_pgq_consumer_delay(c, ngx_pgq_consumer_newest(c->consumers)
                                      == c->newest
                                      ? NGX_PGQ_CONSUMER_POLL
                                      : NGX_PGQ_CONSUMER_PAUSE);

    ngx_queue_insert_tail(&c->consumers->waiting, &c->queue);
    c->consumers->n++;
    c->waiting = 1;

    ngx_add_timer(&c->timer, ngx_min(delay, c->wait - passed));

    return NGX_AGAIN;
}


/* until the next time at which all requests of the subscription ask */

static ngx_msec_t
ngx_pgq_consumer_delay(ngx_pgq_consumer_t *c, ngx_msec_t period)
{
    return period - (ngx_current_msec + c->phase) % period;
}


/* the ring has changed, or the worker exits */

static void
ngx_pgq_consumer_changed(ngx_pgq_ring_listener_t *l)
{
    int64_t               newest;
    ngx_queue_t          *q;
    ngx_msec_t            delay;
    ngx_pgq_consumer_t   *c;
    ngx_pgq_consumers_t  *consumers;

    consumers = l->data;
    newest = ngx_pgq_consumer_newest(consumers);

    for (q = ngx_queue_head(&consumers->waiting);
         q != ngx_queue_sentinel(&consumers->waiting);
         q = ngx_queue_next(q))
    {
        c = ngx_queue_data(q, ngx_pgq_consumer_t, queue);

        if (newest == c->newest && !ngx_exiting) {
            continue;
        }

        delay = ngx_current_msec - c->asked < NGX_PGQ_CONSUMER_PAUSE
                ? ngx_pgq_consumer_delay(c, NGX_PGQ_CONSUMER_PAUSE) : 0;

        if ((ngx_msec_int_t) (c->timer.timer.key - ngx_current_msec)
            > (ngx_msec_int_t) delay)
        {
            /* a timer that is set would not be moved by less than 300 ms */
            ngx_del_timer(&c->timer);
            ngx_add_timer(&c->timer, delay);
        }
    }
}


static void
ngx_pgq_consumer_timer_handler(ngx_event_t *ev)
{
    ngx_pgq_consumer_t  *c = ev->data;

    ngx_pgq_consumer_leave(c);
    c->query.again = 1;

    if (ngx_exiting || ngx_current_msec - c->start >= c->wait) {
        ngx_pgq_consumer_finish(c, ngx_pgq_consumer_wait(c));

    } else if (ngx_pgq_consumer_ask(c) != NGX_OK) {
        ngx_pgq_consumer_finish(c, NGX_HTTP_INTERNAL_SERVER_ERROR);
    }
}


/* the request is no longer in the list */

static void
ngx_pgq_consumer_leave(ngx_pgq_consumer_t *c)
{
    if (!c->waiting) {
        return;
    }

    c->waiting = 0;
    c->consumers->n--;
    ngx_queue_remove(&c->queue);

    if (c->timer.timer_set) {
        ngx_del_timer(&c->timer);
    }
}


static void
ngx_pgq_consumer_finish(ngx_pgq_consumer_t *c, ngx_int_t rc)
{
    ngx_pgq_ctx_t       *ctx;
    ngx_connection_t    *connection;
    ngx_http_request_t  *r;

    r = c->request;
    connection = r->connection;

    ctx = ngx_http_get_module_ctx(r, ngx_http_pgq_module);
    ctx->answered = 1;
    ctx->wait = ngx_current_msec - c->start;

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(connection);
}


static void
ngx_pgq_consumer_cleanup(void *data)
{
    ngx_pgq_consumer_t  *c = data;

    ngx_pgq_consumer_leave(c);

    if (c->asking) {
        ngx_pgq_read_leave(&c->fetch);
    }
}
