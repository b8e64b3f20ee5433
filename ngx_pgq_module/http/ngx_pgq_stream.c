/* SPDX-License-Identifier: PostgreSQL */

/*
 * Handles GET of a stream: chooses the transport, reads where the reader is to
 * start, sends the header of the response and starts the reader.
 *
 * Invariants:
 *  - a malformed cursor is no error of HTTP: EventSource would never connect
 *    again, so the stream begins with a reset;
 *  - the response is never 204, for the same reason.
 */

#include "ngx_pgq_reader.h"


#define NGX_PGQ_STREAM_WAIT      60      /* s, longest long poll */
#define NGX_PGQ_STREAM_POSTS     1000    /* most posts of limit and newest */
#define NGX_PGQ_STREAM_DEFAULT   100     /* limit */

#define NGX_PGQ_STREAM_SINCE                                                  \
    "since must be a time of RFC 3339 or a duration such as 10m; the"         \
    " database needs an index for it (ngx_pgq.time_index())."


static ngx_uint_t ngx_pgq_stream_full(ngx_pgq_reader_t *rd);
static ngx_int_t ngx_pgq_stream_open(ngx_http_request_t *r,
    ngx_pgq_reader_t *rd);
static ngx_int_t ngx_pgq_stream_ask(ngx_http_request_t *r,
    ngx_pgq_reader_t *rd);
static void ngx_pgq_stream_since(ngx_pgq_fetch_t *f,
    ngx_pgq_read_result_e result, ngx_pgq_answer_t *answer);
static ngx_int_t ngx_pgq_stream_arguments(ngx_http_request_t *r,
    ngx_pgq_reader_t *rd, ngx_pgq_problem_t *problem);
static ngx_int_t ngx_pgq_stream_transport(ngx_pgq_reader_t *rd,
    ngx_int_t wait, ngx_pgq_problem_t *problem);
static ngx_int_t ngx_pgq_stream_start(ngx_http_request_t *r,
    ngx_pgq_reader_t *rd, ngx_int_t newest);
static ngx_int_t ngx_pgq_stream_time(ngx_http_request_t *r,
    ngx_pgq_reader_t *rd);
static ngx_int_t ngx_pgq_stream_end(ngx_http_request_t *r,
    ngx_pgq_reader_t *rd);
static ngx_int_t ngx_pgq_stream_header(ngx_http_request_t *r,
    ngx_pgq_reader_t *rd);


ngx_int_t
ngx_pgq_stream_handler(ngx_http_request_t *r)
{
    ngx_int_t           rc;
    ngx_pgq_ctx_t      *ctx;
    ngx_pgq_reader_t   *rd;
    ngx_pgq_problem_t   problem = ngx_pgq_problem_init(0);

    /* the response would have no end */

    if (r != r->main) {
        return NGX_HTTP_NOT_FOUND;
    }

    ctx = ngx_pgq_variables_ctx(r, NGX_PGQ_METRICS_STREAM);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (!ngx_pgq_endpoint_admits(r, &ctx->fields, NGX_HTTP_GET|NGX_HTTP_HEAD,
                                 &rc))
    {
        return rc;
    }

    rd = ngx_pgq_reader_create(r, ctx);
    if (rd == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_pgq_stream_arguments(r, rd, &problem);

    if (rc == NGX_DECLINED) {
        return ngx_pgq_reply_problem(r, &problem);
    }

    if (rc != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_pgq_stream_full(rd)) {
        return ngx_pgq_reply_unavailable(r, rd->readers->db->reads,
                                         NGX_PGQ_PROBLEM_READERS_FULL);
    }

    rc = rd->time.len ? ngx_pgq_stream_ask(r, rd)
                      : ngx_pgq_stream_open(r, rd);

    if (rc == NGX_AGAIN) {
        r->main->count++;
        return NGX_DONE;
    }

    return rc;
}


static ngx_uint_t
ngx_pgq_stream_full(ngx_pgq_reader_t *rd)
{
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(rd->request, ngx_http_pgq_module);

    return rd->readers->n >= (ngx_uint_t) plcf->readers;
}


/* sends the header and starts the reader; NGX_AGAIN: the request goes on */

static ngx_int_t
ngx_pgq_stream_open(ngx_http_request_t *r, ngx_pgq_reader_t *rd)
{
    ngx_int_t  rc;

    if (ngx_pgq_reply_field(r, "Cache-Control", "no-store") != NGX_OK
        || ngx_pgq_reply_field(r, "X-Accel-Buffering", "no") != NGX_OK
        || ngx_pgq_reply_field(r, "X-Content-Type-Options", "nosniff")
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_pgq_stream_header(r, rd);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    ngx_pgq_reader_start(rd);

    if (rd->socket) {
        ngx_pgq_socket_start(rd->socket);
    }

    return NGX_AGAIN;
}


/* the id before the posts of a time is asked before the response begins */

static ngx_int_t
ngx_pgq_stream_ask(ngx_http_request_t *r, ngx_pgq_reader_t *rd)
{
    ngx_int_t             rc;
    ngx_pgq_read_query_t  query;

    ngx_memzero(&query, sizeof(ngx_pgq_read_query_t));

    query.special = NGX_PGQ_QUERY_SINCE;
    query.limit = 1;
    query.pattern = rd->time;

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    rc = ngx_pgq_history_join(rd, &query, ngx_pgq_stream_since);

    if (rc != NGX_BUSY) {
        return rc;
    }

    return ngx_pgq_reply_unavailable(r, rd->readers->db->reads,
                                     NGX_PGQ_PROBLEM_QUEUE_FULL);
}


static void
ngx_pgq_stream_since(ngx_pgq_fetch_t *f, ngx_pgq_read_result_e result,
    ngx_pgq_answer_t *answer)
{
    ngx_int_t            rc;
    ngx_connection_t    *c;
    ngx_pgq_reader_t    *rd;
    ngx_pgq_problem_t    problem = ngx_pgq_problem_init(0);
    ngx_http_request_t  *r;

    rd = f->data;
    r = rd->request;
    c = r->connection;

    rd->asking = 0;

    switch (result) {

    case NGX_PGQ_READ_DONE:

        /* others may have started meanwhile */

        if (ngx_pgq_stream_full(rd)) {
            rc = ngx_pgq_reply_unavailable(r, f->base.db,
                                           NGX_PGQ_PROBLEM_READERS_FULL);
            break;
        }

        rd->start = NGX_PGQ_READER_ID;
        rd->cursor = answer->next;
        rc = ngx_pgq_stream_open(r, rd);
        break;

    case NGX_PGQ_READ_REFUSED:
        problem.kind = NGX_PGQ_PROBLEM_BAD_ARGUMENT;
        problem.detail = NGX_PGQ_STREAM_SINCE;
        rc = ngx_pgq_reply_problem(r, &problem);
        break;

    default:
        rc = ngx_pgq_reply_unavailable(r, f->base.db,
                                       result == NGX_PGQ_READ_NO_DATABASE
                                       ? NGX_PGQ_PROBLEM_NO_DATABASE
                                       : NGX_PGQ_PROBLEM_READ_FAILED);
    }

    if (rc != NGX_AGAIN) {
        ngx_http_finalize_request(r, rc);
        ngx_http_run_posted_requests(c);
    }
}


static ngx_int_t
ngx_pgq_stream_arguments(ngx_http_request_t *r, ngx_pgq_reader_t *rd,
    ngx_pgq_problem_t *problem)
{
    ngx_int_t  rc, wait, limit, newest;

    wait = ngx_min(rd->ctx->fields.wait, NGX_PGQ_STREAM_WAIT);
    limit = NGX_PGQ_STREAM_DEFAULT;
    newest = -1;

    rc = ngx_pgq_argument_number(r, "wait", 0, NGX_PGQ_STREAM_WAIT, &wait,
                                 problem);

    if (rc == NGX_OK) {
        rc = ngx_pgq_argument_number(r, "limit", 1, NGX_PGQ_STREAM_POSTS,
                                     &limit, problem);
    }

    if (rc == NGX_OK) {
        rc = ngx_pgq_argument_number(r, "newest", 0, NGX_PGQ_STREAM_POSTS,
                                     &newest, problem);
    }

    if (rc == NGX_OK) {
        rc = ngx_pgq_fetch_filter(r, &rd->filter, &rd->topics, &rd->pattern,
                                  problem);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    rd->limit = limit;

    rc = ngx_pgq_stream_transport(rd, wait, problem);

    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_pgq_stream_start(r, rd, newest) != NGX_OK) {
        problem->kind = NGX_PGQ_PROBLEM_BAD_ARGUMENT;
        problem->detail = NGX_PGQ_STREAM_SINCE;
        return NGX_DECLINED;
    }

    return ngx_pgq_stream_end(r, rd);
}


static ngx_int_t
ngx_pgq_stream_transport(ngx_pgq_reader_t *rd, ngx_int_t wait,
    ngx_pgq_problem_t *problem)
{
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(rd->request, ngx_http_pgq_module);

    rd->heartbeat = plcf->heartbeat;

    if (ngx_pgq_socket_asked(rd)) {
        return ngx_pgq_socket_create(rd, problem);
    }

    if (wait >= 0) {
        rd->transport = NGX_PGQ_TRANSPORT_PAGE;
        rd->heartbeat = wait * 1000;
        return NGX_OK;
    }

    rd->transport = rd->ctx->fields.accept_ndjson ? NGX_PGQ_TRANSPORT_NDJSON
                                                  : NGX_PGQ_TRANSPORT_SSE;

    return NGX_OK;
}


/* EventSource sets a header field only when it connects again */

static ngx_int_t
ngx_pgq_stream_start(ngx_http_request_t *r, ngx_pgq_reader_t *rd,
    ngx_int_t newest)
{
    off_t       id;
    ngx_str_t  *field, value;

    rd->newest = ngx_max(newest, 0);
    field = rd->ctx->fields.last_event_id;

    if (field && field->len) {
        value = *field;

    } else if (ngx_http_arg(r, (u_char *) "last_event_id", 13, &value)
               != NGX_OK
               && ngx_http_arg(r, (u_char *) "after", 5, &value) != NGX_OK)
    {
        return newest < 0 ? ngx_pgq_stream_time(r, rd) : NGX_OK;
    }

    id = ngx_atoof(value.data, value.len);

    rd->start = id < 0 ? NGX_PGQ_READER_UNKNOWN : NGX_PGQ_READER_ID;
    rd->cursor = id < 0 ? -1 : id;

    return NGX_OK;
}


/* since=: a time, which PostgreSQL reads, or a number of s, m, h or d */

static ngx_int_t
ngx_pgq_stream_time(ngx_http_request_t *r, ngx_pgq_reader_t *rd)
{
    u_char     *p, *src;
    size_t      i;
    ngx_tm_t    tm;
    ngx_int_t   n;
    ngx_str_t   value;

    static u_char  bytes[] = "0123456789+-:.TtZz ";

    if (ngx_http_arg(r, (u_char *) "since", 5, &value) != NGX_OK) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, ngx_max(value.len,
                                     sizeof("1970-01-01T00:00:00Z")));
    if (p == NULL) {
        return NGX_ERROR;
    }

    rd->time.data = p;
    src = value.data;
    ngx_unescape_uri(&p, &src, value.len, 0);
    rd->time.len = p - rd->time.data;

    if (rd->time.len == 0) {
        return NGX_ERROR;
    }

    n = ngx_parse_time(&rd->time, 1);

    if (n != NGX_ERROR) {
        ngx_gmtime(ngx_time() - n, &tm);
        rd->time.len = ngx_sprintf(rd->time.data,
                                   "%4d-%02d-%02dT%02d:%02d:%02dZ",
                                   tm.ngx_tm_year, tm.ngx_tm_mon,
                                   tm.ngx_tm_mday, tm.ngx_tm_hour,
                                   tm.ngx_tm_min, tm.ngx_tm_sec)
                       - rd->time.data;
        return NGX_OK;
    }

    /* not the words that PostgreSQL accepts as times */

    for (i = 0; i < rd->time.len; i++) {
        if (memchr(bytes, rd->time.data[i], sizeof(bytes) - 1) == NULL) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* readers that started together do not end together */

static ngx_int_t
ngx_pgq_stream_end(ngx_http_request_t *r, ngx_pgq_reader_t *rd)
{
    time_t               until;
    ngx_str_t            value;
    ngx_msec_t           age;
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    age = plcf->stream_age - plcf->stream_age / 10
          + ngx_random() % (plcf->stream_age / 5 + 1);

    rd->end = ngx_current_msec + age;
    rd->reason = NGX_PGQ_READER_AGE;

    if (plcf->stream_until == NULL) {
        return NGX_OK;
    }

    if (ngx_http_complex_value(r, plcf->stream_until, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (value.len == 0) {
        return NGX_OK;
    }

    until = ngx_atotm(value.data, value.len);

    if (until == (time_t) NGX_ERROR) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "pgq stream: pgq_stream_until is no time: \"%V\"",
                      &value);
        return NGX_ERROR;
    }

    if (until - ngx_time() < (time_t) (age / 1000)) {
        rd->end = ngx_current_msec + ngx_max(until - ngx_time(), 0) * 1000;
        rd->reason = NGX_PGQ_READER_UNTIL;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_pgq_stream_header(ngx_http_request_t *r, ngx_pgq_reader_t *rd)
{
    ngx_connection_t           *c;
    ngx_http_core_loc_conf_t   *clcf;
    const ngx_pgq_transport_t  *transport;

    if (rd->transport == NGX_PGQ_TRANSPORT_PAGE) {
        return NGX_OK;
    }

    c = r->connection;
    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);
    transport = &ngx_pgq_transports[rd->transport];

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = -1;
    r->headers_out.content_type = transport->type;
    r->headers_out.content_type_len = transport->type.len;
    r->headers_out.content_type_lowcase = NULL;

    if (rd->socket && ngx_pgq_socket_header(rd) != NGX_OK) {
        return NGX_ERROR;
    }

    /* a frame is not to wait for the acknowledgement of the one before */

    if (r->stream == NULL && clcf->tcp_nodelay && ngx_tcp_nodelay(c) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_send_header(r);
}
