/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file owns the settings of a pool's connections, in the memory of the
 * configuration.
 *
 * Invariants:
 *  - a setting comes from the conninfo, else from the service, else from the
 *    environment of the master, else from the defaults below;
 *  - the master reads the password file, which workers need not be able to
 *    read;
 *  - in a worker libpq does not look for a home directory, which could block
 *    in a directory service, nor for files in it: each of these files is set
 *    to a name that cannot exist;
 *  - libpq does not open a file that this process may not read: see
 *    ngx_pgq_conninfo_readable();
 *  - GSSAPI is off: libpq would block until a KDC answers;
 *  - if libpq has require_auth, its default for a password is SCRAM only: the
 *    server does not receive the password, and proves that it knows it.
 */

#include "ngx_pgq_conninfo.h"

#include <libpq-fe.h>


/* a file that cannot exist */

#define NGX_PGQ_CONNINFO_NONE    "/dev/null/none"


/*
 * Defaults that differ from libpq's: a dead peer is noticed in seconds, and a
 * standby is not accepted as a primary.  The default of gssencmode is set in
 * ngx_pgq_conninfo_value().
 */

static const char  *ngx_pgq_conninfo_defaults[][2] = {
    { "fallback_application_name", "ngx_pgq" },
    { "target_session_attrs", "read-write" },
    { "keepalives_idle", "5" },
    { "keepalives_interval", "2" },
    { "keepalives_count", "3" },
    { "tcp_user_timeout", "10000" },
    { "sslcert", NGX_PGQ_CONNINFO_NONE },
    { "sslkey", NGX_PGQ_CONNINFO_NONE },
    { "sslrootcert", NGX_PGQ_CONNINFO_NONE },
    { "sslcrl", NGX_PGQ_CONNINFO_NONE },
    { NULL, NULL }
};


/* settings that name a file, which libpq reads for each connection */

static const char  *ngx_pgq_conninfo_files[NGX_PGQ_CONNINFO_FILES] = {
    "sslrootcert", "sslcert", "sslkey"
};


static const char  *ngx_pgq_conninfo_attrs[] = {
    [NGX_PGQ_ANY] = "any",
    [NGX_PGQ_READ_WRITE] = "read-write",
    [NGX_PGQ_READ_ONLY] = "read-only",
    [NGX_PGQ_PRIMARY] = "primary",
    [NGX_PGQ_STANDBY] = "standby",
    [NGX_PGQ_PREFER_STANDBY] = "prefer-standby",
    NULL
};


static ngx_int_t ngx_pgq_conninfo_collect(ngx_conf_t *cf,
    ngx_pgq_conninfo_t *ci, PQconninfoOption *given, PQconninfoOption *all);
static char *ngx_pgq_conninfo_value(PQconninfoOption *o, char *given);
static ngx_int_t ngx_pgq_conninfo_extract(ngx_pgq_conninfo_t *ci,
    PQconninfoOption *o, char *value);
static char *ngx_pgq_conninfo_option(PQconninfoOption *options,
    const char *keyword);
static PQconninfoOption *ngx_pgq_conninfo_all(const char *conninfo);


ngx_int_t
ngx_pgq_conninfo_read(ngx_conf_t *cf, ngx_pgq_conninfo_t *ci,
    ngx_str_t *conninfo, ngx_str_t *name)
{
    char              *text, *error;
    ngx_int_t          rc;
    ngx_uint_t         named;
    PQconninfoOption  *given, *all;

    text = ngx_pgq_conninfo_copy(cf->pool, (char *) conninfo->data,
                                 conninfo->len);
    if (text == NULL) {
        return NGX_ERROR;
    }

    error = NULL;
    given = PQconninfoParse(text, &error);

    if (given == NULL) {
        /* libpq's message may quote the conninfo, which has a password */
        PQfreemem(error);
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid conninfo of pgq_pool \"%V\"", name);
        return NGX_ERROR;
    }

    all = ngx_pgq_conninfo_all(text);

    if (all == NULL) {
        PQconninfoFree(given);
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the service of pgq_pool \"%V\" is not found",
                           name);
        return NGX_ERROR;
    }

    rc = ngx_pgq_conninfo_collect(cf, ci, given, all);
    named = ngx_pgq_conninfo_option(given, "passfile")
            || getenv("PGPASSFILE");

    if (rc == NGX_DECLINED) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid target_session_attrs \"%s\" in pgq_pool"
                           " \"%V\"",
                           ngx_pgq_conninfo_option(all,
                                                   "target_session_attrs"),
                           name);
    }

    PQconninfoFree(given);
    PQconninfoFree(all);

    /* libpq does not report an unreadable file; the default is optional */

    if (rc == NGX_OK && ci->passfile && access(ci->passfile, R_OK) == -1
        && (named || ngx_errno != NGX_ENOENT))
    {
        ngx_conf_log_error(NGX_LOG_WARN, cf, ngx_errno,
                           "password file \"%s\" of pgq_pool \"%V\" cannot be"
                           " read", ci->passfile, name);
    }

    return rc == NGX_OK ? NGX_OK : NGX_ERROR;
}


/*
 * Returns all settings by libpq's rules, or NULL if the service is not found.
 * libpq returns them only for a connection: this one does not connect, because
 * its gssencmode is invalid.
 */

static PQconninfoOption *
ngx_pgq_conninfo_all(const char *conninfo)
{
    PGconn            *conn;
    const char        *keywords[] = { "dbname", "gssencmode", NULL };
    const char        *values[] = { conninfo, "none at all", NULL };
    PQconninfoOption  *all;

    conn = *conninfo ? PQconnectStartParams(keywords, values, 1)
                     : PQconnectStartParams(keywords + 1, values + 1, 0);

    all = PQconninfo(conn);
    PQfinish(conn);

    if (all && ngx_pgq_conninfo_option(all, "port") == NULL) {
        PQconninfoFree(all);
        return NULL;
    }

    return all;
}


static ngx_int_t
ngx_pgq_conninfo_collect(ngx_conf_t *cf, ngx_pgq_conninfo_t *ci,
    PQconninfoOption *given, PQconninfoOption *all)
{
    char              *value;
    ngx_int_t          rc;
    ngx_uint_t         n;
    PQconninfoOption  *o;

    for (n = 0, o = all; o->keyword; o++) {
        n++;
    }

    /* for the settings of one attempt, the passfile and the NULL */
    n += NGX_PGQ_CONNINFO_FREE + 2;

    ci->keywords = ngx_pcalloc(cf->pool, n * sizeof(char *));
    ci->values = ngx_pcalloc(cf->pool, n * sizeof(char *));
    if (ci->keywords == NULL || ci->values == NULL) {
        return NGX_ERROR;
    }

    for (o = all; o->keyword; o++) {

        value = ngx_pgq_conninfo_value(o,
                                 ngx_pgq_conninfo_option(given, o->keyword));

        if (ngx_strcmp(o->keyword, "require_auth") == 0) {
            ci->chooses_auth = 1;
        }

        if (value == NULL || *value == '\0'
            || ngx_strcmp(o->keyword, "service") == 0)
        {
            continue;
        }

        value = ngx_pgq_conninfo_copy(cf->pool, value, ngx_strlen(value));
        if (value == NULL) {
            return NGX_ERROR;
        }

        rc = ngx_pgq_conninfo_extract(ci, o, value);

        if (rc == NGX_OK) {
            continue;
        }

        if (rc == NGX_DECLINED) {
            return NGX_DECLINED;
        }

        ci->keywords[ci->n] = ngx_pgq_conninfo_copy(cf->pool, o->keyword,
                                                    ngx_strlen(o->keyword));
        if (ci->keywords[ci->n] == NULL) {
            return NGX_ERROR;
        }

        ci->values[ci->n++] = value;
    }

    ci->keywords[ci->n] = "passfile";
    ci->values[ci->n++] = NGX_PGQ_CONNINFO_NONE;

    return NGX_OK;
}


static char *
ngx_pgq_conninfo_value(PQconninfoOption *o, char *given)
{
    ngx_uint_t  i;

    if (ngx_strcmp(o->keyword, "client_encoding") == 0) {
        /* messages are always UTF-8 */
        return (char *) "UTF8";
    }

    if (given) {
        return given;
    }

    if (ngx_strcmp(o->keyword, "gssencmode") == 0) {
        return (char *) "disable";
    }

    /* a value that differs from libpq's default was set by the user */

    for (i = 0; ngx_pgq_conninfo_defaults[i][0]; i++) {
        if (ngx_strcmp(o->keyword, ngx_pgq_conninfo_defaults[i][0]) == 0
            && (o->val == NULL || *o->val == '\0'
                || (o->compiled && ngx_strcmp(o->val, o->compiled) == 0)))
        {
            return (char *) ngx_pgq_conninfo_defaults[i][1];
        }
    }

    return o->val;
}


/* NGX_OK: the value is in ci; NGX_AGAIN: it is passed to libpq unchanged */

static ngx_int_t
ngx_pgq_conninfo_extract(ngx_pgq_conninfo_t *ci, PQconninfoOption *o,
    char *value)
{
    char        **field;
    ngx_uint_t    i;

    field = ngx_strcmp(o->keyword, "host") == 0 ? &ci->host
            : ngx_strcmp(o->keyword, "hostaddr") == 0 ? &ci->hostaddr
            : ngx_strcmp(o->keyword, "port") == 0 ? &ci->port
            : ngx_strcmp(o->keyword, "password") == 0 ? &ci->password
            : ngx_strcmp(o->keyword, "passfile") == 0 ? &ci->passfile
            : ngx_strcmp(o->keyword, "require_auth") == 0 ? &ci->auth
            : NULL;

    if (field != NULL) {
        *field = value;
        return NGX_OK;
    }

    if (ngx_strcmp(o->keyword, "target_session_attrs") == 0) {
        for (i = 0; ngx_pgq_conninfo_attrs[i]; i++) {
            if (ngx_strcmp(value, ngx_pgq_conninfo_attrs[i]) == 0) {
                ci->attrs = i;
                return NGX_OK;
            }
        }

        return NGX_DECLINED;
    }

    for (i = 0; i < NGX_PGQ_CONNINFO_FILES; i++) {
        if (ngx_strcmp(o->keyword, ngx_pgq_conninfo_files[i]) == 0) {
            ci->files[i] = value;
        }
    }

    if (ngx_strcmp(o->keyword, "sslmode") == 0
        && ngx_strncmp(value, "verify-", 7) == 0)
    {
        ci->verifies = 1;
        ci->verifies_name = ngx_strcmp(value, "verify-full") == 0;
    }

    if (ngx_strcmp(o->keyword, "sslrootcert") == 0
        && ngx_strcmp(value, NGX_PGQ_CONNINFO_NONE) != 0)
    {
        ci->rooted = 1;
    }

    return NGX_AGAIN;
}


/*
 * Finds the password of a host by libpq's rules, without connecting; *password
 * is NULL if there is none.
 */

ngx_int_t
ngx_pgq_conninfo_password(ngx_conf_t *cf, ngx_pgq_conninfo_t *ci,
    const char *host, const char *hostaddr, const char *port,
    char **password)
{
    char        *found;
    PGconn      *conn;
    ngx_int_t    rc;
    ngx_uint_t   n;

    *password = ci->password;

    if (ci->password || ci->passfile == NULL) {
        return NGX_OK;
    }

    /* replace the last two, password and target_session_attrs */

    ngx_pgq_conninfo_fill(ci, host, hostaddr, port, NULL, NGX_PGQ_ANY);

    n = ci->n + NGX_PGQ_CONNINFO_FREE - 2;
    ci->keywords[n] = "passfile";
    ci->values[n] = ci->passfile;
    ci->keywords[n + 1] = "gssencmode";
    ci->values[n + 1] = "none at all";

    conn = PQconnectStartParams(ci->keywords, ci->values, 0);
    if (conn == NULL) {
        return NGX_ERROR;
    }

    rc = NGX_OK;
    found = PQpass(conn);

    if (found && *found) {
        *password = ngx_pgq_conninfo_copy(cf->pool, found, ngx_strlen(found));
        rc = *password ? NGX_OK : NGX_ERROR;
    }

    PQfinish(conn);

    return rc;
}


/* adds the settings of one attempt; a setting that is NULL is not passed */

void
ngx_pgq_conninfo_fill(ngx_pgq_conninfo_t *ci, const char *host,
    const char *hostaddr, const char *port, const char *password,
    ngx_pgq_attrs_e attrs)
{
    const char  **k, **v;

    k = ci->keywords + ci->n;
    v = ci->values + ci->n;

    *k++ = "host";
    *v++ = host;
    *k++ = "hostaddr";
    *v++ = hostaddr;
    *k++ = "port";
    *v++ = port;
    *k++ = "require_auth";    /* unknown to libpq 15, which skips a NULL */
    *v++ = !ci->chooses_auth ? NULL
           : ci->auth ? ci->auth
           : password ? "scram-sha-256" : "!gss,!sspi";
    *k++ = "password";
    *v++ = password;
    *k++ = "target_session_attrs";
    *v++ = ngx_pgq_conninfo_attrs[attrs];
    *k = NULL;
    *v = NULL;
}


/*
 * Whether this process may read the files that libpq will open; if not, text
 * is the reason, which libpq 15 takes from uninitialized memory.  libpq
 * reports a missing file itself.  A name with a colon is a key in a device.
 */

ngx_uint_t
ngx_pgq_conninfo_readable(ngx_pgq_conninfo_t *ci, u_char *text, size_t size)
{
    u_char           *p, *last;
    ngx_err_t         err;
    ngx_uint_t        i;
    ngx_file_info_t   fi;

    for (i = 0; i < NGX_PGQ_CONNINFO_FILES; i++) {

        if (ci->files[i] == NULL || ngx_strchr(ci->files[i], ':') != NULL) {
            continue;
        }

        if (ngx_file_info(ci->files[i], &fi) == NGX_FILE_ERROR
            || access(ci->files[i], R_OK) == -1)
        {
            err = ngx_errno;

        } else {
            err = ngx_is_file(&fi) ? 0 : NGX_EISDIR;
        }

        if (err == 0 || err == NGX_ENOENT || err == NGX_ENOTDIR) {
            continue;
        }

        last = text + size - 1;
        p = ngx_slprintf(text, last, "%s is not readable: ",
                         ngx_pgq_conninfo_files[i]);
        p = ngx_strerror(err, p, last - p);
        *p = '\0';

        return 0;
    }

    return 1;
}


static char *
ngx_pgq_conninfo_option(PQconninfoOption *options, const char *keyword)
{
    PQconninfoOption  *o;

    for (o = options; o->keyword; o++) {
        if (ngx_strcmp(o->keyword, keyword) == 0) {
            return o->val;
        }
    }

    return NULL;
}


char *
ngx_pgq_conninfo_copy(ngx_pool_t *pool, const char *text, size_t len)
{
    char  *copy;

    copy = ngx_pnalloc(pool, len + 1);
    if (copy == NULL) {
        return NULL;
    }

    ngx_memcpy(copy, text, len);
    copy[len] = '\0';

    return copy;
}
