/* SPDX-License-Identifier: PostgreSQL */

/*
 * Requests with many messages, one per line (application/x-ndjson): checks the
 * messages, writes them as an array for the database, and writes the response
 * with their ids.  The body stays in nginx's buffers, in memory or in a file;
 * it is read once to check it, and once to write the array.
 *
 * Invariants:
 *  - a line of white space is no message, but counts as a line;
 *  - all messages of a request are queued, or none is.
 */

#include "ngx_pgq_http.h"
#include "ngx_pgq_array.h"
#include "ngx_pgq_json.h"
#include "ngx_pgq_lines.h"
#include "ngx_pgq_uuid.h"


#define NGX_PGQ_NDJSON_HEAD  "{\"status\":\"queued\",\"ids\":["
#define NGX_PGQ_NDJSON_TAIL  "]}"


static ngx_int_t ngx_pgq_ndjson_next(ngx_pgq_lines_t *lines,
    ngx_str_t *message, size_t *skipped);
static ngx_chain_t *ngx_pgq_ndjson_body(ngx_http_request_t *r);


/* returns NGX_OK if the body has at least one message, and all are JSON */

ngx_int_t
ngx_pgq_ndjson_read(ngx_http_request_t *r, ngx_pgq_ndjson_t *ndjson,
    ngx_pgq_problem_t *problem)
{
    size_t                 skipped;
    ngx_int_t              rc;
    ngx_str_t              message;
    ngx_pgq_lines_t        lines;
    ngx_pgq_loc_conf_t    *plcf;
    ngx_pgq_json_error_t   err;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    ndjson->request = r;
    ndjson->n = 0;
    ndjson->size = 0;

    ngx_pgq_lines_start(&lines, r->pool, ngx_pgq_ndjson_body(r));

    while ((rc = ngx_pgq_ndjson_next(&lines, &message, &skipped)) == NGX_OK) {

        if (ndjson->n == (ngx_uint_t) plcf->lines) {
            return ngx_pgq_problem_detail(r, problem,
                                          NGX_PGQ_PROBLEM_TOO_MANY_LINES,
                                          "A request may have at most %i"
                                          " messages; none was queued.",
                                          plcf->lines);
        }

        if (ngx_pgq_json_check(message.data, message.len,
                               (unsigned) plcf->depth, &err)
            != 0)
        {
            problem->offset = (ngx_int_t) (skipped + err.offset);
            problem->line = (ngx_int_t) lines.number;

            return ngx_pgq_problem_detail(r, problem, NGX_PGQ_PROBLEM_NOT_JSON,
                                          "line %i: %s, at byte %i; no message"
                                          " was queued", problem->line,
                                          err.problem, problem->offset);
        }

        ndjson->n++;
        ndjson->size += message.len;
    }

    if (rc != NGX_DONE) {
        return NGX_ERROR;
    }

    ngx_pgq_lines_stop(&lines);

    if (ndjson->n == 0) {
        problem->kind = NGX_PGQ_PROBLEM_EMPTY;
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/* writes the messages as items of an array */

ngx_int_t
ngx_pgq_ndjson_write(ngx_pgq_ndjson_t *ndjson, u_char *p)
{
    size_t            size, skipped;
    ngx_int_t         rc;
    ngx_str_t         message;
    ngx_uint_t        n;
    ngx_pgq_lines_t   lines;

    n = 0;
    size = 0;

    ngx_pgq_lines_start(&lines, ndjson->request->pool,
                        ngx_pgq_ndjson_body(ndjson->request));

    while ((rc = ngx_pgq_ndjson_next(&lines, &message, &skipped)) == NGX_OK) {
        n++;
        size += message.len;

        if (n > ndjson->n || size > ndjson->size) {
            break;
        }

        p = ngx_pgq_array_item(p, message.data, message.len);
    }

    ngx_pgq_lines_stop(&lines);

    if (rc == NGX_DONE && n == ndjson->n && size == ndjson->size) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_ERR, ndjson->request->connection->log, 0,
                  "pgq enqueue: could not read a request body again");

    return NGX_ERROR;
}


/* returns the line of the n-th message; both are counted from 1 */

ngx_uint_t
ngx_pgq_ndjson_line(ngx_pgq_ndjson_t *ndjson, ngx_uint_t n)
{
    size_t            skipped;
    ngx_str_t         message;
    ngx_pgq_lines_t   lines;

    ngx_pgq_lines_start(&lines, ndjson->request->pool,
                        ngx_pgq_ndjson_body(ndjson->request));

    while (n && ngx_pgq_ndjson_next(&lines, &message, &skipped) == NGX_OK) {
        n--;
    }

    ngx_pgq_lines_stop(&lines);

    return lines.number;
}


size_t
ngx_pgq_ndjson_answer_size(ngx_pgq_ndjson_t *ndjson)
{
    return sizeof(NGX_PGQ_NDJSON_HEAD) - 1
           + ndjson->n * (NGX_PGQ_UUID_TEXT_LEN + sizeof("\"\",") - 1)
           + sizeof(NGX_PGQ_NDJSON_TAIL) - 1;
}


/* writes {"status":"queued","ids":[…]} in the request's memory pool */

ngx_int_t
ngx_pgq_ndjson_answer(ngx_pgq_ndjson_t *ndjson, u_char *first, ngx_str_t *body)
{
    u_char      *p, id[NGX_PGQ_UUID_LEN];
    ngx_uint_t   i;

    p = ngx_pnalloc(ndjson->request->pool, ngx_pgq_ndjson_answer_size(ndjson));
    if (p == NULL) {
        return NGX_ERROR;
    }

    body->data = p;

    p = ngx_cpymem(p, NGX_PGQ_NDJSON_HEAD, sizeof(NGX_PGQ_NDJSON_HEAD) - 1);

    for (i = 0; i < ndjson->n; i++) {

        if (i) {
            *p++ = ',';
        }

        ngx_pgq_uuid_next(id, first, i);

        *p++ = '"';
        p = ngx_pgq_uuid_print(p, id);
        *p++ = '"';
    }

    p = ngx_cpymem(p, NGX_PGQ_NDJSON_TAIL, sizeof(NGX_PGQ_NDJSON_TAIL) - 1);
    body->len = p - body->data;

    return NGX_OK;
}


/* reads the next message, without white space around it */

static ngx_int_t
ngx_pgq_ndjson_next(ngx_pgq_lines_t *lines, ngx_str_t *message,
    size_t *skipped)
{
    ngx_int_t      rc;
    const u_char  *p;

    do {
        rc = ngx_pgq_lines_next(lines, message);

        if (rc != NGX_OK) {
            return rc;
        }

        p = message->data;
        message->len = ngx_pgq_json_trim(&p, message->len);
        *skipped = p - message->data;
        message->data = (u_char *) p;

    } while (message->len == 0);

    return NGX_OK;
}


static ngx_chain_t *
ngx_pgq_ndjson_body(ngx_http_request_t *r)
{
    return r->request_body ? r->request_body->bufs : NULL;
}
