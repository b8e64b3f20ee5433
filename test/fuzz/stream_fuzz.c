/* SPDX-License-Identifier: PostgreSQL */

/*
 * The beginning of a stream.  An input is a byte of flags, one for the
 * preference "wait" and one for what PostgreSQL answers; a line, the field
 * Last-Event-ID; and the arguments.  The reader starts where the field and the
 * arguments say, or the request is refused.  The argument "topic" is passed on
 * as a pattern as it is.
 */

#include "nginx_stub.h"
#include "ngx_pgq_reader.h"


#define TIME     "0123456789+-:.TtZz "    /* what a time may have */
#define AGE      1000
#define CURSOR   7      /* the id that PostgreSQL answers */


enum {
    FLAG_NDJSON = 1,
    FLAG_WEBSOCKET = 2,
    FLAG_FIELD = 4,     /* there is a field Last-Event-ID */
    FLAG_WAIT = 8,
    FLAG_FULL = 16,     /* there are as many readers as may be */
    FLAG_BUSY = 32      /* as many requests wait for PostgreSQL as may */
};


static ngx_pgq_fields_t         fields;
static ngx_pgq_pool_t           pool;
static ngx_pgq_readers_t        readers;
static ngx_pgq_reader_t        *reader;
static ngx_str_t                asked;
static unsigned                 flags;
static int                      started;
static ngx_pgq_read_query_t     query;
static ngx_pgq_history_done_pt  query_done;


const ngx_pgq_transport_t  ngx_pgq_transports[NGX_PGQ_TRANSPORTS];


/* functions of nginx that only this file under test calls */

ngx_int_t
ngx_http_send_header(ngx_http_request_t *r)
{
    fuzz_check(r->headers_out.status == NGX_HTTP_OK);

    return NGX_OK;
}


/* a number of seconds, minutes, hours or days */

ngx_int_t
ngx_parse_time(ngx_str_t *line, ngx_uint_t is_sec)
{
    size_t  len = line->len;

    fuzz_check(is_sec);

    if (len > 1 && memchr("smhd", line->data[len - 1], 4) != NULL) {
        len--;
    }

    return ngx_atoi(line->data, len);
}


void
ngx_gmtime(time_t t, ngx_tm_t *tp)
{
    (void) t;

    memset(tp, 0, sizeof(ngx_tm_t));
}


/* only for a time */

u_char * ngx_cdecl
ngx_sprintf(u_char *buf, const char *fmt, ...)
{
    fuzz_check(strncmp(fmt, "%4d-", 4) == 0);
    memcpy(buf, "2000-01-01T00:00:00Z", 20);

    return buf + 20;
}


ngx_int_t
ngx_tcp_nodelay(ngx_connection_t *c)
{
    (void) c;

    return NGX_OK;
}


/* only for pgq_stream_until */

time_t
ngx_atotm(u_char *line, size_t n)
{
    (void) line;
    (void) n;

    abort();
}


/* functions of the module */

ngx_pgq_reader_t *
ngx_pgq_reader_create(ngx_http_request_t *r, ngx_pgq_ctx_t *ctx)
{
    ctx->fields = fields;

    reader = ngx_pcalloc(r->pool, sizeof(ngx_pgq_reader_t));
    reader->readers = &readers;
    reader->request = r;
    reader->ctx = ctx;
    reader->cursor = -1;
    reader->fetch.data = reader;

    return reader;
}


void
ngx_pgq_reader_start(ngx_pgq_reader_t *rd)
{
    fuzz_check(rd == reader && !started);
    started = 1;
}


ngx_uint_t
ngx_pgq_socket_asked(ngx_pgq_reader_t *rd)
{
    fuzz_check(rd == reader);

    return (flags & FLAG_WEBSOCKET) != 0;
}


ngx_int_t
ngx_pgq_socket_create(ngx_pgq_reader_t *rd, ngx_pgq_problem_t *problem)
{
    (void) problem;

    rd->transport = NGX_PGQ_TRANSPORT_WEBSOCKET;

    return NGX_OK;
}


ngx_int_t
ngx_pgq_socket_header(ngx_pgq_reader_t *rd)
{
    (void) rd;

    abort();
}


void
ngx_pgq_socket_start(ngx_pgq_socket_t *s)
{
    (void) s;

    abort();
}


ngx_int_t
ngx_pgq_history_join(ngx_pgq_reader_t *rd, ngx_pgq_read_query_t *q,
    ngx_pgq_history_done_pt done)
{
    fuzz_check(rd == reader && query_done == NULL);

    if (flags & FLAG_BUSY) {
        return NGX_BUSY;
    }

    query = *q;
    query_done = done;
    rd->fetch.base.db = &pool;

    return NGX_AGAIN;
}


/* a topic with a slash at its end is refused */

ngx_int_t
ngx_pgq_fetch_filter(ngx_http_request_t *r, ngx_pgq_filter_t **filter,
    ngx_str_t *topics, ngx_str_t *pattern, ngx_pgq_problem_t *problem)
{
    if (ngx_http_arg(r, (u_char *) "topic", 5, &asked) != NGX_OK) {
        asked.len = 0;
    }

    *filter = asked.len ? (ngx_pgq_filter_t *) r : NULL;
    *pattern = asked;
    topics->len = 0;

    if (asked.len && asked.data[asked.len - 1] == '/') {
        problem->kind = NGX_PGQ_PROBLEM_BAD_TOPIC;
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/* the value of an argument, as a number; see fuzz_number() */

static long
argument(ngx_str_t *args, const char *name)
{
    size_t          len;
    const uint8_t  *value;

    value = fuzz_argument(args->data, args->len, name, &len);

    return value ? fuzz_number(value, len) : -1;
}


/* Whether since= is a time, or may be one; in the value no % is allowed. */

static int
is_time(const uint8_t *value, size_t len)
{
    size_t     i;
    ngx_str_t  text = { len, (u_char *) value };

    if (len == 0 || ngx_parse_time(&text, 1) != NGX_ERROR) {
        return len > 0;
    }

    for (i = 0; i < len; i++) {
        if (memchr(TIME, value[i], sizeof(TIME) - 1) == NULL) {
            return 0;
        }
    }

    return 1;
}


static void
check_time(const uint8_t *value, size_t len)
{
    size_t  i;

    fuzz_check(reader->time.len > 0 && query.special == NGX_PGQ_QUERY_SINCE);
    fuzz_check(query.pattern.data == reader->time.data
               && query.pattern.len == reader->time.len);

    for (i = 0; i < reader->time.len; i++) {
        fuzz_check(memchr(TIME, reader->time.data[i], sizeof(TIME) - 1)
                   != NULL);
    }

    fuzz_check(memchr(value, '%', len) != NULL || is_time(value, len));
}


static void
check_transport(long wait)
{
    fuzz_check(reader->transport
               == (flags & FLAG_WEBSOCKET ? NGX_PGQ_TRANSPORT_WEBSOCKET
                   : wait >= 0 ? NGX_PGQ_TRANSPORT_PAGE
                   : flags & FLAG_NDJSON ? NGX_PGQ_TRANSPORT_NDJSON
                   : NGX_PGQ_TRANSPORT_SSE));
    fuzz_check(reader->transport != NGX_PGQ_TRANSPORT_PAGE
               || reader->heartbeat == (ngx_msec_t) wait * 1000);
    fuzz_check(reader->end >= ngx_current_msec + AGE - AGE / 10
               && reader->end <= ngx_current_msec + AGE + AGE / 10);
}


/* the request begins, or is answered: with this status */

static void
check_begin(ngx_str_t *args, ngx_uint_t status)
{
    long            id, wait, limit, newest;
    size_t          len, since_len;
    const uint8_t  *value, *since;

    wait = argument(args, "wait");
    limit = argument(args, "limit");
    newest = argument(args, "newest");

    if (wait == -2 || wait > 60 || limit == -2 || limit == 0 || limit > 1000
        || newest == -2 || newest > 1000
        || (asked.len && asked.data[asked.len - 1] == '/'))
    {
        fuzz_check(status == 400);
        return;
    }

    value = NULL;
    since = fuzz_argument(args->data, args->len, "since", &since_len);

    if (fields.last_event_id && fields.last_event_id->len) {
        value = fields.last_event_id->data;
        len = fields.last_event_id->len;
    }

    if (value == NULL) {
        value = fuzz_argument(args->data, args->len, "last_event_id", &len);
    }

    if (value == NULL) {
        value = fuzz_argument(args->data, args->len, "after", &len);
    }

    if (value == NULL && newest < 0 && since) {
        fuzz_check(status != 400 || memchr(since, '%', since_len)
                   || !is_time(since, since_len));

    } else {
        fuzz_check(status != 400);
        since = NULL;
    }

    if (status) {
        fuzz_check(status == 400 || (status == 503 && flags & FLAG_FULL)
                   || (status == 503 && since && flags & FLAG_BUSY));
        return;
    }

    check_transport(wait < 0 ? ngx_min(fields.wait, 60) : wait);
    fuzz_check(reader->limit == (ngx_uint_t) (limit < 0 ? 100 : limit));
    fuzz_check(asked.len == reader->pattern.len);

    if (since) {
        check_time(since, since_len);
        return;
    }

    id = value ? fuzz_number(value, len) : -1;

    fuzz_check(started && query_done == NULL && reader->time.len == 0);
    fuzz_check(reader->start == (id >= 0 ? NGX_PGQ_READER_ID
                                 : id == -2 ? NGX_PGQ_READER_UNKNOWN
                                 : NGX_PGQ_READER_NEWEST));
    fuzz_check(reader->cursor == (id >= 0 ? id : -1));
    fuzz_check(reader->start != NGX_PGQ_READER_NEWEST
               || reader->newest == (ngx_uint_t) ngx_max(newest, 0));
}


static void
finalized(stub_request_t *f, ngx_int_t rc)
{
    fuzz_check(&f->request == reader->request && rc == NGX_OK);
}


/* PostgreSQL answers */

static void
check_answer(unsigned result)
{
    ngx_pgq_answer_t  answer;

    memset(&answer, 0, sizeof(answer));
    answer.next = CURSOR;
    result %= NGX_PGQ_READ_REFUSED + 1;
    reader->asking = 1;

    query_done(&reader->fetch, (ngx_pgq_read_result_e) result, &answer);

    fuzz_check(!reader->asking);
    fuzz_check(started == (result == NGX_PGQ_READ_DONE));
    fuzz_check(started ? stub_answer.answers == 0
                         && reader->start == NGX_PGQ_READER_ID
                         && reader->cursor == CURSOR
               : stub_answer.status == (result == NGX_PGQ_READ_REFUSED ? 400
                                                                       : 503));
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    unsigned             result;
    ngx_int_t            rc, wait;
    ngx_str_t            field;
    fuzz_input_t         in = { p, len };
    stub_request_t      *f;
    ngx_pgq_loc_conf_t   conf;

    static ngx_time_t    now = { .sec = 946684800 };

    memset(&conf, 0, sizeof(conf));
    memset(&readers, 0, sizeof(readers));
    memset(&fields, 0, sizeof(fields));
    asked.len = 0;
    started = 0;
    query_done = NULL;

    flags = fuzz_byte(&in);
    wait = fuzz_byte(&in);
    result = fuzz_byte(&in);

    ngx_cached_time = &now;
    stub_finalized = finalized;
    conf.stream = &pool;
    pool.reads = &pool;
    conf.readers = 1;
    conf.stream_age = AGE;
    readers.db = &pool;
    readers.n = (flags & FLAG_FULL) != 0;

    f = stub_request(&conf);
    f->request.method = NGX_HTTP_GET;
    f->request.count = 1;

    field = stub_line(&in);
    fields.last_event_id = flags & FLAG_FIELD ? &field : NULL;
    fields.wait = flags & FLAG_WAIT ? wait : -1;
    fields.accept_ndjson = (flags & FLAG_NDJSON) != 0;

    in.len = ngx_min(in.len, 512);
    f->request.args.data = fuzz_copy(in.p, in.len);
    f->request.args.len = in.len;

    rc = ngx_pgq_stream_handler(&f->request);

    fuzz_check(rc == NGX_OK ? stub_answer.answers == 1 && !started
               : rc == NGX_DONE && stub_answer.answers == 0
                 && f->request.count == 2 && started == !query_done);

    check_begin(&f->request.args, stub_answer.status);

    if (query_done) {
        check_answer(result);
    }

    stub_answered();
    free(f->request.args.data);
    stub_request_free(f);

    return 0;
}
