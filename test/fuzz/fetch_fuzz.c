/* SPDX-License-Identifier: PostgreSQL */

/*
 * GET requests with any arguments and any order of events.  An input is a list
 * of steps: a byte for the event, one for the request or call, and its data.
 * Requests begin, are closed and expire, calls get a row or end; an answered
 * request may close another one.  Each request is answered at most once, each
 * call has the arguments of a request, and an answer's memory is freed with
 * the last request that it answers.  There is no ring; the argument "topic" is
 * passed on as a pattern as it is.
 */

#include "nginx_stub.h"
#include "ngx_pgq_read.h"

#include <endian.h>


#define REQUESTS  16
#define CALLS     4
#define TIMEOUT   1000


typedef struct {
    stub_request_t  *f;          /* NULL: none */
    long            limit;
    long            before;
    long            after;
    size_t          topic_len;
    u_char          topic[64];
} get_t;


static get_t            gets[REQUESTS];
static ngx_pgq_call_t  *calls[CALLS];
static ngx_pgq_pool_t   pool;
static ngx_log_t        errors;
static ngx_time_t       now;
static ngx_str_t        asked;
static int              drags;


ngx_int_t
ngx_pgq_filter_asked(ngx_http_request_t *r, ngx_str_t *topics)
{
    if (ngx_http_arg(r, (u_char *) "topic", 5, topics) != NGX_OK) {
        topics->len = 0;
    }

    asked = *topics;

    return NGX_OK;
}


ngx_int_t
ngx_pgq_filter_read(ngx_http_request_t *r, ngx_str_t *topics,
    ngx_pgq_filter_t **filter, ngx_pgq_problem_t *problem)
{
    (void) r;
    (void) topics;
    (void) problem;

    *filter = NULL;

    return NGX_OK;
}


ngx_int_t
ngx_pgq_filter_sql(ngx_pgq_filter_t *filter, ngx_pool_t *memory,
    ngx_str_t *topics, ngx_str_t *pattern)
{
    (void) filter;
    (void) memory;

    topics->len = 0;
    *pattern = asked;

    return NGX_OK;
}


ngx_int_t
ngx_pgq_newest_answer(ngx_pgq_pool_t *db, ngx_pgq_read_query_t *query,
    ngx_pgq_filter_t *filter, ngx_pgq_answer_t **answer, ngx_msec_t *age)
{
    (void) db;
    (void) query;
    (void) filter;
    (void) answer;
    (void) age;

    abort();
}


/* only for an answer from the ring */

u_char * ngx_cdecl
ngx_sprintf(u_char *buf, const char *fmt, ...)
{
    (void) buf;
    (void) fmt;

    abort();
}


void
ngx_pgq_metrics_ring(ngx_uint_t place, ngx_pgq_metrics_ring_e total)
{
    (void) place;
    (void) total;
}


/* The value of an argument; -1 if it is missing, -2 if it is not a number. */

static long
argument(const uint8_t *p, size_t len, const char *name)
{
    size_t          n;
    const uint8_t  *value;

    value = fuzz_argument(p, len, name, &n);

    return value ? fuzz_number(value, n) : -1;
}


static void
leave(get_t *get)
{
    stub_request_t  *f = get->f;

    get->f = NULL;

    if (f) {
        stub_request_free(f);
    }
}


static void
finalized(stub_request_t *f, ngx_int_t rc)
{
    get_t  *get = f->data;

    fuzz_check(get->f == f);
    fuzz_check(rc == NGX_OK ? stub_answer.answers == 1
               : rc == NGX_HTTP_INTERNAL_SERVER_ERROR);

    if (stub_answer.status == 200) {
        fuzz_check(stub_answer.len >= sizeof("{\"msg\":[]}") - 1);
        fuzz_check(memcmp(stub_answer.body, "{\"msg\":[", 8) == 0);
        fuzz_check(stub_answer.body[stub_answer.len - 1] == '}');
    }

    stub_answered();
    leave(get);

    if (drags) {
        leave(&gets[(get - gets + drags) % REQUESTS]);
    }
}


static void
come(get_t *get, ngx_pgq_loc_conf_t *conf, fuzz_input_t *in)
{
    size_t          len;
    ngx_int_t       rc;
    const uint8_t  *p;
    stub_request_t  *f;

    if (get->f) {
        return;
    }

    p = fuzz_bytes(in, fuzz_byte(in) % 64, &len);

    f = stub_request(conf);
    f->data = get;
    f->request.method = NGX_HTTP_GET;
    f->request.count = 1;
    f->request.args.len = len;
    f->request.args.data = ngx_pnalloc(f->request.pool, len);
    memcpy(f->request.args.data, p, len);

    get->f = f;
    get->limit = argument(p, len, "limit");
    get->before = argument(p, len, "before");
    get->after = argument(p, len, "after");

    asked.len = 0;
    rc = ngx_pgq_fetch_handler(&f->request);

    get->topic_len = asked.len;

    if (asked.len) {
        memcpy(get->topic, asked.data, asked.len);
    }

    if (get->limit == -2 || get->limit == 0 || get->limit > 1000
        || get->before == -2 || get->before == 0
        || get->after == -2 || (get->after >= 0 && get->before > 0))
    {
        fuzz_check(rc == NGX_OK && stub_answer.status == 400);

    } else if (pool.unanswered > pool.max_tickets
               || stub_answer.status == 503)
    {
        fuzz_check(rc == NGX_OK && stub_answer.status == 503);
        fuzz_check(pool.unanswered >= pool.max_tickets
                   || pool.size >= pool.unread_size);

    } else {
        fuzz_check(rc == NGX_DONE && stub_answer.answers == 0);
        fuzz_check(f->request.count == 2);
        return;
    }

    stub_answered();
    leave(get);
}


/* A call has the arguments of one of the requests. */

static void
call(ngx_pgq_call_t **c)
{
    int       i;
    long      id;
    size_t    len;
    get_t    *get;
    uint32_t  limit;
    uint64_t  number;

    if (*c || (*c = pool.source->next(&pool)) == NULL) {
        return;
    }

    fuzz_check((*c)->encode(*c) == NGX_OK);
    fuzz_check((*c)->lengths[0] == 4 && (*c)->lengths[2] == 4);
    fuzz_check((*c)->values[3] == NULL);
    len = (*c)->values[4] ? (size_t) (*c)->lengths[4] : 0;
    memcpy(&limit, (*c)->values[0], 4);
    limit = be32toh(limit);
    id = -1;

    if ((*c)->values[1]) {
        fuzz_check((*c)->lengths[1] == 8);
        memcpy(&number, (*c)->values[1], 8);
        id = (long) be64toh(number);
    }

    for (i = 0; i < REQUESTS; i++) {
        get = &gets[i];

        if (get->f && (*c)->statement == (get->after < 0 ? NGX_PGQ_RECENT
                                                         : NGX_PGQ_AFTER)
            && id == (get->after < 0 ? get->before : get->after)
            && (long) limit == (get->limit < 0 ? 100 : get->limit)
            && len == get->topic_len
            && (len == 0 || memcmp(get->topic, (*c)->values[4], len) == 0))
        {
            return;
        }
    }

    fuzz_check(0);
}


static void
row(ngx_pgq_call_t *c, fuzz_input_t *in)
{
    int        i;
    size_t     len, n;
    ngx_str_t  fields[NGX_PGQ_MAX_FIELDS];

    memset(fields, 0, sizeof(fields));

    for (i = 0; i < NGX_PGQ_MAX_FIELDS; i++) {
        /* the id is never null */
        n = fuzz_byte(in) % (i ? 64 : 20);
        if (i == 0 || n) {
            fields[i].data = (u_char *) fuzz_bytes(in, n, &len);
            fields[i].len = len;
        }
    }

    if (c) {
        c->row(c, fields);
    }
}


static void
end(ngx_pgq_call_t **c, ngx_pgq_outcome_e outcome)
{
    ngx_pgq_call_t  *ended = *c;

    *c = NULL;

    if (ended) {
        ended->sqlstate = (u_char *) (drags % 2 ? "57014" : "42501");
        ended->done(ended, outcome);
    }
}


static void
step(ngx_pgq_loc_conf_t *conf, fuzz_input_t *in)
{
    unsigned         what, who;
    ngx_msec_int_t   wait;

    what = fuzz_byte(in);
    who = fuzz_byte(in);
    drags = what >> 4;

    switch (what % 8) {

    case 0:
    case 1:
        come(&gets[who % REQUESTS], conf, in);
        break;

    case 2:
        call(&calls[who % CALLS]);
        break;

    case 3:
        row(calls[who % CALLS], in);
        end(&calls[who % CALLS], NGX_PGQ_DONE);
        break;

    case 4:
        end(&calls[who % CALLS], (ngx_pgq_outcome_e) (who / CALLS % 4));
        break;

    case 5:
        row(calls[who % CALLS], in);
        break;

    case 6:
        leave(&gets[who % REQUESTS]);
        break;

    default:
        ngx_current_msec += who * 8;
        wait = pool.source->expire(&pool);
        fuzz_check(wait == -1 || (wait > 0 && wait <= TIMEOUT));
        break;
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    int                  i;
    fuzz_input_t         in = { p, len };
    ngx_pool_t          *memory;
    ngx_pgq_loc_conf_t   conf;

    memset(&pool, 0, sizeof(pool));
    memset(&conf, 0, sizeof(conf));
    memset(gets, 0, sizeof(gets));
    memset(calls, 0, sizeof(calls));

    conf.get = &pool;
    pool.reads = &pool;
    conf.timeout = TIMEOUT;
    pool.max_tickets = fuzz_byte(&in) % REQUESTS + 1;
    pool.unread_size = 3 * 4096;
    pool.lane.log = &errors;
    ngx_cached_time = &now;
    pool.answer_size = 1024;
    stub_finalized = finalized;
    ngx_current_msec = (ngx_msec_t) -500;

    memory = ngx_create_pool(0, NULL);
    fuzz_check(ngx_pgq_read_init(&pool, memory) == NGX_OK);

    while (in.len) {
        step(&conf, &in);
    }

    /* the worker ends */

    for (i = 0; i < REQUESTS; i++) {
        leave(&gets[i]);
    }

    fuzz_check(pool.unanswered == 0);
    pool.source->clear(&pool);
    fuzz_check(pool.size == 0);
    ngx_destroy_pool(memory);

    return 0;
}
