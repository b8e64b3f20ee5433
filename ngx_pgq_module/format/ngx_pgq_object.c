/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file owns the form of an object: nothing else writes one or looks
 * into it.
 *
 * Invariants:
 *  - equal columns give equal bytes, on each host;
 *  - a topic needs no escapes, and a time contains no quote.
 */

#include "ngx_pgq_object.h"
#include "ngx_pgq_topic.h"


static ngx_str_t  ngx_pgq_object_id = ngx_string("{\"id\":");
static ngx_str_t  ngx_pgq_object_data_name = ngx_string(",\"data\":");
static ngx_str_t  ngx_pgq_object_at = ngx_string(",\"at\":");
static ngx_str_t  ngx_pgq_object_topic_name = ngx_string(",\"topic\":");
static ngx_str_t  ngx_pgq_object_null = ngx_string("null");
static ngx_str_t  ngx_pgq_object_quote = ngx_string("\"");
static ngx_str_t  ngx_pgq_object_end = ngx_string("}");


void
ngx_pgq_object_check(ngx_pgq_object_row_t *row)
{
    if (row->data.data == NULL) {
        row->data = ngx_pgq_object_null;
    }

    if (!ngx_pgq_topic_valid(row->topic.data, row->topic.len)) {
        row->topic.len = 0;
    }
}


ngx_uint_t
ngx_pgq_object_pieces(ngx_pgq_object_row_t *row, ngx_str_t *pieces)
{
    ngx_str_t  *p;

    p = pieces;

    *p++ = ngx_pgq_object_id;
    *p++ = row->id;
    *p++ = ngx_pgq_object_data_name;
    *p++ = row->data;
    *p++ = ngx_pgq_object_at;

    if (row->at.data) {
        *p++ = ngx_pgq_object_quote;
        *p++ = row->at;
        *p++ = ngx_pgq_object_quote;

    } else {
        *p++ = ngx_pgq_object_null;
    }

    if (row->topic.len) {
        *p++ = ngx_pgq_object_topic_name;
        *p++ = ngx_pgq_object_quote;
        *p++ = row->topic;
        *p++ = ngx_pgq_object_quote;
    }

    *p++ = ngx_pgq_object_end;

    return p - pieces;
}


size_t
ngx_pgq_object_len(ngx_pgq_object_row_t *row)
{
    size_t      len;
    ngx_str_t   pieces[NGX_PGQ_OBJECT_PIECES];
    ngx_uint_t  i, n;

    n = ngx_pgq_object_pieces(row, pieces);

    for (len = 0, i = 0; i < n; i++) {
        len += pieces[i].len;
    }

    return len;
}


u_char *
ngx_pgq_object_write(u_char *p, ngx_pgq_object_row_t *row)
{
    ngx_str_t   pieces[NGX_PGQ_OBJECT_PIECES];
    ngx_uint_t  i, n;

    n = ngx_pgq_object_pieces(row, pieces);

    for (i = 0; i < n; i++) {
        p = ngx_cpymem(p, pieces[i].data, pieces[i].len);
    }

    return p;
}


void
ngx_pgq_object_data(u_char *object, size_t len, size_t topic_len,
    ngx_str_t *data)
{
    u_char  *end;

    data->data = ngx_strlchr(object, object + len, ',')
                 + ngx_pgq_object_data_name.len;

    end = object + len - 1;

    if (topic_len) {
        end -= ngx_pgq_object_topic_name.len + topic_len + 2;
    }

    if (end[-1] == '"') {
        for (end--; end[-1] != '"'; end--) { /* void */ }
        end--;

    } else {
        end -= ngx_pgq_object_null.len;
    }

    data->len = end - ngx_pgq_object_at.len - data->data;
}
