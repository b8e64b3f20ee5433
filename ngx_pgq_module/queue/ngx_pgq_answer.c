/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file owns the bodies of answers to GET, each in its own memory pool.
 * The holders of an answer are its maker and the memory pool of each request
 * that it answers; the last one to release the answer frees it.
 *
 * Invariants:
 *  - an answer's bytes count in db->size until it is freed, but not while
 *    it is only kept for later requests;
 *  - the body is written once; the buffers of each reply point into it;
 *  - an object is contiguous, in one piece;
 *  - the ETag is a hash of ids, times, topics and lengths.  Posts do not
 *    change, so the text of a large post need not be hashed.
 */

#include "ngx_pgq_answer.h"
#include "ngx_pgq_object.h"

#include <ngx_md5.h>


#define NGX_PGQ_ANSWER_PIECE     4096    /* first size; doubled four times */
#define NGX_PGQ_ANSWER_POSTS     128     /* first size of the array */


static ngx_uint_t ngx_pgq_answer_equal(ngx_str_t *a, ngx_str_t *b);
static ngx_uint_t ngx_pgq_answer_special(ngx_pgq_answer_t *answer,
    ngx_str_t *fields);
static int64_t ngx_pgq_answer_number(ngx_str_t *field);
static ngx_int_t ngx_pgq_answer_hash(ngx_pgq_answer_t *answer);
static void ngx_pgq_answer_change(ngx_pgq_answer_t *answer, ngx_int_t holders,
    ngx_int_t kept);
static u_char *ngx_pgq_answer_space(ngx_pgq_answer_t *answer, size_t len);
static ngx_int_t ngx_pgq_answer_grow(ngx_pgq_answer_t *answer, size_t len);
static void ngx_pgq_answer_cleanup(void *data);


ngx_uint_t
ngx_pgq_answer_same(ngx_pgq_read_query_t *a, ngx_pgq_read_query_t *b)
{
    return a->special == b->special
           && a->special <= NGX_PGQ_QUERY_CONSUME
           && a->ascending == b->ascending
           && a->limit == b->limit
           && a->id == b->id
           && a->size == b->size
           && a->part == b->part
           && a->lease == b->lease
           && ngx_pgq_answer_equal(&a->name, &b->name)
           && ngx_pgq_answer_equal(&a->topics, &b->topics)
           && ngx_pgq_answer_equal(&a->pattern, &b->pattern);
}


size_t
ngx_pgq_answer_strings(ngx_pgq_read_query_t *query)
{
    return query->topics.len + query->pattern.len + query->name.len;
}


/* copies a query with its strings, for which p has memory */

void
ngx_pgq_answer_copy(ngx_pgq_read_query_t *dst, ngx_pgq_read_query_t *src,
    u_char *p)
{
    *dst = *src;

    if (src->topics.len) {
        dst->topics.data = p;
        p = ngx_cpymem(p, src->topics.data, src->topics.len);
    }

    if (src->pattern.len) {
        dst->pattern.data = p;
        p = ngx_cpymem(p, src->pattern.data, src->pattern.len);
    }

    if (src->name.len) {
        dst->name.data = p;
        ngx_memcpy(p, src->name.data, src->name.len);
    }
}


static ngx_uint_t
ngx_pgq_answer_equal(ngx_str_t *a, ngx_str_t *b)
{
    return a->len == b->len
           && (a->len == 0 || ngx_memcmp(a->data, b->data, a->len) == 0);
}


/* size: bytes of the body, if they are known */

ngx_pgq_answer_t *
ngx_pgq_answer_create(ngx_pgq_pool_t *db, ngx_pgq_read_query_t *query,
    size_t size)
{
    u_char            *p;
    ngx_pool_t        *memory;
    ngx_pgq_answer_t  *answer;

    memory = ngx_create_pool(1024, db->lane.log);
    if (memory == NULL) {
        return NULL;
    }

    answer = ngx_pcalloc(memory, sizeof(ngx_pgq_answer_t));
    p = ngx_pnalloc(memory, ngx_pgq_answer_strings(query));

    if (answer == NULL || p == NULL
        || ngx_array_init(&answer->pieces, memory, 8, sizeof(ngx_str_t))
           != NGX_OK
        || ngx_array_init(&answer->posts, memory,
                          ngx_min(query->limit, NGX_PGQ_ANSWER_POSTS),
                          sizeof(ngx_pgq_answer_post_t))
           != NGX_OK)
    {
        ngx_destroy_pool(memory);
        return NULL;
    }

    answer->db = db;
    answer->memory = memory;
    answer->holders = 1;
    answer->next = query->id;
    ngx_pgq_answer_copy(&answer->query, query, p);

    if (size && ngx_pgq_answer_grow(answer, size) != NGX_OK) {
        answer->failed = 1;
    }

    p = ngx_pgq_answer_space(answer, sizeof("{\"msg\":[") - 1);

    if (p) {
        ngx_memcpy(p, "{\"msg\":[", sizeof("{\"msg\":[") - 1);
    }

    return answer;
}


/*
 * Reads what a row has beside a post; returns whether it has one.  Ids are at
 * least 0; there may be no oldest post.
 */

static ngx_uint_t
ngx_pgq_answer_special(ngx_pgq_answer_t *answer, ngx_str_t *fields)
{
    u_char     *p;
    ngx_str_t  *oldest, *newest;

    switch (answer->query.special) {

    case NGX_PGQ_QUERY_POSTS:
        return 1;

    case NGX_PGQ_QUERY_HISTORY:
        oldest = &fields[NGX_PGQ_ANSWER_OLDEST];
        newest = &fields[NGX_PGQ_ANSWER_NEWEST];

        answer->newest = ngx_pgq_answer_number(newest);
        answer->oldest = oldest->data ? ngx_pgq_answer_number(oldest)
                                      : answer->newest + 1;
        answer->complete = fields[NGX_PGQ_ANSWER_COMPLETE].data[0] == 't';

        return fields[NGX_PGQ_ANSWER_ID].data != NULL;

    case NGX_PGQ_QUERY_CONSUME:
        answer->part = ngx_pgq_answer_number(&fields[NGX_PGQ_ANSWER_PART]);
        answer->generation =
                    ngx_pgq_answer_number(&fields[NGX_PGQ_ANSWER_GENERATION]);
        return 1;

    case NGX_PGQ_QUERY_SINCE:
        answer->next = ngx_max(ngx_pgq_answer_number(&fields[0]), 0);
        return 0;

    case NGX_PGQ_QUERY_METRICS:
    case NGX_PGQ_QUERY_SUBSCRIPTIONS:
        p = ngx_pgq_answer_add(answer, 0, fields[0].len, 0);

        if (p) {
            ngx_memcpy(p, fields[0].data, fields[0].len);
        }

        return 0;

    default: /* NGX_PGQ_QUERY_ACK, SUBSCRIBE, UNSUBSCRIBE */
        answer->next = fields[0].len && fields[0].data[0] == 't';
        return 0;
    }
}


static int64_t
ngx_pgq_answer_number(ngx_str_t *field)
{
    return ngx_atoof(field->data, field->len);
}


void
ngx_pgq_answer_row(ngx_pgq_answer_t *answer, ngx_str_t *fields)
{
    u_char                *p;
    int64_t                id;
    ngx_pgq_object_row_t   row;

    if (!ngx_pgq_answer_special(answer, fields)) {
        return;
    }

    row.id = fields[NGX_PGQ_ANSWER_ID];
    row.at = fields[NGX_PGQ_ANSWER_AT];
    row.data = fields[NGX_PGQ_ANSWER_DATA];
    row.topic = fields[NGX_PGQ_ANSWER_TOPIC];

    ngx_pgq_object_check(&row);

    id = ngx_atoof(row.id.data, row.id.len);

    answer->next = id;
    answer->more = fields[NGX_PGQ_ANSWER_MORE].data != NULL;

    if (row.topic.len == 0
        && (answer->query.topics.len || answer->query.pattern.len))
    {
        /* its topic is not valid */
        return;
    }

    p = ngx_pgq_answer_add(answer, id, ngx_pgq_object_len(&row),
                           row.topic.len);
    if (p) {
        ngx_pgq_object_write(p, &row);
    }
}


/* adds a post; the caller writes its object, of len bytes, to the result */

u_char *
ngx_pgq_answer_add(ngx_pgq_answer_t *answer, int64_t id, size_t len,
    size_t topic_len)
{
    u_char                 *p;
    ngx_uint_t              comma;
    ngx_pgq_answer_post_t  *post;

    comma = answer->posts.nelts > 0;

    p = ngx_pgq_answer_space(answer, comma + len);
    if (p == NULL) {
        return NULL;
    }

    post = ngx_array_push(&answer->posts);
    if (post == NULL) {
        answer->failed = 1;
        return NULL;
    }

    if (comma) {
        *p++ = ',';
    }

    post->id = id;
    post->object = p;
    post->len = len;
    post->topic_len = topic_len;

    answer->next = id;

    return p;
}


/* removes the last post, which is too large for the answer */

void
ngx_pgq_answer_remove(ngx_pgq_answer_t *answer)
{
    size_t                  len;
    ngx_str_t              *piece;
    ngx_pgq_answer_post_t  *post;

    piece = (ngx_str_t *) answer->pieces.elts + answer->pieces.nelts - 1;
    post = (ngx_pgq_answer_post_t *) answer->posts.elts + answer->posts.nelts
           - 1;

    len = post->len + 1;

    piece->len -= len;
    answer->space += len;
    answer->len -= len;

    answer->posts.nelts--;
    answer->next = post[-1].id;
    answer->more = 1;
}


ngx_int_t
ngx_pgq_answer_end(ngx_pgq_answer_t *answer)
{
    u_char  *p, *last, end[sizeof("],\"next\":,\"generation\":,\"part\":}")
                           + 3 * NGX_INT64_LEN];

    last = end;
    *last++ = ']';

    if (answer->query.ascending || answer->more) {
        last = ngx_snprintf(last, end + sizeof(end) - last,
                            ",\"next\":%L", answer->next);
    }

    if (answer->query.special == NGX_PGQ_QUERY_CONSUME
        && answer->posts.nelts)
    {
        last = ngx_snprintf(last, end + sizeof(end) - last,
                            ",\"next\":%L,\"generation\":%L,\"part\":%L",
                            answer->next, answer->generation, answer->part);
    }

    *last++ = '}';

    p = ngx_pgq_answer_space(answer, last - end);

    if (p == NULL
        || (answer->query.special < NGX_PGQ_QUERY_METRICS
            && ngx_pgq_answer_hash(answer) != NGX_OK))
    {
        return NGX_ERROR;
    }

    ngx_memcpy(p, end, last - end);

    return answer->failed ? NGX_ERROR : NGX_OK;
}


static ngx_int_t
ngx_pgq_answer_hash(ngx_pgq_answer_t *answer)
{
    u_char                  line[2 * NGX_INT64_LEN + 2], digest[16];
    ngx_md5_t               md5;
    ngx_str_t               data;
    ngx_pgq_answer_post_t  *post, *last;

    ngx_md5_init(&md5);

    post = answer->posts.elts;

    for (last = post + answer->posts.nelts; post < last; post++) {

        ngx_pgq_object_data(post->object, post->len, post->topic_len, &data);

        ngx_md5_update(&md5, line,
                       ngx_snprintf(line, sizeof(line), "%L %uz\n", post->id,
                                    data.len) - line);

        /* the rest of the object: time and topic */

        ngx_md5_update(&md5, data.data + data.len,
                       post->object + post->len - (data.data + data.len));
    }

    if (answer->more && !answer->query.ascending) {
        ngx_md5_update(&md5, "next", 4);
    }

    ngx_md5_final(digest, &md5);

    answer->etag.len = 2 * sizeof(digest) + 2;
    answer->etag.data = ngx_pnalloc(answer->memory, answer->etag.len);

    if (answer->etag.data == NULL) {
        return NGX_ERROR;
    }

    answer->etag.data[0] = '"';
    *ngx_hex_dump(answer->etag.data + 1, digest, sizeof(digest)) = '"';

    return NGX_OK;
}


/* adds a holder, which releases the answer when its memory is freed */

ngx_int_t
ngx_pgq_answer_hold(ngx_pgq_answer_t *answer, ngx_pool_t *memory)
{
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(memory, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_pgq_answer_cleanup;
    cln->data = answer;
    ngx_pgq_answer_change(answer, 1, 0);

    return NGX_OK;
}


void
ngx_pgq_answer_release(ngx_pgq_answer_t *answer)
{
    ngx_pgq_answer_change(answer, -1, 0);
}


/* its maker keeps the answer for later requests, and discards it at the end */

void
ngx_pgq_answer_keep(ngx_pgq_answer_t *answer)
{
    ngx_pgq_answer_change(answer, 0, 1);
}


void
ngx_pgq_answer_discard(ngx_pgq_answer_t *answer)
{
    ngx_pgq_answer_change(answer, -1, -1);
}


static void
ngx_pgq_answer_change(ngx_pgq_answer_t *answer, ngx_int_t holders,
    ngx_int_t kept)
{
    ngx_int_t        size;
    ngx_pgq_pool_t  *db;

    db = answer->db;
    size = answer->holders > answer->kept ? answer->allocated : 0;

    answer->holders += holders;
    answer->kept += kept;

    size -= answer->holders > answer->kept ? answer->allocated : 0;

    if (answer->holders == 0) {
        ngx_destroy_pool(answer->memory);
    }

    ngx_pgq_pool_count(db, 0, -size);

    if (size > 0) {
        /* reads may wait until less memory is used */
        ngx_pgq_pool_wake(db);
    }
}


/* returns len contiguous bytes of the body, or NULL */

static u_char *
ngx_pgq_answer_space(ngx_pgq_answer_t *answer, size_t len)
{
    u_char     *p;
    ngx_str_t  *piece;

    if (answer->failed
        || (answer->space < len && ngx_pgq_answer_grow(answer, len) != NGX_OK))
    {
        answer->failed = 1;
        return NULL;
    }

    piece = (ngx_str_t *) answer->pieces.elts + answer->pieces.nelts - 1;
    p = piece->data + piece->len;

    piece->len += len;
    answer->space -= len;
    answer->len += len;

    return p;
}


/* adds a piece of at least len bytes */

static ngx_int_t
ngx_pgq_answer_grow(ngx_pgq_answer_t *answer, size_t len)
{
    size_t      size;
    ngx_str_t  *piece;

    size = NGX_PGQ_ANSWER_PIECE << ngx_min(answer->pieces.nelts, 4);
    size = ngx_max(size, len);

    piece = ngx_array_push(&answer->pieces);
    if (piece == NULL) {
        return NGX_ERROR;
    }

    piece->len = 0;
    piece->data = ngx_pnalloc(answer->memory, size);

    if (piece->data == NULL) {
        answer->pieces.nelts--;
        return NGX_ERROR;
    }

    answer->space = size;
    answer->allocated += size;

    ngx_pgq_pool_count(answer->db, 0, size);

    return NGX_OK;
}


static void
ngx_pgq_answer_cleanup(void *data)
{
    ngx_pgq_answer_release(data);
}
