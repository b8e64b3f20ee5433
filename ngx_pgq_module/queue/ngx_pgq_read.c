/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file owns the reads.
 *
 * Invariants:
 *  - a read is in a list of reads->waiting, or in reads->sent while its call
 *    is in progress.  A fetch only joins a waiting read: one in progress may
 *    not see posts that the client has already seen;
 *  - reads of requests that ask again have a list of their own.  The lists
 *    take turns, so that no other request waits for all of them;
 *  - consumers of a subscription that ask at the same time share a read, so
 *    that many that wait cost one query.  Its posts are given to the first
 *    one; then it is sent again for the others;
 *  - a fetch is in the list of its read until it is answered or its client
 *    leaves.  A read in progress is kept until its call ends;
 *  - no read is sent while the answers that clients have not read yet take
 *    unread_size or more;
 *  - a read is tried again until pgq_timeout if its connection was lost, but
 *    not if the database refused it or exceeded answer_timeout.
 */

#include "ngx_pgq_read.h"


struct ngx_pgq_read_s {
    ngx_queue_t              queue;
    ngx_queue_t              fetches;
    ngx_pgq_pool_t          *db;
    ngx_pgq_call_t           call;
    ngx_pgq_answer_t        *answer;    /* NULL before the first row */
    ngx_pgq_read_query_t     query;     /* its strings follow the read */
    /* parameters, in network byte order */
    uint32_t                 limit;
    uint32_t                 size;
    uint32_t                 part;
    uint32_t                 lease;
    uint64_t                 id;
    unsigned                 sent:1;    /* it is in reads->sent */
};


/* the data of the source of a pool of GETs, in each worker */

typedef struct {
    ngx_queue_t              unanswered;    /* fetches */
    ngx_queue_t              waiting[2];    /* reads, oldest first, by
                                               query.again */
    ngx_uint_t               turn;          /* the list of the next read */
    ngx_queue_t              sent;          /* reads in progress */
    time_t                   logged_at;     /* when an error was last logged */
} ngx_pgq_reads_t;


#define ngx_pgq_reads(db)  ((ngx_pgq_reads_t *) (db)->data)


static ngx_pgq_read_t *ngx_pgq_read_create(ngx_pgq_pool_t *db,
    ngx_pgq_read_query_t *query);
static ngx_pgq_read_t *ngx_pgq_read_find(ngx_pgq_pool_t *db,
    ngx_pgq_read_query_t *query);
static ngx_pgq_call_t *ngx_pgq_read_next(ngx_pgq_pool_t *db);
static ngx_msec_int_t ngx_pgq_read_expire(ngx_pgq_pool_t *db);
static void ngx_pgq_read_expired(ngx_pgq_waiting_t *w);
static void ngx_pgq_read_clear(ngx_pgq_pool_t *db);
static ngx_int_t ngx_pgq_read_encode(ngx_pgq_call_t *call);
static void ngx_pgq_read_value(ngx_pgq_call_t *call, ngx_uint_t n,
    const void *value, size_t len);
static void ngx_pgq_read_row(ngx_pgq_call_t *call, ngx_str_t *fields);
static void ngx_pgq_read_done(ngx_pgq_call_t *call,
    ngx_pgq_outcome_e outcome);
static void ngx_pgq_read_again(ngx_pgq_read_t *read);
static ngx_uint_t ngx_pgq_read_taken(ngx_pgq_read_t *read);
static ngx_pgq_read_result_e ngx_pgq_read_complete(ngx_pgq_read_t *read);
static ngx_pgq_read_result_e ngx_pgq_read_refused(ngx_pgq_read_t *read);
static void ngx_pgq_read_answer(ngx_pgq_fetch_t *f,
    ngx_pgq_read_result_e result, ngx_pgq_answer_t *answer);
static void ngx_pgq_read_free(ngx_pgq_read_t *read);


static const ngx_pgq_read_e  ngx_pgq_read_statements[] = {
    [NGX_PGQ_QUERY_POSTS] = NGX_PGQ_RECENT,
    [NGX_PGQ_QUERY_HISTORY] = NGX_PGQ_HISTORY,
    [NGX_PGQ_QUERY_SINCE] = NGX_PGQ_SINCE,
    [NGX_PGQ_QUERY_METRICS] = NGX_PGQ_METRICS,
    [NGX_PGQ_QUERY_SUBSCRIPTIONS] = NGX_PGQ_SUBSCRIPTIONS,
    [NGX_PGQ_QUERY_CONSUME] = NGX_PGQ_CONSUME,
    [NGX_PGQ_QUERY_ACK] = NGX_PGQ_ACK,
    [NGX_PGQ_QUERY_SUBSCRIBE] = NGX_PGQ_SUBSCRIBE,
    [NGX_PGQ_QUERY_UNSUBSCRIBE] = NGX_PGQ_UNSUBSCRIBE
};


static ngx_pgq_source_t  ngx_pgq_read_source = {
    ngx_pgq_read_next,
    ngx_pgq_read_expire,
    ngx_pgq_read_clear,
    NULL
};


ngx_int_t
ngx_pgq_read_init(ngx_pgq_pool_t *db, ngx_pool_t *memory)
{
    ngx_pgq_reads_t  *reads;

    reads = ngx_pcalloc(memory, sizeof(ngx_pgq_reads_t));
    if (reads == NULL) {
        return NGX_ERROR;
    }

    ngx_queue_init(&reads->unanswered);
    ngx_queue_init(&reads->waiting[0]);
    ngx_queue_init(&reads->waiting[1]);
    ngx_queue_init(&reads->sent);

    db->source = &ngx_pgq_read_source;
    db->data = reads;

    return NGX_OK;
}


/* the query is copied */

ngx_int_t
ngx_pgq_read_join(ngx_pgq_fetch_t *f, ngx_pgq_read_query_t *query)
{
    ngx_pgq_read_t  *read;
    ngx_pgq_pool_t  *db;

    db = f->base.db;
    read = ngx_pgq_read_find(db, query);

    if (read == NULL) {
        read = ngx_pgq_read_create(db, query);
        if (read == NULL) {
            return NGX_ERROR;
        }
    }

    f->read = read;

    ngx_queue_insert_tail(&read->fetches, &f->queue);
    ngx_pgq_ticket_hold(&f->base, &ngx_pgq_reads(db)->unanswered, 0);
    ngx_pgq_pool_open(db);

    return NGX_OK;
}


static ngx_pgq_read_t *
ngx_pgq_read_create(ngx_pgq_pool_t *db, ngx_pgq_read_query_t *query)
{
    ngx_pgq_read_t  *read;

    read = ngx_calloc(sizeof(ngx_pgq_read_t) + ngx_pgq_answer_strings(query),
                      db->lane.log);
    if (read == NULL) {
        return NULL;
    }

    ngx_queue_init(&read->fetches);

    read->db = db;
    ngx_pgq_answer_copy(&read->query, query, (u_char *) (read + 1));

    read->limit = htonl((uint32_t) query->limit);
    read->size = htonl((uint32_t) query->size);
    read->part = htonl((uint32_t) query->part);
    read->lease = htonl((uint32_t) query->lease);
    read->id = htobe64((uint64_t) query->id);
    read->call.commits = query->special >= NGX_PGQ_QUERY_CONSUME;

    read->call.statement =
                 query->special == NGX_PGQ_QUERY_POSTS && query->ascending
                 ? NGX_PGQ_AFTER : ngx_pgq_read_statements[query->special];
    read->call.read = 1;
    read->call.encode = ngx_pgq_read_encode;
    read->call.row = ngx_pgq_read_row;
    read->call.done = ngx_pgq_read_done;
    read->call.data = read;

    ngx_queue_insert_tail(&ngx_pgq_reads(db)->waiting[query->again],
                          &read->queue);

    return read;
}


/* returns a waiting read with this query, or NULL */

static ngx_pgq_read_t *
ngx_pgq_read_find(ngx_pgq_pool_t *db, ngx_pgq_read_query_t *query)
{
    ngx_queue_t     *q, *waiting;
    ngx_pgq_read_t  *read;

    waiting = &ngx_pgq_reads(db)->waiting[query->again];

    for (q = ngx_queue_head(waiting);
         q != ngx_queue_sentinel(waiting);
         q = ngx_queue_next(q))
    {
        read = ngx_queue_data(q, ngx_pgq_read_t, queue);

        if (ngx_pgq_answer_same(&read->query, query)) {
            return read;
        }
    }

    return NULL;
}


/* called when the fetch is answered, or its client has left */

void
ngx_pgq_read_leave(ngx_pgq_fetch_t *f)
{
    ngx_pgq_read_t  *read;

    read = f->read;

    ngx_queue_remove(&f->queue);
    ngx_pgq_ticket_release(&f->base, 0);

    if (!read->sent && ngx_queue_empty(&read->fetches)) {
        ngx_queue_remove(&read->queue);
        ngx_pgq_read_free(read);
    }
}


static ngx_pgq_call_t *
ngx_pgq_read_next(ngx_pgq_pool_t *db)
{
    ngx_queue_t      *q;
    ngx_pgq_read_t   *read;
    ngx_pgq_reads_t  *reads;

    reads = ngx_pgq_reads(db);

    if (ngx_queue_empty(&reads->waiting[reads->turn])) {
        reads->turn = !reads->turn;
    }

    if (ngx_queue_empty(&reads->waiting[reads->turn])
        || db->size >= db->unread_size)
    {
        return NULL;
    }

    q = ngx_queue_head(&reads->waiting[reads->turn]);
    ngx_queue_remove(q);
    reads->turn = !reads->turn;

    ngx_queue_insert_tail(&reads->sent, q);

    read = ngx_queue_data(q, ngx_pgq_read_t, queue);
    read->sent = 1;

    return &read->call;
}


static ngx_msec_int_t
ngx_pgq_read_expire(ngx_pgq_pool_t *db)
{
    return ngx_pgq_ticket_expire(&ngx_pgq_reads(db)->unanswered,
                                 ngx_pgq_read_expired);
}


static void
ngx_pgq_read_expired(ngx_pgq_waiting_t *w)
{
    ngx_pgq_read_answer((ngx_pgq_fetch_t *) w,
                        ngx_pgq_pool_connected(w->db)
                        ? NGX_PGQ_READ_TIMEOUT : NGX_PGQ_READ_NO_DATABASE,
                        NULL);
}


static void
ngx_pgq_read_clear(ngx_pgq_pool_t *db)
{
    ngx_queue_t      *q;
    ngx_pgq_reads_t  *reads;

    reads = ngx_pgq_reads(db);

    ngx_queue_add(&reads->sent, &reads->waiting[0]);
    ngx_queue_add(&reads->sent, &reads->waiting[1]);

    while (!ngx_queue_empty(&reads->sent)) {
        q = ngx_queue_head(&reads->sent);
        ngx_queue_remove(q);
        ngx_pgq_read_free(ngx_queue_data(q, ngx_pgq_read_t, queue));
    }
}


static ngx_int_t
ngx_pgq_read_encode(ngx_pgq_call_t *call)
{
    ngx_pgq_read_t        *read;
    ngx_pgq_read_query_t  *query;

    read = call->data;
    query = &read->query;

    switch (query->special) {

    case NGX_PGQ_QUERY_SINCE:
        ngx_pgq_read_value(call, 0, query->pattern.data, query->pattern.len);
        return NGX_OK;

    case NGX_PGQ_QUERY_METRICS:
    case NGX_PGQ_QUERY_SUBSCRIPTIONS:
        return NGX_OK;

    case NGX_PGQ_QUERY_CONSUME:
        ngx_pgq_read_value(call, 0, query->name.data, query->name.len);
        ngx_pgq_read_value(call, 1, &read->limit, sizeof(read->limit));
        ngx_pgq_read_value(call, 2, &read->lease, sizeof(read->lease));
        ngx_pgq_read_value(call, 3, query->part ? &read->part : NULL,
                           sizeof(read->part));
        ngx_pgq_read_value(call, 4, query->id ? &read->id : NULL,
                           sizeof(read->id));
        ngx_pgq_read_value(call, 5, &read->size, sizeof(read->size));
        return NGX_OK;

    case NGX_PGQ_QUERY_ACK:
    case NGX_PGQ_QUERY_SUBSCRIBE:
    case NGX_PGQ_QUERY_UNSUBSCRIBE:
        ngx_pgq_read_value(call, 0, query->name.data, query->name.len);
        ngx_pgq_read_value(call, 1, query->pattern.data, query->pattern.len);
        return NGX_OK;

    default:
        break;
    }

    ngx_pgq_read_value(call, 0, &read->limit, sizeof(read->limit));
    ngx_pgq_read_value(call, 1, query->id || query->ascending ? &read->id
                                                              : NULL,
                       sizeof(read->id));
    ngx_pgq_read_value(call, 2, &read->size, sizeof(read->size));
    ngx_pgq_read_value(call, 3, query->topics.len ? query->topics.data : NULL,
                       query->topics.len);
    ngx_pgq_read_value(call, 4,
                       query->pattern.len ? query->pattern.data : NULL,
                       query->pattern.len);

    return NGX_OK;
}


static void
ngx_pgq_read_value(ngx_pgq_call_t *call, ngx_uint_t n, const void *value,
    size_t len)
{
    call->values[n] = value;
    call->lengths[n] = len;
}


static void
ngx_pgq_read_row(ngx_pgq_call_t *call, ngx_str_t *fields)
{
    ngx_pgq_read_t  *read;

    read = call->data;

    if (ngx_queue_empty(&read->fetches)) {
        return;
    }

    if (read->answer == NULL) {
        read->answer = ngx_pgq_answer_create(read->db, &read->query, 0);
    }

    if (read->answer) {
        ngx_pgq_answer_row(read->answer, fields);
    }
}


static void
ngx_pgq_read_done(ngx_pgq_call_t *call, ngx_pgq_outcome_e outcome)
{
    ngx_pgq_read_t         *read;
    ngx_pgq_fetch_t        *f;
    ngx_pgq_read_result_e   result;

    read = call->data;
    ngx_queue_remove(&read->queue);

    if (ngx_queue_empty(&read->fetches)) {
        ngx_pgq_read_free(read);
        return;
    }

    if (outcome == NGX_PGQ_AGAIN || outcome == NGX_PGQ_UNKNOWN) {
        ngx_pgq_read_again(read);
        return;
    }

    result = outcome == NGX_PGQ_DONE ? ngx_pgq_read_complete(read)
                                     : ngx_pgq_read_refused(read);

    while (!ngx_queue_empty(&read->fetches)) {
        f = ngx_queue_data(ngx_queue_head(&read->fetches), ngx_pgq_fetch_t,
                           queue);
        f->refused = call;

        ngx_pgq_read_answer(f, result, read->answer);

        if (result == NGX_PGQ_READ_DONE && ngx_pgq_read_taken(read)
            && !ngx_queue_empty(&read->fetches))
        {
            ngx_pgq_read_again(read);
            return;
        }
    }

    ngx_pgq_read_free(read);
}


static void
ngx_pgq_read_again(ngx_pgq_read_t *read)
{
    if (read->answer) {
        ngx_pgq_answer_release(read->answer);
        read->answer = NULL;
    }

    read->sent = 0;
    ngx_queue_insert_head(&ngx_pgq_reads(read->db)->waiting[read->query.again],
                          &read->queue);
    ngx_pgq_pool_wake(read->db);
}


/* whether the answer has posts with a lease, which one request got */

static ngx_uint_t
ngx_pgq_read_taken(ngx_pgq_read_t *read)
{
    return read->query.special == NGX_PGQ_QUERY_CONSUME
           && read->answer->posts.nelts > 0;
}


static ngx_pgq_read_result_e
ngx_pgq_read_complete(ngx_pgq_read_t *read)
{
    if (read->answer == NULL) {
        /* there was no row */
        read->answer = ngx_pgq_answer_create(read->db, &read->query, 0);
    }

    return read->answer && ngx_pgq_answer_end(read->answer) == NGX_OK
           ? NGX_PGQ_READ_DONE : NGX_PGQ_READ_NO_MEMORY;
}


/* called when the database has reported an error */

static ngx_pgq_read_result_e
ngx_pgq_read_refused(ngx_pgq_read_t *read)
{
    ngx_pgq_call_t   *call;
    ngx_pgq_pool_t   *db;
    ngx_pgq_reads_t  *reads;

    call = &read->call;
    db = read->db;
    reads = ngx_pgq_reads(db);

    if (read->query.special >= NGX_PGQ_QUERY_CONSUME
        ? ngx_strncmp(call->sqlstate, "22", 2) == 0
          || ngx_strncmp(call->sqlstate, "PQ", 2) == 0
        : read->query.special == NGX_PGQ_QUERY_SINCE
          && (ngx_strncmp(call->sqlstate, "22", 2) == 0
              || ngx_strcmp(call->sqlstate, "55000") == 0))
    {
        return NGX_PGQ_READ_REFUSED;
    }

    if (reads->logged_at == 0
        || ngx_pgq_seconds() - reads->logged_at >= NGX_PGQ_LOG_INTERVAL)
    {
        reads->logged_at = ngx_pgq_seconds();
        ngx_log_error(NGX_LOG_ERR, db->lane.log, 0,
                      "pgq fetch: could not read posts: %V (%s), pool \"%V\"",
                      &call->error_text, call->sqlstate, &db->lane.name);
    }

    /* statement_timeout or lock_timeout */

    return ngx_strcmp(call->sqlstate, "57014") == 0
           || ngx_strcmp(call->sqlstate, "55P03") == 0
           ? NGX_PGQ_READ_TIMEOUT : NGX_PGQ_READ_FAILED;
}


static void
ngx_pgq_read_answer(ngx_pgq_fetch_t *f, ngx_pgq_read_result_e result,
    ngx_pgq_answer_t *answer)
{
    ngx_pgq_read_leave(f);

    if (result == NGX_PGQ_READ_DONE) {
        ngx_pgq_pool_answered(f->base.db);
    }

    f->done(f, result, answer);
}


static void
ngx_pgq_read_free(ngx_pgq_read_t *read)
{
    if (read->answer) {
        ngx_pgq_answer_release(read->answer);
    }

    ngx_free(read);
}
