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


#define NGX_PGQ_OBJECT_ID     "{\"id\":"
#define NGX_PGQ_OBJECT_DATA   ",\"data\":"
#define NGX_PGQ_OBJECT_AT     ",\"at\":"
#define NGX_PGQ_OBJECT_NULL   "null"
#define NGX_PGQ_OBJECT_TOPIC  ",\"topic\":\""


#define ngx_pgq_object_text_len(text)  (sizeof(text) - 1)

#define ngx_pgq_object_text(p, text)                                          \
    ngx_cpymem(p, text, ngx_pgq_object_text_len(text))


void
ngx_pgq_object_check(ngx_pgq_object_row_t *row)
{
    if (row->data.data == NULL) {
        ngx_str_set(&row->data, NGX_PGQ_OBJECT_NULL);
    }

    if (!ngx_pgq_topic_valid(row->topic.data, row->topic.len)) {
        row->topic.len = 0;
    }
}


size_t
ngx_pgq_object_len(ngx_pgq_object_row_t *row)
{
    size_t  len;

    len = ngx_pgq_object_text_len(NGX_PGQ_OBJECT_ID) + row->id.len
          + ngx_pgq_object_text_len(NGX_PGQ_OBJECT_DATA) + row->data.len
          + ngx_pgq_object_text_len(NGX_PGQ_OBJECT_AT)
          + (row->at.data ? row->at.len + 2
                          : ngx_pgq_object_text_len(NGX_PGQ_OBJECT_NULL))
          + 1;

    if (row->topic.len) {
        len += ngx_pgq_object_text_len(NGX_PGQ_OBJECT_TOPIC) + row->topic.len
               + 1;
    }

    return len;
}


u_char *
ngx_pgq_object_write(u_char *p, ngx_pgq_object_row_t *row)
{
    p = ngx_pgq_object_text(p, NGX_PGQ_OBJECT_ID);
    p = ngx_cpymem(p, row->id.data, row->id.len);
    p = ngx_pgq_object_text(p, NGX_PGQ_OBJECT_DATA);
    p = ngx_cpymem(p, row->data.data, row->data.len);
    p = ngx_pgq_object_text(p, NGX_PGQ_OBJECT_AT);

    if (row->at.data) {
        *p++ = '"';
        p = ngx_cpymem(p, row->at.data, row->at.len);
        *p++ = '"';

    } else {
        p = ngx_pgq_object_text(p, NGX_PGQ_OBJECT_NULL);
    }

    if (row->topic.len) {
        p = ngx_pgq_object_text(p, NGX_PGQ_OBJECT_TOPIC);
        p = ngx_cpymem(p, row->topic.data, row->topic.len);
        *p++ = '"';
    }

    *p++ = '}';

    return p;
}


void
ngx_pgq_object_data(u_char *object, size_t len, size_t topic_len,
    ngx_str_t *data)
{
    u_char  *end;

    data->data = ngx_strlchr(object, object + len, ',')
                 + ngx_pgq_object_text_len(NGX_PGQ_OBJECT_DATA);

    end = object + len - 1;

    if (topic_len) {
        end -= ngx_pgq_object_text_len(NGX_PGQ_OBJECT_TOPIC) + topic_len + 1;
    }

    if (end[-1] == '"') {
        for (end--; end[-1] != '"'; end--) { /* void */ }
        end--;

    } else {
        end -= ngx_pgq_object_text_len(NGX_PGQ_OBJECT_NULL);
    }

    data->len = end - ngx_pgq_object_text_len(NGX_PGQ_OBJECT_AT) - data->data;
}
