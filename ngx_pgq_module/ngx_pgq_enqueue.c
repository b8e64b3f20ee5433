/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "enqueue" is the door for POST: it turns a request into a checked
 * message and a ticket, and the ticket's outcome into an answer.
 * It allocates the ticket, in one piece with the answer's body around the
 * message, and frees it when it comes back with NGX_PGQ_DONE.
 *
 * Called by nginx; calls json (is it JSON), batch (add, leave) and reply.
 *
 * Invariants:
 *  - what is refused for its form is refused before the database hears of it;
 *  - a request with a ticket has a cleanup that points at it; whichever of
 *    the two ends first cuts the other's pointer;
 *  - the message goes out as it came in, but for white space at its ends.
 */

#include "ngx_pgq_module.h"
#include "ngx_pgq_json.h"
#include "ngx_pgq_uuid.h"

#include <cjson/cJSON.h>


/* around the message: {"status":"queued","id":"…","msg":…} */

#define NGX_PGQ_ENQUEUE_HEAD     "{\"status\":\"queued\",\"id\":\""
#define NGX_PGQ_ENQUEUE_MIDDLE   "\",\"msg\":"

#define NGX_PGQ_ENQUEUE_HEAD_LEN                                              \
    (sizeof(NGX_PGQ_ENQUEUE_HEAD) - 1 + NGX_PGQ_UUID_TEXT_LEN                 \
     + sizeof(NGX_PGQ_ENQUEUE_MIDDLE) - 1)


typedef enum {
    NGX_PGQ_FORM_JSON = 0,     /* says that it is JSON */
    NGX_PGQ_FORM_TEXT,         /* says that it is text */
    NGX_PGQ_FORM_ANY,          /* JSON if it parses as JSON, else text */
    NGX_PGQ_FORM_UNSUPPORTED
} ngx_pgq_form_e;


typedef struct {
    ngx_pgq_ticket_t         ticket;
    ngx_http_request_t      *request;
    ngx_pool_cleanup_t      *cleanup;
    unsigned                 done:1;
    unsigned                 minimal:1;
    u_char                   body[1];   /* the answer's, around the message */
} ngx_pgq_enqueue_t;


static void ngx_pgq_enqueue_body_handler(ngx_http_request_t *r);
static ngx_int_t ngx_pgq_enqueue_message(ngx_http_request_t *r);
static ngx_int_t ngx_pgq_enqueue_read(ngx_http_request_t *r,
    ngx_str_t *message);
static ngx_int_t ngx_pgq_enqueue_check(ngx_http_request_t *r,
    ngx_str_t *message);
static ngx_int_t ngx_pgq_enqueue_text(ngx_http_request_t *r,
    ngx_str_t *message);
static ngx_int_t ngx_pgq_enqueue_refuse(ngx_http_request_t *r,
    const char *code, ngx_pgq_json_error_t *err);
static ngx_int_t ngx_pgq_enqueue_ticket(ngx_http_request_t *r,
    ngx_pgq_pool_t *pool, ngx_str_t *message);
static void ngx_pgq_enqueue_cleanup(void *data);
static void ngx_pgq_enqueue_answer(ngx_pgq_ticket_t *t,
    ngx_pgq_outcome_e outcome, ngx_str_t *problem);
static ngx_int_t ngx_pgq_enqueue_accepted(ngx_pgq_enqueue_t *e);
static ngx_int_t ngx_pgq_enqueue_failed(ngx_pgq_enqueue_t *e,
    ngx_http_request_t *r, ngx_pgq_outcome_e outcome, ngx_str_t *problem);
static ngx_pgq_form_e ngx_pgq_enqueue_form(ngx_http_request_t *r);
static ngx_uint_t ngx_pgq_enqueue_charset(ngx_str_t *parameters);
static ngx_str_t *ngx_pgq_enqueue_header(ngx_http_request_t *r,
    const char *lowcase, size_t len);


static ngx_str_t  ngx_pgq_enqueue_allow = ngx_string("POST, OPTIONS");
static ngx_str_t  ngx_pgq_enqueue_accept =
    ngx_string("application/json, text/plain");
static ngx_str_t  ngx_pgq_enqueue_type = ngx_string("application/json");
static ngx_str_t  ngx_pgq_enqueue_applied = ngx_string("return=minimal");


ngx_int_t
ngx_pgq_enqueue_handler(ngx_http_request_t *r)
{
    ngx_int_t            rc;
    ngx_pgq_problem_t    problem;
    ngx_pgq_loc_conf_t  *plcf;

    if (r->method == NGX_HTTP_OPTIONS) {
        return ngx_pgq_reply_options(r, &ngx_pgq_enqueue_allow);
    }

    if (r->method != NGX_HTTP_POST) {
        return ngx_pgq_reply_method(r, &ngx_pgq_enqueue_allow);
    }

    if (ngx_pgq_enqueue_form(r) == NGX_PGQ_FORM_UNSUPPORTED) {

        if (ngx_pgq_reply_header(r, "Accept-Post", &ngx_pgq_enqueue_accept)
            == NULL)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        problem.status = NGX_HTTP_UNSUPPORTED_MEDIA_TYPE;
        problem.code = "unsupported_type";
        problem.detail = "The message has to be plain UTF-8, JSON or text,"
                         " without a content coding.";
        problem.offset = -1;

        return ngx_pgq_reply_problem(r, &problem);
    }

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    if (ngx_pgq_batch_full(plcf->post, r->headers_in.content_length_n > 0
                                       ? r->headers_in.content_length_n : 0))
    {
        return ngx_pgq_reply_unavailable(r, plcf->post, "queue_full",
                      "Too many messages wait here; this one was not queued.");
    }

    r->request_body_in_single_buf = 1;

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

    rc = ngx_pgq_enqueue_message(r);

    if (rc != NGX_AGAIN) {
        ngx_http_finalize_request(r, rc);
    }
}


/* NGX_AGAIN: the request waits, with a ticket */

static ngx_int_t
ngx_pgq_enqueue_message(ngx_http_request_t *r)
{
    ngx_int_t            rc;
    ngx_str_t            message;
    ngx_pgq_loc_conf_t  *plcf;

    rc = ngx_pgq_enqueue_read(r, &message);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_pgq_enqueue_check(r, &message);
    if (rc != NGX_DECLINED) {
        return rc;
    }

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    /* the rest may have filled up while the body arrived */

    if (ngx_pgq_batch_full(plcf->post, message.len)) {
        return ngx_pgq_reply_unavailable(r, plcf->post, "queue_full",
                      "Too many messages wait here; this one was not queued.");
    }

    return ngx_pgq_enqueue_ticket(r, plcf->post, &message);
}


/* the body as one piece, wherever nginx has put its parts */

static ngx_int_t
ngx_pgq_enqueue_read(ngx_http_request_t *r, ngx_str_t *message)
{
    u_char       *p;
    size_t        len;
    ssize_t       n;
    ngx_buf_t    *buf;
    ngx_chain_t  *cl;

    ngx_str_null(message);

    if (r->request_body == NULL || r->request_body->bufs == NULL) {
        return NGX_OK;
    }

    cl = r->request_body->bufs;

    if (cl->next == NULL && ngx_buf_in_memory(cl->buf)) {
        message->data = cl->buf->pos;
        message->len = cl->buf->last - cl->buf->pos;
        return NGX_OK;
    }

    len = 0;

    for ( /* void */ ; cl; cl = cl->next) {
        len += (size_t) ngx_buf_size(cl->buf);
    }

    p = ngx_pnalloc(r->pool, len);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    message->data = p;
    message->len = len;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        buf = cl->buf;
        len = (size_t) ngx_buf_size(buf);

        if (!buf->in_file) {
            /* in memory, or empty and nowhere */
            p = ngx_cpymem(p, buf->pos, len);
            continue;
        }

        n = ngx_read_file(buf->file, p, len, buf->file_pos);
        if (n != (ssize_t) len) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        p += n;
    }

    return NGX_OK;
}


/* NGX_DECLINED: nothing is wrong, and the message is JSON */

static ngx_int_t
ngx_pgq_enqueue_check(ngx_http_request_t *r, ngx_str_t *message)
{
    const u_char          *p;
    ngx_pgq_form_e         form;
    ngx_pgq_loc_conf_t    *plcf;
    ngx_pgq_json_error_t   err;

    if (message->len == 0) {
        err.offset = 0;
        err.problem = "the message is empty";
        return ngx_pgq_enqueue_refuse(r, "empty", &err);
    }

    form = ngx_pgq_enqueue_form(r);

    if (form == NGX_PGQ_FORM_TEXT) {
        return ngx_pgq_enqueue_text(r, message);
    }

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    if (ngx_pgq_json_check(message->data, message->len,
                           (unsigned) plcf->depth, &err)
        == 0)
    {
        p = message->data;
        message->len = ngx_pgq_json_trim(&p, message->len);
        message->data = (u_char *) p;
        return NGX_DECLINED;
    }

    if (form == NGX_PGQ_FORM_JSON) {
        return ngx_pgq_enqueue_refuse(r, "not_json", &err);
    }

    return ngx_pgq_enqueue_text(r, message);
}


/* makes a JSON string of a text */

static ngx_int_t
ngx_pgq_enqueue_text(ngx_http_request_t *r, ngx_str_t *message)
{
    char                  *json;
    cJSON                 *item;
    u_char                *text;
    size_t                 len;
    ngx_pgq_json_error_t   err;

    if (ngx_pgq_json_utf8(message->data, message->len, &err) != 0) {
        return ngx_pgq_enqueue_refuse(r, "not_utf8", &err);
    }

    text = ngx_pnalloc(r->pool, message->len + 1);
    if (text == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memcpy(text, message->data, message->len);
    text[message->len] = '\0';

    item = cJSON_CreateStringReference((char *) text);
    if (item == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    json = cJSON_PrintUnformatted(item);
    cJSON_Delete(item);

    if (json == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    len = ngx_strlen(json);

    message->data = ngx_pnalloc(r->pool, len);
    message->len = len;

    if (message->data) {
        ngx_memcpy(message->data, json, len);
    }

    cJSON_free(json);

    return message->data ? NGX_DECLINED : NGX_HTTP_INTERNAL_SERVER_ERROR;
}


static ngx_int_t
ngx_pgq_enqueue_refuse(ngx_http_request_t *r, const char *code,
    ngx_pgq_json_error_t *err)
{
    u_char             detail[160];
    ngx_pgq_problem_t  problem;

    (void) ngx_snprintf(detail, sizeof(detail), "%s, at byte %uz%Z",
                        err->problem, err->offset);
    detail[sizeof(detail) - 1] = '\0';

    problem.status = NGX_HTTP_BAD_REQUEST;
    problem.code = code;
    problem.detail = (char *) detail;
    problem.offset = (ngx_int_t) err->offset;

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "pgq enqueue: refused: %s", detail);

    return ngx_pgq_reply_problem(r, &problem);
}


static ngx_int_t
ngx_pgq_enqueue_ticket(ngx_http_request_t *r, ngx_pgq_pool_t *pool,
    ngx_str_t *message)
{
    u_char              *p;
    ngx_str_t           *prefer;
    ngx_pgq_enqueue_t   *e;
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    e = ngx_alloc(offsetof(ngx_pgq_enqueue_t, body)
                  + NGX_PGQ_ENQUEUE_HEAD_LEN + message->len + 1,
                  r->connection->log);
    if (e == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memzero(e, offsetof(ngx_pgq_enqueue_t, body));

    e->request = r;
    e->cleanup = cln;
    e->ticket.pool = pool;
    e->ticket.answer = ngx_pgq_enqueue_answer;
    e->ticket.data = e;

    ngx_pgq_uuid_v7(e->ticket.id, ngx_pgq_now());

    p = ngx_cpymem(e->body, NGX_PGQ_ENQUEUE_HEAD,
                   sizeof(NGX_PGQ_ENQUEUE_HEAD) - 1);
    p = ngx_pgq_uuid_print(p, e->ticket.id);
    p = ngx_cpymem(p, NGX_PGQ_ENQUEUE_MIDDLE,
                   sizeof(NGX_PGQ_ENQUEUE_MIDDLE) - 1);

    e->ticket.message = p;
    e->ticket.len = message->len;

    p = ngx_cpymem(p, message->data, message->len);
    *p = '}';

    prefer = ngx_pgq_enqueue_header(r, "prefer", sizeof("prefer") - 1);
    e->minimal = prefer && ngx_strlcasestrn(prefer->data,
                                            prefer->data + prefer->len,
                                            (u_char *) "return=minimal",
                                            sizeof("return=minimal") - 2)
                           != NULL;

    cln->handler = ngx_pgq_enqueue_cleanup;
    cln->data = e;

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    ngx_pgq_batch_add(&e->ticket);

    return NGX_AGAIN;
}


static void
ngx_pgq_enqueue_cleanup(void *data)
{
    ngx_pgq_enqueue_t  *e = data;

    if (e->done) {
        ngx_free(e);

    } else {
        ngx_pgq_batch_leave(&e->ticket);
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

    if (outcome == NGX_PGQ_DONE) {
        e->done = 1;
        rc = ngx_pgq_enqueue_accepted(e);

    } else {
        e->cleanup->handler = NULL;
        rc = ngx_pgq_enqueue_failed(e, r, outcome, problem);
    }

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


static ngx_int_t
ngx_pgq_enqueue_accepted(ngx_pgq_enqueue_t *e)
{
    size_t               len;
    ngx_http_request_t  *r;

    r = e->request;
    len = NGX_PGQ_ENQUEUE_HEAD_LEN + e->ticket.len + 1;

    if (e->minimal) {
        /* {"status":"queued","id":"…"} */
        len = sizeof(NGX_PGQ_ENQUEUE_HEAD) - 1 + NGX_PGQ_UUID_TEXT_LEN;
        e->body[len++] = '"';
        e->body[len++] = '}';

        if (ngx_pgq_reply_header(r, "Preference-Applied",
                                 &ngx_pgq_enqueue_applied)
            == NULL)
        {
            return NGX_ERROR;
        }
    }

    return ngx_pgq_reply_body(r, NGX_HTTP_ACCEPTED, &ngx_pgq_enqueue_type,
                              e->body, len);
}


static ngx_int_t
ngx_pgq_enqueue_failed(ngx_pgq_enqueue_t *e, ngx_http_request_t *r,
    ngx_pgq_outcome_e outcome, ngx_str_t *problem)
{
    u_char             detail[192];
    ngx_pgq_problem_t  document = { 504, "outcome_unknown",
                         "The database did not say in time whether the"
                         " message was queued: it was, or it never will be.",
                         -1 };

    switch (outcome) {

    case NGX_PGQ_REFUSED:
        (void) ngx_snprintf(detail, sizeof(detail),
                            "The database refuses the message: %V%Z",
                            problem);
        detail[sizeof(detail) - 1] = '\0';

        document.status = NGX_HTTP_BAD_REQUEST;
        document.code = "refused";
        document.detail = (char *) detail;
        break;

    case NGX_PGQ_UNKNOWN:
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "pgq enqueue: outcome unknown after %M ms",
                      e->ticket.pool->timeout);
        break;

    default: /* NGX_PGQ_AGAIN */
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "pgq enqueue: no database in %M ms",
                      e->ticket.pool->timeout);

        return ngx_pgq_reply_unavailable(r, e->ticket.pool, "no_database",
                          "No database took the message in time; it was not"
                          " queued.");
    }

    return ngx_pgq_reply_problem(r, &document);
}


static ngx_pgq_form_e
ngx_pgq_enqueue_form(ngx_http_request_t *r)
{
    size_t      n;
    u_char     *end;
    ngx_str_t   type, parameters, *coding;

    coding = ngx_pgq_enqueue_header(r, "content-encoding",
                                    sizeof("content-encoding") - 1);

    if (coding && coding->len
        && !(coding->len == 8
             && ngx_strncasecmp(coding->data, (u_char *) "identity", 8) == 0))
    {
        return NGX_PGQ_FORM_UNSUPPORTED;
    }

    if (r->headers_in.content_type == NULL) {
        return NGX_PGQ_FORM_ANY;
    }

    type = r->headers_in.content_type->value;
    end = ngx_strlchr(type.data, type.data + type.len, ';');

    parameters.len = 0;

    if (end) {
        parameters.data = end + 1;
        parameters.len = type.data + type.len - parameters.data;
        type.len = end - type.data;
    }

    while (type.len && type.data[type.len - 1] == ' ') {
        type.len--;
    }

    n = type.len;

    if (n == sizeof("application/x-ndjson") - 1
        && ngx_strncasecmp(type.data, (u_char *) "application/x-ndjson", n)
           == 0)
    {
        return NGX_PGQ_FORM_UNSUPPORTED;
    }

    if (!ngx_pgq_enqueue_charset(&parameters)) {
        return NGX_PGQ_FORM_UNSUPPORTED;
    }

    if ((n == sizeof("application/json") - 1
         && ngx_strncasecmp(type.data, (u_char *) "application/json", n) == 0)
        || (n > 5
            && ngx_strncasecmp(type.data + n - 5, (u_char *) "+json", 5)
               == 0))
    {
        return NGX_PGQ_FORM_JSON;
    }

    if (n == sizeof("text/plain") - 1
        && ngx_strncasecmp(type.data, (u_char *) "text/plain", n) == 0)
    {
        return NGX_PGQ_FORM_TEXT;
    }

    return NGX_PGQ_FORM_ANY;
}


/* whether the charset, if one is named, is UTF-8 or a part of it */

static ngx_uint_t
ngx_pgq_enqueue_charset(ngx_str_t *parameters)
{
    u_char  *p, *last;

    if (parameters->len == 0) {
        return 1;
    }

    last = parameters->data + parameters->len;

    p = ngx_strlcasestrn(parameters->data, last, (u_char *) "charset=",
                         sizeof("charset=") - 2);
    if (p == NULL) {
        return 1;
    }

    p += sizeof("charset=") - 1;

    if (p < last && *p == '"') {
        p++;
    }

    return (last - p >= 5 && ngx_strncasecmp(p, (u_char *) "utf-8", 5) == 0)
           || (last - p >= 4 && ngx_strncasecmp(p, (u_char *) "utf8", 4) == 0)
           || (last - p >= 8
               && ngx_strncasecmp(p, (u_char *) "us-ascii", 8) == 0);
}


/* a request header that nginx keeps no field for */

static ngx_str_t *
ngx_pgq_enqueue_header(ngx_http_request_t *r, const char *lowcase, size_t len)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &r->headers_in.headers.part;

    for ( /* void */ ; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (h[i].key.len == len
                && ngx_memcmp(h[i].lowcase_key, lowcase, len) == 0)
            {
                return &h[i].value;
            }
        }
    }

    return NULL;
}
