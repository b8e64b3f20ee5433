/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file owns the bodies of answers to GET, each in its own memory pool.
 * The holders of an answer are the read that fills it and the memory pool of
 * each request that it answers; the last one to release the answer frees it.
 *
 * Invariants:
 *  - an answer's bytes count in db->size until it is freed;
 *  - the body is written once; the buffers of each reply point into it;
 *  - the ETag is a hash of ids, times and lengths.  Posts do not change, so
 *    the text of a large post need not be hashed.
 */

#include "ngx_pgq_answer.h"


#define NGX_PGQ_ANSWER_PIECE     4096    /* first size; doubled four times */
#define NGX_PGQ_ANSWER_AT_LEN    64


static void ngx_pgq_answer_add(ngx_pgq_answer_t *answer, const void *data,
    size_t len);
static ngx_int_t ngx_pgq_answer_grow(ngx_pgq_answer_t *answer, size_t len);
static void ngx_pgq_answer_cleanup(void *data);


#define ngx_pgq_answer_text(answer, text)                                     \
    ngx_pgq_answer_add(answer, text, sizeof(text) - 1)


ngx_pgq_answer_t *
ngx_pgq_answer_create(ngx_pgq_pool_t *db)
{
    ngx_pool_t        *memory;
    ngx_pgq_answer_t  *answer;

    memory = ngx_create_pool(1024, db->lane.log);
    if (memory == NULL) {
        return NULL;
    }

    answer = ngx_pcalloc(memory, sizeof(ngx_pgq_answer_t));

    if (answer == NULL
        || ngx_array_init(&answer->pieces, memory, 8, sizeof(ngx_str_t))
           != NGX_OK)
    {
        ngx_destroy_pool(memory);
        return NULL;
    }

    answer->db = db;
    answer->memory = memory;
    answer->holders = 1;
    ngx_md5_init(&answer->md5);

    ngx_pgq_answer_text(answer, "{\"msg\":[");

    return answer;
}


void
ngx_pgq_answer_row(ngx_pgq_answer_t *answer, ngx_str_t *fields)
{
    u_char      line[2 * NGX_INT64_LEN + NGX_PGQ_ANSWER_AT_LEN];
    ngx_str_t  *id, *at, *data;

    id = &fields[NGX_PGQ_ANSWER_ID];
    at = &fields[NGX_PGQ_ANSWER_AT];
    data = &fields[NGX_PGQ_ANSWER_DATA];

    if (answer->last_id_len) {
        ngx_pgq_answer_text(answer, ",");
    }

    ngx_pgq_answer_text(answer, "{\"id\":");
    ngx_pgq_answer_add(answer, id->data, id->len);
    ngx_pgq_answer_text(answer, ",\"data\":");
    ngx_pgq_answer_add(answer, data->data, data->len);

    if (at->data) {
        ngx_pgq_answer_text(answer, ",\"at\":\"");
        ngx_pgq_answer_add(answer, at->data, at->len);
        ngx_pgq_answer_text(answer, "\"}");

    } else {
        ngx_pgq_answer_text(answer, ",\"at\":null}");
    }

    ngx_md5_update(&answer->md5, line,
                   ngx_snprintf(line, sizeof(line), "%V %V %uz\n", id, at,
                                data->len) - line);

    answer->last_id_len = ngx_min(id->len, sizeof(answer->last_id));
    ngx_memcpy(answer->last_id, id->data, answer->last_id_len);
    answer->more = fields[NGX_PGQ_ANSWER_OLDER].data != NULL;
}


ngx_int_t
ngx_pgq_answer_end(ngx_pgq_answer_t *answer)
{
    u_char  digest[16];

    ngx_pgq_answer_text(answer, "]");

    if (answer->more) {
        ngx_pgq_answer_text(answer, ",\"next\":");
        ngx_pgq_answer_add(answer, answer->last_id, answer->last_id_len);
        ngx_md5_update(&answer->md5, "next", 4);
    }

    ngx_pgq_answer_text(answer, "}");

    ngx_md5_final(digest, &answer->md5);

    answer->etag.len = 2 * sizeof(digest) + 2;
    answer->etag.data = ngx_pnalloc(answer->memory, answer->etag.len);

    if (answer->etag.data == NULL || answer->failed) {
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
    answer->holders++;

    return NGX_OK;
}


void
ngx_pgq_answer_release(ngx_pgq_answer_t *answer)
{
    size_t           size;
    ngx_pgq_pool_t  *db;

    if (--answer->holders) {
        return;
    }

    db = answer->db;
    size = answer->allocated;

    ngx_destroy_pool(answer->memory);

    ngx_pgq_pool_count(db, 0, -(ngx_int_t) size);

    /* reads may wait until less memory is used */

    ngx_pgq_pool_wake(db);
}


static void
ngx_pgq_answer_add(ngx_pgq_answer_t *answer, const void *data, size_t len)
{
    size_t         n;
    ngx_str_t     *piece;
    const u_char  *p;

    p = data;

    while (len && !answer->failed) {

        if (answer->space == 0 && ngx_pgq_answer_grow(answer, len) != NGX_OK) {
            answer->failed = 1;
            return;
        }

        piece = (ngx_str_t *) answer->pieces.elts + answer->pieces.nelts - 1;
        n = ngx_min(len, answer->space);

        ngx_memcpy(piece->data + piece->len, p, n);
        piece->len += n;
        answer->space -= n;
        answer->len += n;

        p += n;
        len -= n;
    }
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
