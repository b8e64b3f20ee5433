/* SPDX-License-Identifier: PostgreSQL */

/*
 * Functions of nginx, in the order of its headers: see nginx_stub.h.
 */

#include "nginx_stub.h"

#include <ctype.h>
#include <ngx_md5.h>


volatile ngx_msec_t   ngx_current_msec;
volatile ngx_time_t  *ngx_cached_time;
ngx_module_t          ngx_http_pgq_module;
ngx_module_t          ngx_http_core_module = { .ctx_index = 1 };
u_char               *stub_file;
size_t                stub_file_len;
void                (*stub_finalized)(stub_request_t *f, ngx_int_t rc);


/* strings */

ngx_int_t
ngx_strncasecmp(u_char *s1, u_char *s2, size_t n)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        if (tolower(s1[i]) != tolower(s2[i])) {
            return tolower(s1[i]) - tolower(s2[i]);
        }

        if (s1[i] == '\0') {
            return 0;
        }
    }

    return 0;
}


u_char *
ngx_strlcasestrn(u_char *s1, u_char *last, u_char *s2, size_t n)
{
    for ( /* void */ ; (size_t) (last - s1) > n; s1++) {
        if (ngx_strncasecmp(s1, s2, n + 1) == 0) {
            return s1;
        }
    }

    return NULL;
}


static off_t
stub_number(u_char *line, size_t n)
{
    off_t  value;

    if (n == 0) {
        return -1;
    }

    for (value = 0; n--; line++) {
        if (!isdigit(*line)
            || __builtin_mul_overflow(value, 10, &value)
            || __builtin_add_overflow(value, *line - '0', &value))
        {
            return -1;
        }
    }

    return value;
}


ngx_int_t
ngx_atoi(u_char *line, size_t n)
{
    return (ngx_int_t) stub_number(line, n);
}


off_t
ngx_atoof(u_char *line, size_t n)
{
    return stub_number(line, n);
}


static int
stub_digit(u_char c)
{
    return isdigit(c) ? c - '0' : isxdigit(c) ? (c | 0x20) - 'a' + 10 : -1;
}


/* as nginx: an incomplete % is dropped, or its first wrong character stays */

void
ngx_unescape_uri(u_char **dst, u_char **src, size_t size, ngx_uint_t type)
{
    int      high, low;
    u_char  *end;

    fuzz_check(type == 0);

    for (end = *src + size; *src < end; (*src)++) {

        if (**src != '%') {
            *(*dst)++ = **src;
            continue;
        }

        if (++*src == end) {
            break;
        }

        high = stub_digit(**src);

        if (high < 0) {
            *(*dst)++ = **src;
            continue;
        }

        if (++*src == end) {
            break;
        }

        low = stub_digit(**src);

        if (low >= 0) {
            *(*dst)++ = (u_char) (high * 16 + low);
        }
    }
}


u_char *
ngx_hex_dump(u_char *dst, u_char *src, size_t len)
{
    for ( /* void */ ; len--; src++) {
        *dst++ = (u_char) "0123456789abcdef"[*src >> 4];
        *dst++ = (u_char) "0123456789abcdef"[*src & 15];
    }

    return dst;
}


/* The text does not matter here, only that the buffer is large enough. */

u_char *
ngx_snprintf(u_char *buf, size_t max, const char *fmt, ...)
{
    size_t  len;

    len = strlen(fmt) < max ? strlen(fmt) : max;
    memset(buf, 'x', max);

    return buf + len;
}


u_char *
ngx_vslprintf(u_char *buf, u_char *last, const char *fmt, va_list args)
{
    (void) args;

    return ngx_snprintf(buf, (size_t) (last - buf), fmt);
}


/* pools */

void *
ngx_pnalloc(ngx_pool_t *pool, size_t size)
{
    ngx_pool_large_t  *large;

    large = malloc(sizeof(ngx_pool_large_t));
    fuzz_check(large != NULL);

    large->alloc = malloc(size ? size : 1);
    fuzz_check(large->alloc != NULL);
    memset(large->alloc, 0xa5, size);

    large->next = pool->large;
    pool->large = large;

    return large->alloc;
}


void *
ngx_palloc(ngx_pool_t *pool, size_t size)
{
    return ngx_pnalloc(pool, size);
}


void *
ngx_pcalloc(ngx_pool_t *pool, size_t size)
{
    return memset(ngx_pnalloc(pool, size), 0, size);
}


void *
ngx_array_push(ngx_array_t *a)
{
    void  *elts;

    if (a->nelts == a->nalloc) {
        elts = ngx_palloc(a->pool, 2 * a->size * a->nalloc);
        memcpy(elts, a->elts, a->size * a->nelts);
        a->elts = elts;
        a->nalloc *= 2;
    }

    return (u_char *) a->elts + a->size * a->nelts++;
}


ngx_chain_t *
ngx_alloc_chain_link(ngx_pool_t *pool)
{
    return ngx_pcalloc(pool, sizeof(ngx_chain_t));
}


ngx_int_t
ngx_pfree(ngx_pool_t *pool, void *p)
{
    ngx_pool_large_t  *large;

    for (large = pool->large; large; large = large->next) {
        if (large->alloc == p) {
            free(p);
            large->alloc = NULL;
            return NGX_OK;
        }
    }

    abort();
}


ngx_pool_cleanup_t *
ngx_pool_cleanup_add(ngx_pool_t *pool, size_t size)
{
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pcalloc(pool, sizeof(ngx_pool_cleanup_t));
    cln->data = size ? ngx_pcalloc(pool, size) : NULL;
    cln->next = pool->cleanup;
    pool->cleanup = cln;

    return cln;
}


ngx_pool_t *
ngx_create_pool(size_t size, ngx_log_t *log)
{
    ngx_pool_t  *pool;

    pool = calloc(1, sizeof(ngx_pool_t));
    fuzz_check(pool != NULL);
    pool->max = size;
    pool->log = log;

    return pool;
}


void
ngx_destroy_pool(ngx_pool_t *pool)
{
    ngx_pool_large_t    *large, *next;
    ngx_pool_cleanup_t  *cln;

    for (cln = pool->cleanup; cln; cln = cln->next) {
        if (cln->handler) {
            cln->handler(cln->data);
        }
    }

    for (large = pool->large; large; large = next) {
        next = large->next;
        free(large->alloc);
        free(large);
    }

    free(pool);
}


void *
ngx_alloc(size_t size, ngx_log_t *log)
{
    (void) log;

    return malloc(size);
}


void *
ngx_calloc(size_t size, ngx_log_t *log)
{
    (void) log;

    return calloc(1, size);
}


/* files, logs, sums */

ssize_t
ngx_read_file(ngx_file_t *file, u_char *buf, size_t size, off_t offset)
{
    (void) file;

    fuzz_check(offset >= 0 && (size_t) offset + size <= stub_file_len);
    memcpy(buf, stub_file + offset, size);

    return (ssize_t) size;
}


void
ngx_log_error_core(ngx_uint_t level, ngx_log_t *log, ngx_err_t err,
    const char *fmt, ...)
{
    (void) level;
    (void) log;
    (void) err;
    (void) fmt;
}


void
ngx_md5_init(ngx_md5_t *ctx)
{
    memset(ctx, 0, sizeof(ngx_md5_t));
}


void
ngx_md5_update(ngx_md5_t *ctx, const void *data, size_t size)
{
    const u_char  *p;

    for (p = data; size--; p++) {
        ctx->bytes = ctx->bytes * 31 + *p;
    }
}


void
ngx_md5_final(u_char result[16], ngx_md5_t *ctx)
{
    memset(result, 0, 16);
    memcpy(result, &ctx->bytes, sizeof(ctx->bytes));
}


/* requests */

ngx_int_t
ngx_http_arg(ngx_http_request_t *r, u_char *name, size_t len, ngx_str_t *value)
{
    u_char  *p, *end, *last;

    last = r->args.data + r->args.len;

    for (p = r->args.data; p < last; p = end + 1) {
        end = memchr(p, '&', last - p);
        end = end ? end : last;

        if ((size_t) (end - p) > len && p[len] == '='
            && ngx_strncasecmp(p, name, len) == 0)
        {
            value->data = p + len + 1;
            value->len = end - value->data;
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


/* no request here has a user */

ngx_int_t
ngx_http_auth_basic_user(ngx_http_request_t *r)
{
    (void) r;

    return NGX_DECLINED;
}


ngx_int_t
ngx_http_complex_value(ngx_http_request_t *r, ngx_http_complex_value_t *val,
    ngx_str_t *value)
{
    value->len = val->value.len;
    value->data = ngx_pnalloc(r->pool, value->len);
    memcpy(value->data, val->value.data, value->len);

    return NGX_OK;
}


void
ngx_http_finalize_request(ngx_http_request_t *r, ngx_int_t rc)
{
    fuzz_check(stub_finalized != NULL);
    stub_finalized((stub_request_t *) r, rc);
}


void
ngx_http_run_posted_requests(ngx_connection_t *c)
{
    fuzz_check(c != NULL);
}


void
ngx_http_test_reading(ngx_http_request_t *r)
{
    (void) r;
}


void
ngx_http_request_empty_handler(ngx_http_request_t *r)
{
    (void) r;
}
