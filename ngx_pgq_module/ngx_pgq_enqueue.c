/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "enqueue" is the door for POST: it makes a ticket of a request and
 * its message or messages, and an answer of the ticket's outcome.
 * It allocates the ticket, for one message in one piece with the answer's body
 * around it, and frees it when it comes back with the message queued.
 *
 * Called by nginx; calls message, bulk, ticket (full, add, leave, end), record
 * and reply.
 *
 * Invariants:
 *  - a request with a ticket has a cleanup that points at it; whichever of
 *    the two ends first cuts the other's pointer;
 *  - the ticket is the first field of what is allocated, so that the ticket
 *    room may free it;
 *  - what cannot wait any more is refused before its body is read, and again
 *    when it has been.
 */

#include "ngx_pgq_module.h"
#include "ngx_pgq_json.h"
#include "ngx_pgq_uuid.h"


/* around the message: {"status":"queued","id":"…","msg":…} */

#define NGX_PGQ_ENQUEUE_HEAD     "{\"status\":\"queued\",\"id\":\""
#define NGX_PGQ_ENQUEUE_MIDDLE   "\",\"msg\":"

#define NGX_PGQ_ENQUEUE_HEAD_LEN                                              \
    (sizeof(NGX_PGQ_ENQUEUE_HEAD) - 1 + NGX_PGQ_UUID_TEXT_LEN                 \
     + sizeof(NGX_PGQ_ENQUEUE_MIDDLE) - 1)


typedef struct {
    ngx_pgq_ticket_t         ticket;
    ngx_http_request_t      *request;
    ngx_pool_cleanup_t      *cleanup;
    ngx_pgq_record_t        *record;
    ngx_pgq_bulk_t           bulk;
    unsigned                 done:1;
    unsigned                 minimal:1;
    u_char                   body[1];   /* the answer's, around the message */
} ngx_pgq_enqueue_t;


static void ngx_pgq_enqueue_body_handler(ngx_http_request_t *r);
static ngx_int_t ngx_pgq_enqueue_message(ngx_http_request_t *r);
static ngx_int_t ngx_pgq_enqueue_one(ngx_http_request_t *r,
    ngx_str_t *message, ngx_str_t *key);
static ngx_int_t ngx_pgq_enqueue_messages(ngx_http_request_t *r);
static ngx_int_t ngx_pgq_enqueue_refuse(ngx_http_request_t *r, ngx_int_t rc,
    ngx_pgq_problem_t *problem);
static ngx_pgq_enqueue_t *ngx_pgq_enqueue_create(ngx_http_request_t *r,
    ngx_str_t *key, size_t body);
static ngx_int_t ngx_pgq_enqueue_wait(ngx_pgq_enqueue_t *e);
static ngx_int_t ngx_pgq_enqueue_write(ngx_pgq_ticket_t *t, u_char *p);
static void ngx_pgq_enqueue_cleanup(void *data);
static void ngx_pgq_enqueue_answer(ngx_pgq_ticket_t *t,
    ngx_pgq_outcome_e outcome, ngx_str_t *problem);
static ngx_int_t ngx_pgq_enqueue_replay(ngx_pgq_enqueue_t *e,
    ngx_str_t *former);
static ngx_int_t ngx_pgq_enqueue_accepted(ngx_pgq_enqueue_t *e);
static ngx_int_t ngx_pgq_enqueue_body(ngx_pgq_enqueue_t *e, ngx_str_t *body);
static ngx_int_t ngx_pgq_enqueue_failed(ngx_pgq_enqueue_t *e,
    ngx_http_request_t *r, ngx_pgq_outcome_e outcome, ngx_str_t *problem);
static ngx_int_t ngx_pgq_enqueue_refused(ngx_pgq_enqueue_t *e,
    ngx_http_request_t *r, ngx_str_t *problem);


static ngx_str_t  ngx_pgq_enqueue_allow = ngx_string("POST, OPTIONS");
static ngx_str_t  ngx_pgq_enqueue_accept =
    ngx_string("application/json, text/plain, application/x-ndjson");
static ngx_str_t  ngx_pgq_enqueue_type = ngx_string("application/json");
static ngx_str_t  ngx_pgq_enqueue_applied = ngx_string("return=minimal");
static ngx_str_t  ngx_pgq_enqueue_replayed = ngx_string("true");
static ngx_str_t  ngx_pgq_enqueue_soon = ngx_string("1");


ngx_int_t
ngx_pgq_enqueue_handler(ngx_http_request_t *r)
{
    ngx_int_t            rc;
    ngx_pgq_record_t    *record;
    ngx_pgq_problem_t    problem = ngx_pgq_problem_init;
    ngx_pgq_loc_conf_t  *plcf;

    record = ngx_pgq_record(r, NGX_PGQ_METRICS_POST);
    if (record == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_set_ctx(r, record, ngx_http_pgq_module);

    if (r->method == NGX_HTTP_OPTIONS) {
        return ngx_pgq_reply_options(r, &ngx_pgq_enqueue_allow);
    }

    if (r->method != NGX_HTTP_POST) {
        return ngx_pgq_reply_method(r, &ngx_pgq_enqueue_allow);
    }

    rc = ngx_pgq_message_announced(r, &problem);
    if (rc != NGX_OK) {
        return ngx_pgq_enqueue_refuse(r, rc, &problem);
    }

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    if (ngx_pgq_ticket_full(plcf->post, r->headers_in.content_length_n > 0
                                        ? r->headers_in.content_length_n : 0))
    {
        return ngx_pgq_reply_unavailable(r, plcf->post, "queue_full",
                      "Too many messages wait here; this one was not queued.");
    }

    r->request_body_in_single_buf = !ngx_pgq_message_bulk(r);

    rc = ngx_http_read_client_request_body(r, ngx_pgq_enqueue_body_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    return NGX_DONE;
}


static void
ngx_pgq_enqueue_body_handler(ngx_http_request_t *r)
{
    ngx_int_t  rc;

    /* the handler has asked the headers which it is */

    rc = r->request_body_in_single_buf ? ngx_pgq_enqueue_message(r)
                                       : ngx_pgq_enqueue_messages(r);

    ngx_http_finalize_request(r, rc);
}


/*
 * These return what the request is to be finalized with: NGX_DONE when it
 * waits, with a ticket that holds a reference of its own.
 */

static ngx_int_t
ngx_pgq_enqueue_message(ngx_http_request_t *r)
{
    ngx_int_t           rc;
    ngx_str_t           message, key;
    ngx_pool_t         *memory;
    ngx_pgq_problem_t   problem = ngx_pgq_problem_init;

    rc = ngx_pgq_message_read(r, &memory, &message, &problem);

    if (rc == NGX_OK) {
        rc = ngx_pgq_message_key(r, &key, &problem);
    }

    rc = rc == NGX_OK ? ngx_pgq_enqueue_one(r, &message, &key)
                      : ngx_pgq_enqueue_refuse(r, rc, &problem);

    if (memory) {
        ngx_destroy_pool(memory);
    }

    return rc;
}


static ngx_int_t
ngx_pgq_enqueue_one(ngx_http_request_t *r, ngx_str_t *message, ngx_str_t *key)
{
    u_char             *p;
    ngx_pgq_enqueue_t  *e;

    e = ngx_pgq_enqueue_create(r, key,
                               NGX_PGQ_ENQUEUE_HEAD_LEN + message->len + 1);
    if (e == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_pgq_uuid_v7(e->ticket.id, ngx_pgq_now());

    p = ngx_cpymem(e->body, NGX_PGQ_ENQUEUE_HEAD,
                   sizeof(NGX_PGQ_ENQUEUE_HEAD) - 1);
    p = ngx_pgq_uuid_print(p, e->ticket.id);
    p = ngx_cpymem(p, NGX_PGQ_ENQUEUE_MIDDLE,
                   sizeof(NGX_PGQ_ENQUEUE_MIDDLE) - 1);

    e->ticket.n = 1;
    e->ticket.len = message->len;
    e->ticket.message = p;

    p = ngx_cpymem(p, message->data, message->len);
    *p = '}';

    e->minimal = ngx_pgq_message_returns(r) == NGX_PGQ_RETURN_MINIMAL;

    return ngx_pgq_enqueue_wait(e);
}


/* the same for many of them */

static ngx_int_t
ngx_pgq_enqueue_messages(ngx_http_request_t *r)
{
    ngx_int_t           rc;
    ngx_str_t           key;
    ngx_pgq_bulk_t      bulk;
    ngx_pgq_enqueue_t  *e;
    ngx_pgq_problem_t   problem = ngx_pgq_problem_init;

    rc = ngx_pgq_bulk_read(r, &bulk, &problem);

    if (rc == NGX_OK) {
        rc = ngx_pgq_message_key(r, &key, &problem);
    }

    if (rc != NGX_OK) {
        return ngx_pgq_enqueue_refuse(r, rc, &problem);
    }

    e = ngx_pgq_enqueue_create(r, &key, 0);
    if (e == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_pgq_uuid_v7_first(e->ticket.id, ngx_pgq_now());

    e->bulk = bulk;
    e->ticket.n = bulk.n;
    e->ticket.len = bulk.size;
    e->ticket.write = ngx_pgq_enqueue_write;

    return ngx_pgq_enqueue_wait(e);
}


/* what a function that reads the request has returned, but NGX_OK */

static ngx_int_t
ngx_pgq_enqueue_refuse(ngx_http_request_t *r, ngx_int_t rc,
    ngx_pgq_problem_t *problem)
{
    if (rc != NGX_DECLINED) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "pgq enqueue: refused: %s, %s", problem->code,
                  problem->detail);

    if (problem->status == NGX_HTTP_UNSUPPORTED_MEDIA_TYPE
        && ngx_pgq_reply_header(r, "Accept-Post", &ngx_pgq_enqueue_accept)
           == NULL)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_pgq_reply_problem(r, problem);
}


static ngx_pgq_enqueue_t *
ngx_pgq_enqueue_create(ngx_http_request_t *r, ngx_str_t *key, size_t body)
{
    ngx_pgq_enqueue_t   *e;
    ngx_pool_cleanup_t  *cln;
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    e = ngx_alloc(offsetof(ngx_pgq_enqueue_t, body) + body,
                  r->connection->log);
    if (e == NULL) {
        return NULL;
    }

    ngx_memzero(e, offsetof(ngx_pgq_enqueue_t, body));

    e->request = r;
    e->cleanup = cln;
    e->record = ngx_http_get_module_ctx(r, ngx_http_pgq_module);
    e->ticket.pool = plcf->post;
    e->ticket.timeout = plcf->timeout;
    e->ticket.key = *key;
    e->ticket.answer = ngx_pgq_enqueue_answer;
    e->ticket.data = e;

    return e;
}


static ngx_int_t
ngx_pgq_enqueue_wait(ngx_pgq_enqueue_t *e)
{
    ngx_pgq_pool_t      *pool;
    ngx_http_request_t  *r;

    r = e->request;
    pool = e->ticket.pool;

    /* the rest may have filled up while the body arrived */

    if (ngx_pgq_ticket_full(pool, e->ticket.len)) {
        ngx_free(e);
        return ngx_pgq_reply_unavailable(r, pool, "queue_full",
                      "Too many messages wait here; this one was not queued.");
    }

    e->record->ticket = 1;
    ngx_memcpy(e->record->id, e->ticket.id, NGX_PGQ_UUID_LEN);

    e->cleanup->handler = ngx_pgq_enqueue_cleanup;
    e->cleanup->data = e;

    r->main->count++;
    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    ngx_pgq_ticket_add(&e->ticket);

    return NGX_DONE;
}


static ngx_int_t
ngx_pgq_enqueue_write(ngx_pgq_ticket_t *t, u_char *p)
{
    ngx_pgq_enqueue_t  *e = t->data;

    return ngx_pgq_bulk_write(&e->bulk, p);
}


static void
ngx_pgq_enqueue_cleanup(void *data)
{
    ngx_pgq_enqueue_t  *e = data;

    if (e->done) {
        ngx_pgq_ticket_end(&e->ticket);
        ngx_free(e);

    } else {
        ngx_pgq_ticket_leave(&e->ticket);
    }
}


static void
ngx_pgq_enqueue_answer(ngx_pgq_ticket_t *t, ngx_pgq_outcome_e outcome,
    ngx_str_t *problem)
{
    ngx_int_t            rc;
    ngx_connection_t    *c;
    ngx_pgq_enqueue_t   *e;
    ngx_http_request_t  *r;

    e = t->data;
    r = e->request;
    c = r->connection;

    e->record->answered = 1;
    e->record->batch = t->mates;
    e->record->wait = ngx_pgq_ticket_wait(t);

    if (outcome == NGX_PGQ_DONE || outcome == NGX_PGQ_REPLAYED) {
        e->done = 1;
        rc = outcome == NGX_PGQ_REPLAYED ? ngx_pgq_enqueue_replay(e, problem)
                                         : ngx_pgq_enqueue_accepted(e);

    } else {
        e->cleanup->handler = NULL;
        rc = ngx_pgq_enqueue_failed(e, r, outcome, problem);
    }

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


/* queued some time before, under an id that is told again */

static ngx_int_t
ngx_pgq_enqueue_replay(ngx_pgq_enqueue_t *e, ngx_str_t *former)
{
    if (former->len != NGX_PGQ_UUID_TEXT_LEN
        || ngx_pgq_uuid_read(e->ticket.id, former->data) != 0)
    {
        ngx_log_error(NGX_LOG_ALERT, e->request->connection->log, 0,
                      "pgq enqueue: a replay without its id");
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    e->record->replayed = 1;
    ngx_memcpy(e->record->id, e->ticket.id, NGX_PGQ_UUID_LEN);

    if (e->ticket.write == NULL) {
        (void) ngx_pgq_uuid_print(e->body + sizeof(NGX_PGQ_ENQUEUE_HEAD) - 1,
                                  e->ticket.id);
    }

    if (ngx_pgq_reply_header(e->request, "Idempotency-Replayed",
                             &ngx_pgq_enqueue_replayed)
        == NULL)
    {
        return NGX_ERROR;
    }

    return ngx_pgq_enqueue_accepted(e);
}


static ngx_int_t
ngx_pgq_enqueue_accepted(ngx_pgq_enqueue_t *e)
{
    ngx_str_t  body;

    if (e->ticket.write) {
        if (ngx_pgq_bulk_answer(&e->bulk, e->ticket.id, &body) != NGX_OK) {
            return NGX_ERROR;
        }

    } else if (ngx_pgq_enqueue_body(e, &body) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_pgq_reply_body(e->request, NGX_HTTP_ACCEPTED,
                              &ngx_pgq_enqueue_type, body.data, body.len);
}


/* the answer for one message */

static ngx_int_t
ngx_pgq_enqueue_body(ngx_pgq_enqueue_t *e, ngx_str_t *body)
{
    body->data = e->body;
    body->len = NGX_PGQ_ENQUEUE_HEAD_LEN + e->ticket.len + 1;

    if (!e->minimal) {
        return NGX_OK;
    }

    /* {"status":"queued","id":"…"} */

    body->len = sizeof(NGX_PGQ_ENQUEUE_HEAD) - 1 + NGX_PGQ_UUID_TEXT_LEN;
    e->body[body->len++] = '"';
    e->body[body->len++] = '}';

    return ngx_pgq_reply_header(e->request, "Preference-Applied",
                                &ngx_pgq_enqueue_applied)
           ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_pgq_enqueue_failed(ngx_pgq_enqueue_t *e, ngx_http_request_t *r,
    ngx_pgq_outcome_e outcome, ngx_str_t *problem)
{
    ngx_pgq_problem_t  document = { 504, "outcome_unknown",
                         "The database did not say in time whether the"
                         " message was queued: it was, or it never will be.",
                         -1, 0 };

    switch (outcome) {

    case NGX_PGQ_REFUSED:
        return ngx_pgq_enqueue_refused(e, r, problem);

    case NGX_PGQ_IN_FLIGHT:
        document.status = NGX_HTTP_CONFLICT;
        document.code = "key_in_flight";
        document.detail = "A message with this Idempotency-Key is on its way;"
                          " this one was not queued.";

        if (ngx_pgq_reply_header(r, "Retry-After", &ngx_pgq_enqueue_soon)
            == NULL)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        break;

    case NGX_PGQ_REUSED:
        document.status = 422;
        document.code = "key_reused";
        document.detail = "This Idempotency-Key was used with another"
                          " message; this one was not queued.";
        break;

    case NGX_PGQ_KEYS_FULL:
        return ngx_pgq_reply_unavailable(r, e->ticket.pool, "keys_full",
                          "There are too many idempotency keys; the message"
                          " was not queued.");

    case NGX_PGQ_UNKNOWN:
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "pgq enqueue: outcome unknown after %M ms",
                      ngx_pgq_ticket_wait(&e->ticket));
        break;

    default: /* NGX_PGQ_AGAIN */
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "pgq enqueue: no database in %M ms",
                      ngx_pgq_ticket_wait(&e->ticket));

        return ngx_pgq_reply_unavailable(r, e->ticket.pool, "no_database",
                          "No database took the message in time; it was not"
                          " queued.");
    }

    return ngx_pgq_reply_problem(r, &document);
}


static ngx_int_t
ngx_pgq_enqueue_refused(ngx_pgq_enqueue_t *e, ngx_http_request_t *r,
    ngx_str_t *problem)
{
    u_char                *last, detail[192];
    ngx_pgq_problem_t      document = { NGX_HTTP_BAD_REQUEST, "refused",
                                        (char *) detail, -1, 0 };
    ngx_pgq_json_error_t   err;

    if (e->ticket.ordinal) {
        document.line = ngx_pgq_bulk_line(&e->bulk, e->ticket.ordinal);

        last = ngx_snprintf(detail, sizeof(detail) - 1,
                            "line %i: no message was queued, as the database"
                            " refuses this one: %V", document.line, problem);

    } else {
        last = ngx_snprintf(detail, sizeof(detail) - 1,
                            "The database refuses the message: %V", problem);
    }

    /* its words may be cut, but not a character of them */

    if (ngx_pgq_json_utf8(detail, last - detail, &err) != 0) {
        last = detail + err.offset;
    }

    *last = '\0';

    return ngx_pgq_reply_problem(r, &document);
}
