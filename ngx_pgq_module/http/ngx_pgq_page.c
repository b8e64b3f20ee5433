/* SPDX-License-Identifier: PostgreSQL */

/*
 * The live page: pgq_page serves the files of page/, which the assembler
 * copies into the module.  It finds them through the include path of the
 * module's sources, and `config` lists them as dependencies.
 *
 * Invariants:
 *  - the files contain no data: what the page shows comes from the other
 *    locations, whose rules of access apply;
 *  - a file is served unchanged, and its ETag is a hash of its bytes;
 *  - a browser runs no other script on the page and sends nothing to another
 *    host (Content-Security-Policy).
 */

#include "ngx_pgq_http.h"

#include <ngx_md5.h>


#define NGX_PGQ_PAGE_EMBED(symbol, file)                                      \
    __asm__(".section .rodata\n"                                              \
            ".hidden " #symbol ", " #symbol "_end\n"                          \
            ".globl " #symbol ", " #symbol "_end\n"                           \
            #symbol ":\n"                                                     \
            ".incbin \"page/" file "\"\n"                                     \
            #symbol "_end:\n"                                                 \
            ".previous\n");                                                   \
    extern u_char  symbol[], symbol##_end[]


#define NGX_PGQ_PAGE_POLICY      "default-src 'none'; script-src 'self';"     \
                                 " style-src 'self'; connect-src 'self';"     \
                                 " frame-ancestors 'none'; base-uri 'none';"  \
                                 " form-action 'none'"


typedef struct {
    ngx_str_t                name;      /* in the URI, after the location */
    ngx_str_t                type;
    u_char                  *start;
    u_char                  *end;
} ngx_pgq_page_file_t;


static ngx_pgq_page_file_t *ngx_pgq_page_find(ngx_http_request_t *r);
static ngx_int_t ngx_pgq_page_headers(ngx_http_request_t *r,
    ngx_pgq_page_file_t *file);


NGX_PGQ_PAGE_EMBED(ngx_pgq_page_index_html, "index.html");
NGX_PGQ_PAGE_EMBED(ngx_pgq_page_page_css, "page.css");
NGX_PGQ_PAGE_EMBED(ngx_pgq_page_page_js, "page.js");
NGX_PGQ_PAGE_EMBED(ngx_pgq_page_panel_js, "panel.js");
NGX_PGQ_PAGE_EMBED(ngx_pgq_page_send_js, "send.js");
NGX_PGQ_PAGE_EMBED(ngx_pgq_page_json_js, "json.js");


static ngx_pgq_page_file_t  ngx_pgq_page_files[] = {
    { ngx_null_string, ngx_string("text/html"),
      ngx_pgq_page_index_html, ngx_pgq_page_index_html_end },
    { ngx_string("page.css"), ngx_string("text/css"),
      ngx_pgq_page_page_css, ngx_pgq_page_page_css_end },
    { ngx_string("page.js"), ngx_string("text/javascript"),
      ngx_pgq_page_page_js, ngx_pgq_page_page_js_end },
    { ngx_string("panel.js"), ngx_string("text/javascript"),
      ngx_pgq_page_panel_js, ngx_pgq_page_panel_js_end },
    { ngx_string("send.js"), ngx_string("text/javascript"),
      ngx_pgq_page_send_js, ngx_pgq_page_send_js_end },
    { ngx_string("json.js"), ngx_string("text/javascript"),
      ngx_pgq_page_json_js, ngx_pgq_page_json_js_end },
    { ngx_null_string, ngx_null_string, NULL, NULL }
};


ngx_int_t
ngx_pgq_page_handler(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_pgq_fields_t      fields;
    ngx_pgq_page_file_t  *file;

    ngx_pgq_fields_read(r, &fields);

    /* links of other sites may lead to the page */

    fields.origins = 0;
    fields.cross_site = 0;

    if (!ngx_pgq_endpoint_admits(r, &fields, NGX_HTTP_GET|NGX_HTTP_HEAD,
                                 &rc))
    {
        return rc;
    }

    file = ngx_pgq_page_find(r);

    if (file == NULL) {
        return NGX_HTTP_NOT_FOUND;
    }

    if (ngx_pgq_page_headers(r, file) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_pgq_reply_body(r, NGX_HTTP_OK, &file->type, file->start,
                              file->end - file->start);
}


static ngx_pgq_page_file_t *
ngx_pgq_page_find(ngx_http_request_t *r)
{
    ngx_str_t                  rest;
    ngx_pgq_page_file_t       *file;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    /* a subrequest or an error_page may have any URI */

    if (r->uri.len < clcf->name.len) {
        return NULL;
    }

    rest.data = r->uri.data + clcf->name.len;
    rest.len = r->uri.len - clcf->name.len;

    for (file = ngx_pgq_page_files; file->start; file++) {
        if (file->name.len == rest.len
            && ngx_memcmp(file->name.data, rest.data, rest.len) == 0)
        {
            return file;
        }
    }

    return NULL;
}


/* nginx's not-modified filter compares the ETag and sends 304 */

static ngx_int_t
ngx_pgq_page_headers(ngx_http_request_t *r, ngx_pgq_page_file_t *file)
{
    u_char     digest[16], *p;
    ngx_md5_t  md5;
    ngx_str_t  etag;

    etag.len = 2 * sizeof(digest) + 2;
    etag.data = ngx_pnalloc(r->pool, etag.len);

    if (etag.data == NULL) {
        return NGX_ERROR;
    }

    ngx_md5_init(&md5);
    ngx_md5_update(&md5, file->start, file->end - file->start);
    ngx_md5_final(digest, &md5);

    p = etag.data;
    *p++ = '"';
    p = ngx_hex_dump(p, digest, sizeof(digest));
    *p = '"';

    r->headers_out.etag = ngx_pgq_reply_header(r, "ETag", &etag);
    ngx_str_set(&r->headers_out.charset, "utf-8");

    if (r->headers_out.etag == NULL
        || ngx_pgq_reply_field(r, "Cache-Control", "no-cache") != NGX_OK
        || ngx_pgq_reply_field(r, "Content-Security-Policy",
                               NGX_PGQ_PAGE_POLICY)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}
