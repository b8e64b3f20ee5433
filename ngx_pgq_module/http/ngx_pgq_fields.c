/* SPDX-License-Identifier: PostgreSQL */

/*
 * Reads the header fields of a request: the type of the body, the preferred
 * response, the Idempotency-Key, the handshake of a WebSocket, and the origin
 * of the page that sent it.  No other file of the module walks over the list
 * of fields.  Their grammar is in ngx_pgq_header.c.
 *
 * Invariants:
 *  - the lines of a list field are one list; a second line of another field
 *    makes the field malformed;
 *  - unknown preferences and a malformed Prefer are ignored (RFC 7240 2).
 */

#include "ngx_pgq_http.h"
#include "ngx_pgq_header.h"


typedef struct {
    ngx_str_t                name;
    void                   (*read)(ngx_pgq_fields_t *fields, ngx_str_t *line);
} ngx_pgq_fields_name_t;


static void ngx_pgq_fields_accept(ngx_pgq_fields_t *fields, ngx_str_t *line);
static void ngx_pgq_fields_coding(ngx_pgq_fields_t *fields, ngx_str_t *line);
static void ngx_pgq_fields_type(ngx_pgq_fields_t *fields, ngx_str_t *line);
static ngx_pgq_form_e ngx_pgq_fields_form(ngx_str_t *line);
static ngx_pgq_form_e ngx_pgq_fields_media_type(ngx_pgq_header_word_t *type,
    ngx_pgq_header_word_t *subtype);
static void ngx_pgq_fields_key(ngx_pgq_fields_t *fields, ngx_str_t *line);
static void ngx_pgq_fields_prefer(ngx_pgq_fields_t *fields, ngx_str_t *line);
static void ngx_pgq_fields_last_event_id(ngx_pgq_fields_t *fields,
    ngx_str_t *line);
static void ngx_pgq_fields_origin(ngx_pgq_fields_t *fields, ngx_str_t *line);
static void ngx_pgq_fields_upgrade(ngx_pgq_fields_t *fields, ngx_str_t *line);
static void ngx_pgq_fields_connection(ngx_pgq_fields_t *fields,
    ngx_str_t *line);
static void ngx_pgq_fields_websocket_key(ngx_pgq_fields_t *fields,
    ngx_str_t *line);
static void ngx_pgq_fields_websocket_version(ngx_pgq_fields_t *fields,
    ngx_str_t *line);
static ngx_uint_t ngx_pgq_fields_listed(ngx_str_t *line, const char *token);
static void ngx_pgq_fields_site(ngx_pgq_fields_t *fields, ngx_str_t *line);
static void ngx_pgq_fields_preflight(ngx_pgq_fields_t *fields,
    ngx_str_t *line);


static ngx_pgq_fields_name_t  ngx_pgq_fields_names[] = {
    { ngx_string("accept"), ngx_pgq_fields_accept },
    { ngx_string("access-control-request-method"), ngx_pgq_fields_preflight },
    { ngx_string("connection"), ngx_pgq_fields_connection },
    { ngx_string("content-encoding"), ngx_pgq_fields_coding },
    { ngx_string("content-type"), ngx_pgq_fields_type },
    { ngx_string("idempotency-key"), ngx_pgq_fields_key },
    { ngx_string("last-event-id"), ngx_pgq_fields_last_event_id },
    { ngx_string("origin"), ngx_pgq_fields_origin },
    { ngx_string("prefer"), ngx_pgq_fields_prefer },
    { ngx_string("sec-fetch-site"), ngx_pgq_fields_site },
    { ngx_string("sec-websocket-key"), ngx_pgq_fields_websocket_key },
    { ngx_string("sec-websocket-version"), ngx_pgq_fields_websocket_version },
    { ngx_string("upgrade"), ngx_pgq_fields_upgrade },
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
    fields->wait = -1;

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

    if (fields->encoded && fields->form != NGX_PGQ_FORM_MALFORMED) {
        fields->form = NGX_PGQ_FORM_UNSUPPORTED;
    }

    if (fields->prefer_malformed) {
        fields->returns = NGX_PGQ_RETURN_DEFAULT;
        fields->wait = -1;
    }
}


/* other types, and their order of preference, make no difference */

static void
ngx_pgq_fields_accept(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    u_char  *last;

    static u_char  ndjson[] = "application/x-ndjson";

    last = line->data + line->len;

    if (ngx_strlcasestrn(line->data, last, ndjson, sizeof(ndjson) - 2)) {
        fields->accept_ndjson = 1;
    }
}


/* reads a list of content codings; only identity is supported */

static void
ngx_pgq_fields_coding(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    int                    rc;
    ngx_pgq_header_t       h;
    ngx_pgq_header_word_t  coding;

    ngx_pgq_header_start(&h, line->data, line->len);

    while ((rc = ngx_pgq_header_item(&h, &coding)) == 1) {
        if (!ngx_pgq_header_is(&coding, "identity")) {
            fields->encoded = 1;
        }
    }

    if (rc != 0) {
        fields->encoded = 1;
    }
}


static void
ngx_pgq_fields_type(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    fields->form = fields->type_seen ? NGX_PGQ_FORM_MALFORMED
                                 : ngx_pgq_fields_form(line);
    fields->type_seen = 1;
}


static ngx_pgq_form_e
ngx_pgq_fields_form(ngx_str_t *line)
{
    int                    rc;
    ngx_pgq_form_e         form;
    ngx_pgq_header_t       h;
    ngx_pgq_header_word_t  type, subtype, name, value;

    static ngx_str_t  json = ngx_string("application/json");

    /* most clients send this, and the grammar below takes ten times longer */

    if (line->len == json.len
        && ngx_memcmp(line->data, json.data, json.len) == 0)
    {
        return NGX_PGQ_FORM_JSON;
    }

    ngx_pgq_header_start(&h, line->data, line->len);

    if (ngx_pgq_header_media_type(&h, &type, &subtype) != 0) {
        return NGX_PGQ_FORM_MALFORMED;
    }

    form = ngx_pgq_fields_media_type(&type, &subtype);

    while ((rc = ngx_pgq_header_parameter(&h, &name, &value)) == 1) {

        /* with any type the text must be UTF-8, or its subset ASCII */

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


/* knows registered media types, and other names that clients use for them */

static ngx_pgq_form_e
ngx_pgq_fields_media_type(ngx_pgq_header_word_t *type,
    ngx_pgq_header_word_t *subtype)
{
    ngx_uint_t             i;
    ngx_pgq_header_word_t  name;

    static const char  *ndjson[] = {
        "ndjson", "jsonl", "jsonlines", "json-lines", "ldjson"
    };

    name = *subtype;

    if (name.len > 5
        && ngx_strncasecmp((u_char *) name.data + name.len - 5,
                           (u_char *) "+json", 5)
           == 0)
    {
        return NGX_PGQ_FORM_JSON;
    }

    if (ngx_pgq_header_is(type, "text")) {
        if (ngx_pgq_header_is(&name, "plain")) {
            return NGX_PGQ_FORM_TEXT;
        }

    } else if (!ngx_pgq_header_is(type, "application")) {
        return NGX_PGQ_FORM_ANY;
    }

    if (name.len > 2
        && ngx_strncasecmp((u_char *) name.data, (u_char *) "x-", 2) == 0)
    {
        name.data += 2;
        name.len -= 2;
    }

    if (ngx_pgq_header_is(&name, "json")) {
        return NGX_PGQ_FORM_JSON;
    }

    for (i = 0; i < sizeof(ndjson) / sizeof(ndjson[0]); i++) {
        if (ngx_pgq_header_is(&name, ndjson[i])) {
            return NGX_PGQ_FORM_NDJSON;
        }
    }

    return NGX_PGQ_FORM_ANY;
}


static void
ngx_pgq_fields_key(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    fields->key = line;
    fields->keys++;
}


static void
ngx_pgq_fields_last_event_id(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    fields->last_event_id = line;
}


/* the first "return" and the first "wait" count (RFC 7240 2) */

static void
ngx_pgq_fields_prefer(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    int                    rc;
    ngx_pgq_header_t       h;
    ngx_pgq_header_word_t  name, value;

    ngx_pgq_header_start(&h, line->data, line->len);

    while ((rc = ngx_pgq_header_preference(&h, &name, &value)) == 1) {

        if (fields->wait < 0 && ngx_pgq_header_is(&name, "wait")) {
            fields->wait = ngx_atoi((u_char *) value.data, value.len);
            continue;
        }

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


static void
ngx_pgq_fields_upgrade(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    fields->websocket |= ngx_pgq_fields_listed(line, "websocket");
}


static void
ngx_pgq_fields_connection(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    fields->upgrade |= ngx_pgq_fields_listed(line, "upgrade");
}


static void
ngx_pgq_fields_websocket_key(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    fields->websocket_repeated |= (fields->websocket_key != NULL);
    fields->websocket_key = line;
}


static void
ngx_pgq_fields_websocket_version(ngx_pgq_fields_t *fields, ngx_str_t *line)
{
    fields->websocket_repeated |= (fields->websocket_version != NULL);
    fields->websocket_version = line;
}


/* whether the token is in the list, before anything that is malformed */

static ngx_uint_t
ngx_pgq_fields_listed(ngx_str_t *line, const char *token)
{
    ngx_pgq_header_t       h;
    ngx_pgq_header_word_t  item;

    ngx_pgq_header_start(&h, line->data, line->len);

    while (ngx_pgq_header_item(&h, &item) == 1) {
        if (ngx_pgq_header_is(&item, token)) {
            return 1;
        }
    }

    return 0;
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
