/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "fields" reads a request's header fields: what the body is, which
 * answer the client prefers, its Idempotency-Key, and what a browser says of
 * the page that sent the request.  No other file of the module walks over
 * them.  Their grammar is header.c's.
 *
 * Invariants:
 *  - a field may come in several lines: lines of a list are one list, and of
 *    a field that is no list a second line makes it malformed;
 *  - a preference that is not understood is ignored, and so is a Prefer that
 *    is malformed (RFC 7240 2).
 */

#include "ngx_pgq_http.h"
#include "ngx_pgq_header.h"


typedef struct {
    ngx_str_t                name;
    void                   (*read)(void *data, ngx_str_t *line);
} ngx_pgq_fields_name_t;


static void ngx_pgq_fields_walk(ngx_http_request_t *r,
    ngx_pgq_fields_name_t *names, void *data);
static void ngx_pgq_fields_coding(void *data, ngx_str_t *line);
static void ngx_pgq_fields_type(void *data, ngx_str_t *line);
static ngx_pgq_form_e ngx_pgq_fields_form(ngx_str_t *line);
static ngx_pgq_form_e ngx_pgq_fields_known(ngx_pgq_header_word_t *type,
    ngx_pgq_header_word_t *subtype);
static void ngx_pgq_fields_key(void *data, ngx_str_t *line);
static void ngx_pgq_fields_prefer(void *data, ngx_str_t *line);
static void ngx_pgq_fields_origin(void *data, ngx_str_t *line);
static void ngx_pgq_fields_site(void *data, ngx_str_t *line);
static void ngx_pgq_fields_preflight(void *data, ngx_str_t *line);


static ngx_pgq_fields_name_t  ngx_pgq_fields_names[] = {
    { ngx_string("content-encoding"), ngx_pgq_fields_coding },
    { ngx_string("content-type"), ngx_pgq_fields_type },
    { ngx_string("idempotency-key"), ngx_pgq_fields_key },
    { ngx_string("prefer"), ngx_pgq_fields_prefer },
    { ngx_null_string, NULL }
};

static ngx_pgq_fields_name_t  ngx_pgq_fields_page_names[] = {
    { ngx_string("access-control-request-method"), ngx_pgq_fields_preflight },
    { ngx_string("origin"), ngx_pgq_fields_origin },
    { ngx_string("sec-fetch-site"), ngx_pgq_fields_site },
    { ngx_null_string, NULL }
};


void
ngx_pgq_fields_read(ngx_http_request_t *r, ngx_pgq_fields_t *fields)
{
    ngx_memzero(fields, sizeof(ngx_pgq_fields_t));
    fields->form = NGX_PGQ_FORM_ANY;

    ngx_pgq_fields_walk(r, ngx_pgq_fields_names, fields);

    if (fields->prefer_malformed) {
        fields->returns = NGX_PGQ_RETURN_DEFAULT;
    }
}


void
ngx_pgq_fields_page(ngx_http_request_t *r, ngx_pgq_fields_page_t *page)
{
    ngx_memzero(page, sizeof(ngx_pgq_fields_page_t));

    ngx_pgq_fields_walk(r, ngx_pgq_fields_page_names, page);
}


static void
ngx_pgq_fields_walk(ngx_http_request_t *r, ngx_pgq_fields_name_t *names,
    void *data)
{
    ngx_uint_t              i;
    ngx_list_part_t        *part;
    ngx_table_elt_t        *h;
    ngx_pgq_fields_name_t  *n;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            for (n = names; n->read; n++) {

                if (h[i].key.len == n->name.len
                    && ngx_memcmp(h[i].lowcase_key, n->name.data, n->name.len)
                       == 0)
                {
                    n->read(data, &h[i].value);
                    break;
                }
            }
        }
    }
}


/* a list of codings, of which the one that changes nothing is supported */

static void
ngx_pgq_fields_coding(void *data, ngx_str_t *line)
{
    ngx_pgq_fields_t  *fields = data;

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
ngx_pgq_fields_type(void *data, ngx_str_t *line)
{
    ngx_pgq_fields_t  *fields = data;

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

        /* whatever it is, its text has to be UTF-8, or a part of it */

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


/* the registered types, and the names that clients have for the same things */

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
ngx_pgq_fields_key(void *data, ngx_str_t *line)
{
    ngx_pgq_fields_t  *fields = data;

    fields->key = line;
    fields->keys++;
}


/* of a preference that comes twice the first counts */

static void
ngx_pgq_fields_prefer(void *data, ngx_str_t *line)
{
    ngx_pgq_fields_t  *fields = data;

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


/* one origin; white space around it, which nginx leaves there, is not of it */

static void
ngx_pgq_fields_origin(void *data, ngx_str_t *line)
{
    ngx_pgq_fields_page_t  *page = data;

    ngx_pgq_header_t  h;

    ngx_pgq_header_start(&h, line->data, line->len);

    page->origin.data = (u_char *) h.pos;
    page->origin.len = h.last - h.pos;
    page->origins++;
}


/*
 * One token.  Browsers send it once and well-formed: whoever in between has
 * made anything else of it does not hide that another site was in it.
 */

static void
ngx_pgq_fields_site(void *data, ngx_str_t *line)
{
    ngx_pgq_fields_page_t  *page = data;

    int                    rc;
    ngx_pgq_header_t       h;
    ngx_pgq_header_word_t  site, value;

    ngx_pgq_header_start(&h, line->data, line->len);

    while ((rc = ngx_pgq_header_preference(&h, &site, &value)) == 1) {
        if (ngx_pgq_header_is(&site, "cross-site")) {
            page->cross_site = 1;
        }
    }

    if (rc != 0) {
        page->cross_site = 1;
    }
}


static void
ngx_pgq_fields_preflight(void *data, ngx_str_t *line)
{
    ngx_pgq_fields_page_t  *page = data;

    page->preflight = line->len != 0;
}
