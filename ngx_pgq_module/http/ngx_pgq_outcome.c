/* SPDX-License-Identifier: PostgreSQL */

/*
 * Sends the response to a POST whose ticket is answered: the id of the queued
 * message, with the message if the response may have it, or a problem.
 *
 * Invariants:
 *  - the ticket of a queued message is freed at once, or by the cleanup of the
 *    request if the response is part of the ticket;
 *  - a response counts in writes->unread until the client has read it.  A
 *    response that would exceed unread_size is sent without the message; it
 *    never prevents other requests from waiting.
 */

#include "ngx_pgq_enqueue.h"
#include "ngx_pgq_json.h"


/* a longer message is in the response only if the client prefers that */

#define NGX_PGQ_OUTCOME_ECHO_MAX  4096


static ngx_int_t ngx_pgq_outcome_replay(ngx_pgq_enqueue_t *e,
    ngx_str_t *previous);
static ngx_int_t ngx_pgq_outcome_accepted(ngx_pgq_enqueue_t *e, int64_t post);
static ngx_int_t ngx_pgq_outcome_body(ngx_pgq_enqueue_t *e, int64_t post,
    ngx_str_t *body);
static u_char *ngx_pgq_outcome_tail(u_char *p, int64_t post);
static ngx_uint_t ngx_pgq_outcome_whole(ngx_pgq_enqueue_t *e, size_t len);
static ngx_int_t ngx_pgq_outcome_short(ngx_pgq_enqueue_t *e, int64_t post,
    ngx_str_t *body);
static ngx_int_t ngx_pgq_outcome_failed(ngx_pgq_enqueue_t *e,
    ngx_http_request_t *r, ngx_pgq_outcome_e outcome, ngx_str_t *error_text);
static void ngx_pgq_outcome_refused(ngx_http_request_t *r,
    ngx_pgq_ticket_t *t, ngx_str_t *error_text, u_char *detail,
    ngx_pgq_problem_t *problem);
static const char *ngx_pgq_outcome_sentence(u_char *sqlstate);


static ngx_str_t  ngx_pgq_outcome_type = ngx_string("application/json");


void
ngx_pgq_outcome_answer(ngx_pgq_ticket_t *t, ngx_pgq_outcome_e outcome,
    ngx_str_t *error_text)
{
    int64_t              post;
    ngx_int_t            rc;
    ngx_connection_t    *c;
    ngx_pgq_enqueue_t   *e;
    ngx_http_request_t  *r;

    e = t->data;
    r = e->request;
    c = r->connection;

    e->ctx->answered = 1;
    e->ctx->batch = t->batch_messages;
    e->ctx->wait = ngx_pgq_ticket_wait(t);

    if (outcome == NGX_PGQ_DONE || outcome == NGX_PGQ_REPLAYED) {
        e->done = 1;
        post = 0;
        rc = NGX_OK;

        if (outcome == NGX_PGQ_REPLAYED) {
            rc = ngx_pgq_outcome_replay(e, error_text);
        }

        if (rc == NGX_OK) {

            if (e->wait && ngx_pgq_await_start(e, &post) == NGX_AGAIN) {
                return;
            }

            ngx_pgq_outcome_send(e, post);
            return;
        }

    } else {
        e->cleanup->handler = NULL;
        rc = ngx_pgq_outcome_failed(e, r, outcome, error_text);
    }

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


void
ngx_pgq_outcome_send(ngx_pgq_enqueue_t *e, int64_t post)
{
    ngx_int_t            rc;
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = e->request;
    c = r->connection;

    rc = ngx_pgq_outcome_accepted(e, post);

    if (e->unread == 0) {
        e->cleanup->handler = NULL;
        ngx_free(e);
    }

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


/* the message was queued before: the answer has the previous id */

static ngx_int_t
ngx_pgq_outcome_replay(ngx_pgq_enqueue_t *e, ngx_str_t *previous)
{
    if (previous->len != NGX_PGQ_UUID_TEXT_LEN
        || ngx_pgq_uuid_read(e->ticket.id, previous->data) != 0)
    {
        ngx_log_error(NGX_LOG_ALERT, e->request->connection->log, 0,
                      "pgq enqueue: replay without an id");
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    /* its post may have been there before this request */
    e->place = 0;

    e->ctx->replayed = 1;
    ngx_memcpy(e->ctx->id, e->ticket.id, NGX_PGQ_UUID_LEN);

    if (e->ticket.write == NULL) {
        (void) ngx_pgq_uuid_print(e->body + sizeof(NGX_PGQ_ENQUEUE_HEAD) - 1,
                                  e->ticket.id);
    }

    return ngx_pgq_reply_field(e->request, "Idempotency-Replayed", "true");
}


static ngx_int_t
ngx_pgq_outcome_accepted(ngx_pgq_enqueue_t *e, int64_t post)
{
    ngx_str_t    body;
    const char  *applied;

    if (ngx_pgq_outcome_body(e, post, &body) != NGX_OK) {
        return NGX_ERROR;
    }

    applied = NULL;

    if (e->returns == NGX_PGQ_RETURN_MINIMAL) {
        applied = "return=minimal";

    } else if (e->returns == NGX_PGQ_RETURN_REPRESENTATION && e->unread) {
        applied = "return=representation";
    }

    if (applied
        && ngx_pgq_reply_field(e->request, "Preference-Applied", applied)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (post
        && ngx_pgq_reply_field(e->request, "Preference-Applied", "wait=%i",
                               e->wait)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_pgq_reply_body(e->request,
                              post ? NGX_HTTP_CREATED : NGX_HTTP_ACCEPTED,
                              &ngx_pgq_outcome_type, body.data, body.len);
}


/* writes the full response; for one message it is a part of e */

static ngx_int_t
ngx_pgq_outcome_body(ngx_pgq_enqueue_t *e, int64_t post, ngx_str_t *body)
{
    size_t   len;
    u_char  *p;

    if (post) {
        ngx_memcpy(e->body, NGX_PGQ_ENQUEUE_POSTED,
                   sizeof(NGX_PGQ_ENQUEUE_POSTED) - 1);
    }

    if (e->ticket.write) {
        len = ngx_pgq_ndjson_answer_size(&e->ndjson);

    } else {
        p = e->body + NGX_PGQ_ENQUEUE_HEAD_LEN + e->ticket.len;
        len = ngx_pgq_outcome_tail(p, post) - e->body;
    }

    if (!ngx_pgq_outcome_whole(e, len)) {
        return ngx_pgq_outcome_short(e, post, body);
    }

    e->unread = len;
    ngx_pgq_writes(e->ticket.base.db)->unread += len;

    if (e->ticket.write) {
        return ngx_pgq_ndjson_answer(&e->ndjson, e->ticket.id, body);
    }

    body->data = e->body;
    body->len = len;

    return NGX_OK;
}


static u_char *
ngx_pgq_outcome_tail(u_char *p, int64_t post)
{
    return post ? ngx_sprintf(p, ",\"post\":%L}", post)
                : ngx_cpymem(p, "}", 1);
}


/* whether the response has the message, or the ids of all messages */

static ngx_uint_t
ngx_pgq_outcome_whole(ngx_pgq_enqueue_t *e, size_t len)
{
    ngx_pgq_pool_t  *db;

    db = e->ticket.base.db;

    if (ngx_pgq_writes(db)->unread + len > db->unread_size
        || e->returns == NGX_PGQ_RETURN_MINIMAL)
    {
        return 0;
    }

    return e->ticket.write || e->returns == NGX_PGQ_RETURN_REPRESENTATION
           || e->ticket.len <= NGX_PGQ_OUTCOME_ECHO_MAX;
}


/* writes {"status":"queued","id":"…"}; without ids for many messages */

static ngx_int_t
ngx_pgq_outcome_short(ngx_pgq_enqueue_t *e, int64_t post, ngx_str_t *body)
{
    u_char  *p;

    if (e->ticket.write) {
        ngx_str_set(body, "{\"status\":\"queued\"}");
        return NGX_OK;
    }

    p = ngx_pnalloc(e->request->pool, NGX_PGQ_ENQUEUE_HEAD_LEN
                                      + NGX_PGQ_ENQUEUE_TAIL_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    body->data = p;

    p = ngx_cpymem(p, e->body, sizeof(NGX_PGQ_ENQUEUE_HEAD) - 1
                               + NGX_PGQ_UUID_TEXT_LEN);
    *p++ = '"';

    body->len = ngx_pgq_outcome_tail(p, post) - body->data;

    return NGX_OK;
}


static ngx_int_t
ngx_pgq_outcome_failed(ngx_pgq_enqueue_t *e, ngx_http_request_t *r,
    ngx_pgq_outcome_e outcome, ngx_str_t *error_text)
{
    u_char             detail[NGX_PGQ_OUTCOME_DETAIL];
    ngx_pgq_problem_t  problem = ngx_pgq_problem_init(0);

    if (e->ticket.ordinal) {
        problem.line = ngx_pgq_ndjson_line(&e->ndjson, e->ticket.ordinal);
    }

    ngx_pgq_outcome_problem(r, &e->ticket, outcome, error_text, detail,
                            &problem);

    switch (problem.kind) {

    case NGX_PGQ_PROBLEM_KEY_IN_FLIGHT:
        if (ngx_pgq_reply_field(r, "Retry-After", "1") != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        return ngx_pgq_reply_problem(r, &problem);

    case NGX_PGQ_PROBLEM_KEYS_FULL:
    case NGX_PGQ_PROBLEM_NO_DATABASE:
        return ngx_pgq_reply_unavailable(r, e->ticket.base.db, problem.kind);

    default:
        return ngx_pgq_reply_problem(r, &problem);
    }
}


/*
 * Logs a failure, and sets its problem, except the line.  The detail may be
 * written at detail, which has NGX_PGQ_OUTCOME_DETAIL bytes.
 */

void
ngx_pgq_outcome_problem(ngx_http_request_t *r, ngx_pgq_ticket_t *t,
    ngx_pgq_outcome_e outcome, ngx_str_t *error_text, u_char *detail,
    ngx_pgq_problem_t *problem)
{
    switch (outcome) {

    case NGX_PGQ_REFUSED:
        ngx_pgq_outcome_refused(r, t, error_text, detail, problem);
        return;

    case NGX_PGQ_IN_FLIGHT:
        problem->kind = NGX_PGQ_PROBLEM_KEY_IN_FLIGHT;
        return;

    case NGX_PGQ_REUSED:
        problem->kind = NGX_PGQ_PROBLEM_KEY_REUSED;
        return;

    case NGX_PGQ_KEYS_FULL:
        problem->kind = NGX_PGQ_PROBLEM_KEYS_FULL;
        return;

    case NGX_PGQ_UNKNOWN:
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "pgq enqueue: outcome unknown after %M ms",
                      ngx_pgq_ticket_wait(t));

        problem->kind = NGX_PGQ_PROBLEM_OUTCOME_UNKNOWN;
        return;

    default: /* NGX_PGQ_AGAIN */
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "pgq enqueue: no database within %M ms",
                      ngx_pgq_ticket_wait(t));

        problem->kind = NGX_PGQ_PROBLEM_NO_DATABASE;
    }
}


static void
ngx_pgq_outcome_refused(ngx_http_request_t *r, ngx_pgq_ticket_t *t,
    ngx_str_t *error_text, u_char *detail, ngx_pgq_problem_t *problem)
{
    u_char                *last, *end;
    ngx_pgq_loc_conf_t    *plcf;
    ngx_pgq_json_error_t   err;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "pgq enqueue: refused by the database: %*s",
                  (size_t) NGX_PGQ_SQLSTATE_LEN, t->sqlstate);

    last = detail;
    end = detail + NGX_PGQ_OUTCOME_DETAIL - 1;

    if (problem->line) {
        last = ngx_slprintf(last, end, "line %i: no message was queued. ",
                            problem->line);
    }

    last = ngx_slprintf(last, end, "%s (SQLSTATE %*s)",
                        ngx_pgq_outcome_sentence(t->sqlstate),
                        (size_t) NGX_PGQ_SQLSTATE_LEN, t->sqlstate);

    if (plcf->details) {
        last = ngx_slprintf(last, end, ": %V", error_text);
    }

    /* the text may be cut, but not within a character */

    if (ngx_pgq_json_utf8(detail, last - detail, &err) != 0) {
        last = detail + err.offset;
    }

    *last = '\0';

    problem->kind = NGX_PGQ_PROBLEM_REFUSED;
    problem->detail = (char *) detail;
}


/*
 * The message of the database may have names of tables and constraints: it is
 * sent only if pgq_details is on.
 */

static const char *
ngx_pgq_outcome_sentence(u_char *sqlstate)
{
    ngx_uint_t  i;

    static struct {
        const char  *class;
        const char  *sentence;
    } sentences[] = {
        { "22", "The message has a value that the database cannot store." },
        { "23", "The message violates a constraint of the database." },
        { "44", "The message violates a constraint of the database." },
        { "54", "The message exceeds a limit of the database." },
        { NULL, "The database refuses the message." }
    };

    for (i = 0; sentences[i].class; i++) {
        if (ngx_memcmp(sqlstate, sentences[i].class, 2) == 0) {
            break;
        }
    }

    return sentences[i].sentence;
}
