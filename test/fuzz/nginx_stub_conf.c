/* SPDX-License-Identifier: PostgreSQL */

/*
 * Functions of nginx that are called while the configuration is read.
 */

#include "nginx_stub.h"

#include <arpa/inet.h>


u_char *
ngx_cpystrn(u_char *dst, u_char *src, size_t n)
{
    size_t  len;

    if (n == 0) {
        return dst;
    }

    len = strnlen((char *) src, n - 1);
    memcpy(dst, src, len);
    dst[len] = '\0';

    return dst + len;
}


/* The text does not matter here, only that the buffer is large enough. */

u_char *
ngx_slprintf(u_char *buf, u_char *last, const char *fmt, ...)
{
    return ngx_snprintf(buf, (size_t) (last - buf), "%s", fmt);
}


u_char *
ngx_strerror(ngx_err_t err, u_char *errstr, size_t size)
{
    return ngx_snprintf(errstr, size < 20 ? size : 20, "%s", strerror(err));
}


in_addr_t
ngx_inet_addr(u_char *text, size_t len)
{
    char            copy[16];
    struct in_addr  address;

    if (len >= sizeof(copy)) {
        return INADDR_NONE;
    }

    memcpy(copy, text, len);
    copy[len] = '\0';

    return inet_pton(AF_INET, copy, &address) == 1 ? address.s_addr
           : INADDR_NONE;
}


void
ngx_conf_log_error(ngx_uint_t level, ngx_conf_t *cf, ngx_err_t err,
    const char *fmt, ...)
{
    fuzz_check(level <= NGX_LOG_DEBUG && cf != NULL && err >= 0);
    fuzz_check(strlen(fmt) > 0);
}


ngx_int_t
ngx_strcasecmp(u_char *s1, u_char *s2)
{
    return ngx_strncasecmp(s1, s2, strlen((char *) s1) + 1);
}


/* host names are not resolved here */

ngx_int_t
ngx_parse_url(ngx_pool_t *pool, ngx_url_t *u)
{
    (void) pool;
    (void) u;

    return NGX_ERROR;
}


size_t
ngx_sock_ntop(struct sockaddr *sa, socklen_t socklen, u_char *text, size_t len,
    ngx_uint_t port)
{
    (void) sa;
    (void) socklen;
    (void) text;
    (void) len;
    (void) port;

    return 0;
}
