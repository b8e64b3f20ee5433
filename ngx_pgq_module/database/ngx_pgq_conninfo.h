/* SPDX-License-Identifier: PostgreSQL */

/*
 * The settings of a connection.  The master reads them from the conninfo, the
 * environment, a service file and a password file.  Workers pass all of them
 * to libpq with each attempt, so that libpq reads none of these.
 */

#ifndef NGX_PGQ_CONNINFO_H
#define NGX_PGQ_CONNINFO_H


#include <ngx_config.h>
#include <ngx_core.h>


/* values of target_session_attrs */

typedef enum {
    NGX_PGQ_ANY = 0,
    NGX_PGQ_READ_WRITE,
    NGX_PGQ_READ_ONLY,
    NGX_PGQ_PRIMARY,
    NGX_PGQ_STANDBY,
    NGX_PGQ_PREFER_STANDBY
} ngx_pgq_attrs_e;


#define NGX_PGQ_CONNINFO_FILES   3


typedef struct {
    /* the same for each attempt; followed by NGX_PGQ_CONNINFO_FREE elements
       that ngx_pgq_conninfo_fill() sets, and a NULL */
    const char             **keywords;
    const char             **values;
    ngx_uint_t               n;

    /* comma-separated lists, or NULL */
    char                    *host;
    char                    *hostaddr;
    char                    *port;

    char                    *password;
    char                    *passfile;
    char                    *auth;          /* require_auth, or NULL */
    char                    *files[NGX_PGQ_CONNINFO_FILES];    /* TLS files */
    ngx_pgq_attrs_e          attrs;
    unsigned                 verifies:1;    /* certificates are verified */
    unsigned                 rooted:1;      /* sslrootcert is set */
    unsigned                 verifies_name:1;   /* host names are verified */
    unsigned                 chooses_auth:1;    /* libpq has require_auth */
} ngx_pgq_conninfo_t;


#define NGX_PGQ_CONNINFO_FREE    6     /* settings of one attempt */


ngx_int_t ngx_pgq_conninfo_read(ngx_conf_t *cf, ngx_pgq_conninfo_t *ci,
    ngx_str_t *text, ngx_str_t *name);
ngx_int_t ngx_pgq_conninfo_password(ngx_conf_t *cf, ngx_pgq_conninfo_t *ci,
    const char *host, const char *hostaddr, const char *port,
    char **password);
void ngx_pgq_conninfo_fill(ngx_pgq_conninfo_t *ci, const char *host,
    const char *hostaddr, const char *port, const char *password,
    ngx_pgq_attrs_e attrs);
ngx_uint_t ngx_pgq_conninfo_readable(ngx_pgq_conninfo_t *ci, u_char *text,
    size_t size);
char *ngx_pgq_conninfo_copy(ngx_pool_t *pool, const char *text, size_t len);


#endif /* NGX_PGQ_CONNINFO_H */
