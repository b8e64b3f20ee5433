/* SPDX-License-Identifier: PostgreSQL */

/*
 * Decides whether a page in a browser may post and read.  A browser lets any
 * page send requests to any server, and names the page's origin in the header
 * fields Origin and Sec-Fetch-Site.  Pages of the server's own origin are
 * allowed, and pages of the origins in pgq_origins.  Responses to the latter
 * have the header fields of CORS, nginx's own refusals included.
 *
 * Invariants:
 *  - a request without these header fields is not from a page, and is allowed;
 *  - only responses of the module's locations get the header fields of CORS;
 *  - a request of a foreign page is refused before its body is read;
 *  - credentials of a browser (cookies) are never allowed to other origins.
 */

#include "ngx_pgq_http.h"


#define NGX_PGQ_ORIGIN_METHODS   "GET, HEAD, POST, PUT, DELETE, OPTIONS"
#define NGX_PGQ_ORIGIN_HEADERS   "Authorization, Content-Type,"               \
                                 " Idempotency-Key, Last-Event-ID, Prefer"
#define NGX_PGQ_ORIGIN_EXPOSED   "ETag, Idempotency-Replayed,"                \
                                 " Preference-Applied, Retry-After"


static ngx_str_t *ngx_pgq_origin_listed(ngx_array_t *origins,
    ngx_str_t *origin);
static ngx_uint_t ngx_pgq_origin_matches(ngx_str_t *pattern,
    ngx_str_t *origin);
static ngx_uint_t ngx_pgq_origin_own(ngx_http_request_t *r,
    ngx_str_t *origin);
static void ngx_pgq_origin_strip_port(ngx_str_t *host, const char *port);
static ngx_uint_t ngx_pgq_origin_valid(ngx_str_t *origin);
static ngx_int_t ngx_pgq_origin_header_filter(ngx_http_request_t *r);


static ngx_http_output_header_filter_pt  ngx_pgq_origin_next_filter;

static ngx_str_t  ngx_pgq_origin_any = ngx_string("*");


/* pgq_origins origin ... | *; */

char *
ngx_pgq_origin_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_pgq_loc_conf_t  *plcf = conf;

    ngx_str_t   *value, *origin;
    ngx_uint_t   i;

    if (plcf->origins != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    plcf->origins = ngx_array_create(cf->pool, cf->args->nelts - 1,
                                     sizeof(ngx_str_t));
    if (plcf->origins == NULL) {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {
        origin = ngx_array_push(plcf->origins);
        if (origin == NULL) {
            return NGX_CONF_ERROR;
        }

        *origin = value[i];
        ngx_strlow(origin->data, origin->data, origin->len);

        if (!ngx_pgq_origin_valid(origin)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid origin \"%V\"", origin);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


/* "*", or scheme://host[:port], where the host may begin with "*." */

static ngx_uint_t
ngx_pgq_origin_valid(ngx_str_t *origin)
{
    u_char  *p, *last;

    if (origin->len == 1 && origin->data[0] == '*') {
        return 1;
    }

    last = origin->data + origin->len;
    p = ngx_strlchr(origin->data, last, ':');

    if (p == NULL || p == origin->data || last - p < 4
        || p[1] != '/' || p[2] != '/')
    {
        return 0;
    }

    p += 3;

    if (last - p > 2 && p[0] == '*' && p[1] == '.') {
        p += 2;
    }

    for ( /* void */ ; p < last; p++) {
        if (*p <= ' ' || *p == '/' || *p == '*' || *p == ',') {
            return 0;
        }
    }

    return 1;
}


void
ngx_pgq_origin_init(void)
{
    ngx_pgq_origin_next_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_pgq_origin_header_filter;
}


/* whether the request is from a page that is not allowed to send it */

ngx_uint_t
ngx_pgq_origin_foreign(ngx_http_request_t *r, ngx_pgq_fields_t *fields)
{
    ngx_pgq_loc_conf_t  *plcf;

    if (r != r->main || (fields->origins == 0 && !fields->cross_site)) {
        return 0;
    }

    if (fields->origins > 1) {
        return 1;
    }

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    if (ngx_pgq_origin_listed(plcf->origins, &fields->origin)) {
        return 0;
    }

    return fields->cross_site || !ngx_pgq_origin_own(r, &fields->origin);
}


/* returns the value of Access-Control-Allow-Origin; NULL: not listed */

static ngx_str_t *
ngx_pgq_origin_listed(ngx_array_t *origins, ngx_str_t *origin)
{
    ngx_str_t   *pattern, *any;
    ngx_uint_t   i;

    if (origins == NULL) {
        return NULL;
    }

    any = NULL;
    pattern = origins->elts;

    for (i = 0; i < origins->nelts; i++) {

        if (pattern[i].len == 1) {
            any = &ngx_pgq_origin_any;

        } else if (ngx_pgq_origin_matches(&pattern[i], origin)) {
            return origin;
        }
    }

    return any;
}


static ngx_uint_t
ngx_pgq_origin_matches(ngx_str_t *pattern, ngx_str_t *origin)
{
    size_t   head, tail;
    u_char  *star;

    star = ngx_strlchr(pattern->data, pattern->data + pattern->len, '*');

    if (star == NULL) {
        return pattern->len == origin->len
               && ngx_strncasecmp(pattern->data, origin->data, origin->len)
                  == 0;
    }

    head = star - pattern->data;
    tail = pattern->len - head - 1;

    return origin->len > head + tail
           && ngx_strncasecmp(origin->data, pattern->data, head) == 0
           && ngx_strncasecmp(origin->data + origin->len - tail, star + 1,
                              tail)
              == 0
           && ngx_pgq_origin_valid(origin);
}


/*
 * Whether the origin is that of the request's host.  A request without TLS may
 * be from a proxy that terminates TLS: https is accepted, too.
 */

static ngx_uint_t
ngx_pgq_origin_own(ngx_http_request_t *r, ngx_str_t *origin)
{
    ngx_str_t    host, own;
    const char  *port;

    if (r->headers_in.host == NULL) {
        return 0;
    }

    host = *origin;
    own = r->headers_in.host->value;

    if (host.len > 8
        && ngx_strncasecmp(host.data, (u_char *) "https://", 8) == 0)
    {
        host.data += 8;
        host.len -= 8;
        port = ":443";

    } else if (host.len > 7
               && ngx_strncasecmp(host.data, (u_char *) "http://", 7) == 0)
    {
#if (NGX_HTTP_SSL)
        if (r->connection->ssl) {
            return 0;
        }
#endif
        host.data += 7;
        host.len -= 7;
        port = ":80";

    } else {
        return 0;
    }

    ngx_pgq_origin_strip_port(&host, port);
    ngx_pgq_origin_strip_port(&own, port);

    return host.len == own.len
           && ngx_strncasecmp(host.data, own.data, own.len) == 0;
}


static void
ngx_pgq_origin_strip_port(ngx_str_t *host, const char *port)
{
    size_t  len;

    len = ngx_strlen(port);

    if (host->len > len
        && ngx_memcmp(host->data + host->len - len, port, len) == 0)
    {
        host->len -= len;
    }
}


static ngx_int_t
ngx_pgq_origin_header_filter(ngx_http_request_t *r)
{
    ngx_str_t           *allowed;
    ngx_pgq_ctx_t       *ctx;
    ngx_pgq_fields_t    *fields, own;
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    if (plcf->handler == NULL || plcf->origins == NULL || r != r->main) {
        return ngx_pgq_origin_next_filter(r);
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_pgq_module);

    if (ctx) {
        fields = &ctx->fields;

    } else {
        ngx_pgq_fields_read(r, &own);
        fields = &own;
    }

    if (ngx_pgq_reply_field(r, "Vary", "Origin") != NGX_OK) {
        return NGX_ERROR;
    }

    allowed = fields->origins == 1
              ? ngx_pgq_origin_listed(plcf->origins, &fields->origin) : NULL;

    if (allowed == NULL) {
        return ngx_pgq_origin_next_filter(r);
    }

    if (ngx_pgq_reply_header(r, "Access-Control-Allow-Origin", allowed)
        == NULL
        || ngx_pgq_reply_field(r, "Access-Control-Expose-Headers",
                               NGX_PGQ_ORIGIN_EXPOSED)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (fields->preflight && r->method == NGX_HTTP_OPTIONS
        && (ngx_pgq_reply_field(r, "Access-Control-Allow-Methods",
                                NGX_PGQ_ORIGIN_METHODS)
            != NGX_OK
            || ngx_pgq_reply_field(r, "Access-Control-Allow-Headers",
                                   NGX_PGQ_ORIGIN_HEADERS)
               != NGX_OK
            || ngx_pgq_reply_field(r, "Access-Control-Max-Age", "600")
               != NGX_OK))
    {
        return NGX_ERROR;
    }

    return ngx_pgq_origin_next_filter(r);
}
