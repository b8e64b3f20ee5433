/* SPDX-License-Identifier: PostgreSQL */

/*
 * Reads the header fields of a request: what the body is, which response the
 * client prefers, its Idempotency-Key, and the page that a browser sent the
 * request for.  No other file of the module walks over the fields.  Their
 * grammar is in ngx_pgq_header.c.
 *
 * Invariants:
 *  - a field may have several lines: those of a list are one list; a second
 *    line of a field that is no list makes it malformed;
 *  - an unknown preference is ignored, and so is a malformed Prefer
 *    (RFC 7240 2).
 */

#include "ngx_pgq_http.h"
#include "ngx_pgq_header.h"


typedef struct {
    ngx_str_t                name;
    void                   (*read)(ngx_pgq_fields_t *fields, ngx_str_t *line);
} ngx_pgq_fields_name_t;


static void ngx_pgq_fields_coding(ngx_pgq_fields_t *fields, ngx_str_t *line);
static void ngx_pgq_fields_type(ngx_pgq_fields_t *fields, ngx_str_t *line);
static ngx_pgq_form_e ngx_pgq_fields_form(ngx_str_t *line);
static ngx_pgq_form_e ngx_pgq_fields_known(ngx_pgq_header_word_t *type,
    ngx_pgq_header_word_t *subtype);
static void ngx_pgq_fields_key(ngx_pgq_fields_t *fields, ngx_str_t *line);
static void ngx_pgq_fields_prefer(ngx_pgq_fields_t *fields, ngx_str_t *line);
static void ngx_pgq_fields_origin(ngx_pgq_fields_t *fields, ngx_str_t *line);
static void ngx_pgq_fields_site(ngx_pgq_fields_t *fields, ngx_str_t *line);
static void ngx_pgq_fields_preflight(ngx_pgq_fields_t *fields,
    ngx_str_t *line);


static ngx_pgq_fields_name_t  ngx_pgq_fields_names[] = {
    { ngx_string("access-control-request-method"), ngx_pgq_fields_preflight },
    { ngx_string("content-encoding"), ngx_pgq_fields_coding },
    { ngx_string("content-type"), ngx_pgq_fields_type },
    { ngx_string("idempotency-key"), ngx_pgq_fields_key },
    { ngx_string("origin"), ngx_pgq_fields_origin },
    { ngx_string("prefer"), ngx_pgq_fields_prefer },
    { ngx_string("sec-fetch-site"), ngx_pgq_fields_site },
    { ngx_null_string, NULL }
};


void
ngx_pgq_fields_read(ngx_http_request_t *r, ngx_pgq_fields_t *fields)
{
    ngx_uint_t              i;
    ngx_list_part_t        *part;
    ngx_table_elt_t        *h;
    ngx_pgq_fields_name_t  *n;

    ngx_memzero(fields, sizeof(ngx_pgq_fields_t));
    fields->form = NGX_PGQ_FORM_ANY;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            for (n = ngx_pgq_fields_names; n->read; n++) {

                if (h[i].key.len == n->name.len
                    && ngx_memcmp(h[i].lowcase_key, n->name.data, n->name.len)
                       == 0)
                {
                    n->read(fields, &h[i].value);
                    break;
                }
            }
        }
    }

    if (fields->coded && fields->form != NGX_PGQ_FORM_MALFORMED) {
        fields->form = NGX_PGQ_FORM_UNSUPPORTED;
    }

    if (fields->prefer_malformed) {
        fields->returns = NGX_PGQ_RETURN_DEFAULT;
    }
}


/* a list of codings; only identity is supported */

static void
ngx_pgq_fields_coding(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    int                    rc;
    ngx_pgq_header_t       h;
    ngx_pgq_header_word_t  coding;

    ngx_pgq_header_start(&h, line->data, line->len);

    while ((rc = ngx_pgq_header_item(&h, &coding)) == 1) {
        if (!ngx_pgq_header_is(&coding, "identity")) {
            fields->coded = 1;
        }
    }

    if (rc != 0) {
        fields->coded = 1;
    }
}


static void
ngx_pgq_fields_type(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    fields->form = fields->typed ? NGX_PGQ_FORM_MALFORMED
                                 : ngx_pgq_fields_form(line);
    fields->typed = 1;
}


static ngx_pgq_form_e
ngx_pgq_fields_form(ngx_str_t *line)
{
    int                    rc;
    ngx_pgq_form_e         form;
    ngx_pgq_header_t       h;
    ngx_pgq_header_word_t  type, subtype, name, value;

    ngx_pgq_header_start(&h, line->data, line->len);

    if (ngx_pgq_header_media_type(&h, &type, &subtype) != 0) {
        return NGX_PGQ_FORM_MALFORMED;
    }

    form = ngx_pgq_fields_known(&type, &subtype);

    while ((rc = ngx_pgq_header_parameter(&h, &name, &value)) == 1) {

        /* of any type: its text must be UTF-8, or a subset of it */

        if (ngx_pgq_header_is(&name, "charset")
            && !ngx_pgq_header_is(&value, "utf-8")
            && !ngx_pgq_header_is(&value, "utf8")
            && !ngx_pgq_header_is(&value, "us-ascii"))
        {
            form = NGX_PGQ_FORM_UNSUPPORTED;
        }
    }

    return rc == 0 ? form : NGX_PGQ_FORM_MALFORMED;
}


/* the registered types, and other names that clients use for them */

static ngx_pgq_form_e
ngx_pgq_fields_known(ngx_pgq_header_word_t *type,
    ngx_pgq_header_word_t *subtype)
{
    ngx_pgq_header_word_t  word;

    word = *subtype;

    if (word.len > 5) {
        word.data += word.len - 5;
        word.len = 5;

        if (ngx_pgq_header_is(&word, "+json")) {
            return NGX_PGQ_FORM_JSON;
        }
    }

    if (ngx_pgq_header_is(type, "text")) {
        if (ngx_pgq_header_is(subtype, "plain")) {
            return NGX_PGQ_FORM_TEXT;
        }

    } else if (!ngx_pgq_header_is(type, "application")) {
        return NGX_PGQ_FORM_ANY;
    }

    word = *subtype;
    word.len = ngx_min(word.len, 2);

    if (ngx_pgq_header_is(&word, "x-")) {
        word.data += 2;
        word.len = subtype->len - 2;

    } else {
        word = *subtype;
    }

    return ngx_pgq_header_is(&word, "json") ? NGX_PGQ_FORM_JSON
           : ngx_pgq_header_is(&word, "ndjson")
             || ngx_pgq_header_is(&word, "jsonl")
             || ngx_pgq_header_is(&word, "jsonlines")
             || ngx_pgq_header_is(&word, "json-lines")
             || ngx_pgq_header_is(&word, "ldjson") ? NGX_PGQ_FORM_NDJSON
           : NGX_PGQ_FORM_ANY;
}


static void
ngx_pgq_fields_key(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    fields->key = line;
    fields->keys++;
}


/* the first of equal preferences counts */

static void
ngx_pgq_fields_prefer(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    int                    rc;
    ngx_pgq_header_t       h;
    ngx_pgq_header_word_t  name, value;

    ngx_pgq_header_start(&h, line->data, line->len);

    while ((rc = ngx_pgq_header_preference(&h, &name, &value)) == 1) {

        if (fields->return_seen || !ngx_pgq_header_is(&name, "return")) {
            continue;
        }

        fields->return_seen = 1;

        if (ngx_pgq_header_is(&value, "minimal")) {
            fields->returns = NGX_PGQ_RETURN_MINIMAL;

        } else if (ngx_pgq_header_is(&value, "representation")) {
            fields->returns = NGX_PGQ_RETURN_REPRESENTATION;
        }
    }

    if (rc != 0) {
        fields->prefer_malformed = 1;
    }
}


/* nginx leaves white space at the end of a value */

static void
ngx_pgq_fields_origin(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    ngx_pgq_header_t  h;

    ngx_pgq_header_start(&h, line->data, line->len);

    fields->origin.data = (u_char *) h.pos;
    fields->origin.len = h.last - h.pos;
    fields->origins++;
}


/*
 * Browsers send one token.  A proxy may have merged or damaged the field: any
 * other value may hide a "cross-site".
 */

static void
ngx_pgq_fields_site(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    int                    rc;
    ngx_pgq_header_t       h;
    ngx_pgq_header_word_t  site, value;

    ngx_pgq_header_start(&h, line->data, line->len);

    while ((rc = ngx_pgq_header_preference(&h, &site, &value)) == 1) {
        if (ngx_pgq_header_is(&site, "cross-site")) {
            fields->cross_site = 1;
        }
    }

    if (rc != 0) {
        fields->cross_site = 1;
    }
}


static void
ngx_pgq_fields_preflight(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    fields->preflight = line->len != 0;
}
