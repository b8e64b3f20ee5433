/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "target" owns where a pool's database is: the endpoints, resolved,
 * and the connection's other settings.  Everything lives in the
 * configuration's pool.
 *
 * Called by the front desk (create) and by lanes (aim, miss).
 *
 * Invariants:
 *  - the settings are the conninfo's, then the service's, then those of the
 *    environment the master was started in: workers have none of their own;
 *  - libpq never looks up a name: each endpoint has an address or is a
 *    directory of a Unix socket;
 *  - all lanes of a worker aim at the endpoint that answered last, and move
 *    to the next one together when it fails.
 */

#include "ngx_pgq_target.h"

#include <libpq-fe.h>


/*
 * Settings that differ from libpq's own defaults, each of which the conninfo
 * may still set: a dead peer is noticed in seconds, and a standby is not
 * taken for a primary.  (GSS is off, too, unless the conninfo says otherwise:
 * it would be asked for in a round trip of its own.)
 */

static const char  *ngx_pgq_target_defaults[][2] = {
    { "fallback_application_name", "ngx_pgq" },
    { "target_session_attrs", "read-write" },
    { "keepalives_idle", "5" },
    { "keepalives_interval", "2" },
    { "keepalives_count", "3" },
    { "tcp_user_timeout", "10000" },
    { "client_encoding", "UTF8" },
    { NULL, NULL }
};


typedef struct {
    char                    *host;
    char                    *hostaddr;
    char                    *port;
} ngx_pgq_target_lists_t;


static ngx_int_t ngx_pgq_target_settle(ngx_conf_t *cf,
    struct ngx_pgq_target_s *target, PQconninfoOption *given,
    PQconninfoOption *all, ngx_pgq_target_lists_t *lists,
    ngx_str_t *pool);
static ngx_int_t ngx_pgq_target_endpoints(ngx_conf_t *cf,
    struct ngx_pgq_target_s *target, ngx_pgq_target_lists_t *lists);
static ngx_int_t ngx_pgq_target_endpoint(ngx_conf_t *cf,
    struct ngx_pgq_target_s *target, char *host, char *hostaddr, char *port);
static ngx_int_t ngx_pgq_target_resolve(ngx_conf_t *cf,
    struct ngx_pgq_target_s *target, char *host, char *port);
static char *ngx_pgq_target_item(ngx_pool_t *pool, char *list, ngx_uint_t n);
static ngx_uint_t ngx_pgq_target_count(char *list);
static char *ngx_pgq_target_option(PQconninfoOption *options,
    const char *keyword);
static PQconninfoOption *ngx_pgq_target_all(const char *conninfo);
static char *ngx_pgq_target_copy(ngx_pool_t *pool, const char *text,
    size_t len);


struct ngx_pgq_target_s *
ngx_pgq_target_create(ngx_conf_t *cf, ngx_str_t *conninfo,
    ngx_str_t *pool)
{
    char                     *text, *error;
    ngx_int_t                 rc;
    PQconninfoOption         *given, *all;
    ngx_pgq_target_lists_t    lists;
    struct ngx_pgq_target_s  *target;

    target = ngx_pcalloc(cf->pool, sizeof(struct ngx_pgq_target_s));
    text = ngx_pgq_target_copy(cf->pool, (char *) conninfo->data,
                               conninfo->len);
    if (target == NULL || text == NULL) {
        return NULL;
    }

    error = NULL;
    given = PQconninfoParse(text, &error);

    if (given == NULL) {
        /* libpq's words may quote the text, and the text a password */
        PQfreemem(error);
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the conninfo of pgq_pool \"%V\" is not understood"
                           " by libpq", pool);
        return NULL;
    }

    all = ngx_pgq_target_all(text);

    if (all == NULL) {
        PQconninfoFree(given);
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the service of pgq_pool \"%V\" is not found",
                           pool);
        return NULL;
    }

    rc = ngx_pgq_target_settle(cf, target, given, all, &lists,
                               pool);

    PQconninfoFree(given);
    PQconninfoFree(all);

    if (rc != NGX_OK) {
        return NULL;
    }

    if (ngx_pgq_target_endpoints(cf, target, &lists) != NGX_OK) {
        return NULL;
    }

    return target;
}


ngx_pgq_endpoint_t *
ngx_pgq_target_aim(struct ngx_pgq_target_s *target)
{
    ngx_pgq_endpoint_t  *endpoints;

    endpoints = target->endpoints.elts;

    return &endpoints[target->current % target->endpoints.nelts];
}


void
ngx_pgq_target_miss(struct ngx_pgq_target_s *target,
    ngx_pgq_endpoint_t *endpoint)
{
    if (ngx_pgq_target_aim(target) == endpoint) {
        target->current++;
    }
}


/*
 * All settings together, by libpq's own rules: those given, then the
 * service's, then the environment's.  libpq tells them of a connection alone,
 * so one is begun that an impossible setting ends before it does anything.
 * NULL when the service is not found: then the connection has no settings.
 */

static PQconninfoOption *
ngx_pgq_target_all(const char *conninfo)
{
    PGconn            *conn;
    const char        *keywords[] = { "dbname", "gssencmode", NULL };
    const char        *values[] = { conninfo, "none at all", NULL };
    PQconninfoOption  *all;

    conn = *conninfo ? PQconnectStartParams(keywords, values, 1)
                     : PQconnectStartParams(keywords + 1, values + 1, 0);

    all = PQconninfo(conn);
    PQfinish(conn);

    if (all && ngx_pgq_target_option(all, "port") == NULL) {
        PQconninfoFree(all);
        return NULL;
    }

    return all;
}


static ngx_int_t
ngx_pgq_target_settle(ngx_conf_t *cf, struct ngx_pgq_target_s *target,
    PQconninfoOption *given, PQconninfoOption *all,
    ngx_pgq_target_lists_t *lists, ngx_str_t *pool)
{
    char              *value, *copy, **list;
    ngx_uint_t         n, i;
    PQconninfoOption  *o;

    ngx_memzero(lists, sizeof(ngx_pgq_target_lists_t));

    for (n = 0, o = all; o->keyword; o++) {
        n++;
    }

    /* host, hostaddr, port, and the NULL at the end */
    target->keywords = ngx_pcalloc(cf->pool, (n + 4) * sizeof(char *));
    target->values = ngx_pcalloc(cf->pool, (n + 4) * sizeof(char *));
    if (target->keywords == NULL || target->values == NULL) {
        return NGX_ERROR;
    }

    for (o = all; o->keyword; o++) {

        value = ngx_pgq_target_option(given, o->keyword);

        /* libpq's compiled defaults give way to ours, settings do not */

        if (value == NULL) {
            for (i = 0; ngx_pgq_target_defaults[i][0]; i++) {
                if (ngx_strcmp(o->keyword, ngx_pgq_target_defaults[i][0]) == 0
                    && (o->val == NULL || o->compiled == NULL
                        || ngx_strcmp(o->val, o->compiled) == 0))
                {
                    value = (char *) ngx_pgq_target_defaults[i][1];
                }
            }
        }

        if (value == NULL) {
            value = o->val;
        }

        if (ngx_strcmp(o->keyword, "gssencmode") == 0
            && ngx_pgq_target_option(given, "gssencmode") == NULL)
        {
            value = "disable";
        }

        if (value == NULL || *value == '\0'
            || ngx_strcmp(o->keyword, "service") == 0)
        {
            continue;
        }

        copy = ngx_pgq_target_copy(cf->pool, value, ngx_strlen(value));
        if (copy == NULL) {
            return NGX_ERROR;
        }

        list = ngx_strcmp(o->keyword, "host") == 0 ? &lists->host
               : ngx_strcmp(o->keyword, "hostaddr") == 0 ? &lists->hostaddr
               : ngx_strcmp(o->keyword, "port") == 0 ? &lists->port
               : NULL;

        if (list != NULL) {
            *list = copy;
            continue;
        }

        target->keywords[target->nfixed] = ngx_pgq_target_copy(cf->pool,
                                         o->keyword, ngx_strlen(o->keyword));
        target->values[target->nfixed++] = copy;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_pgq_target_endpoints(ngx_conf_t *cf, struct ngx_pgq_target_s *target,
    ngx_pgq_target_lists_t *lists)
{
    char        *host, *hostaddr, *port;
    ngx_uint_t   i, n;

    if (ngx_array_init(&target->endpoints, cf->pool, 4,
                       sizeof(ngx_pgq_endpoint_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    n = ngx_max(ngx_pgq_target_count(lists->host),
                ngx_pgq_target_count(lists->hostaddr));

    for (i = 0; i < n; i++) {
        host = ngx_pgq_target_item(cf->pool, lists->host, i);
        hostaddr = ngx_pgq_target_item(cf->pool, lists->hostaddr, i);
        port = ngx_pgq_target_item(cf->pool, lists->port,
                                   ngx_pgq_target_count(lists->port) > 1
                                   ? i : 0);

        if (ngx_pgq_target_endpoint(cf, target, host, hostaddr,
                                    port ? port : "5432")
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (target->endpoints.nelts == 0) {
        /* as libpq: the default directory of the server's socket */
        return ngx_pgq_target_endpoint(cf, target, "/var/run/postgresql",
                                       NULL,
                                       lists->port ? lists->port : "5432");
    }

    return NGX_OK;
}


static ngx_int_t
ngx_pgq_target_endpoint(ngx_conf_t *cf, struct ngx_pgq_target_s *target,
    char *host, char *hostaddr, char *port)
{
    ngx_pgq_endpoint_t  *endpoint;

    if (hostaddr == NULL && host == NULL) {
        host = "/var/run/postgresql";
    }

    if (hostaddr == NULL && ngx_strchr(host, ':') != NULL) {
        /* an IPv6 address, as libpq writes it */
        hostaddr = host;
    }

    if (hostaddr == NULL && *host != '/' && *host != '@') {
        return ngx_pgq_target_resolve(cf, target, host, port);
    }

    endpoint = ngx_array_push(&target->endpoints);
    if (endpoint == NULL) {
        return NGX_ERROR;
    }

    endpoint->host = host;
    endpoint->hostaddr = hostaddr;
    endpoint->port = port;

    return NGX_OK;
}


/* one endpoint for each address of a name */

static ngx_int_t
ngx_pgq_target_resolve(ngx_conf_t *cf, struct ngx_pgq_target_s *target,
    char *host, char *port)
{
    u_char      *address;
    size_t       len;
    ngx_url_t    u;
    ngx_uint_t   i;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url.data = (u_char *) host;
    u.url.len = ngx_strlen(host);
    u.default_port = (in_port_t) ngx_atoi((u_char *) port, ngx_strlen(port));

    if (ngx_parse_url(cf->pool, &u) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s in host \"%s\" of a pgq_pool",
                           u.err ? u.err : "error", host);
        return NGX_ERROR;
    }

    for (i = 0; i < u.naddrs; i++) {
        address = ngx_pnalloc(cf->pool, NGX_SOCKADDR_STRLEN + 1);
        if (address == NULL) {
            return NGX_ERROR;
        }

        len = ngx_sock_ntop(u.addrs[i].sockaddr, u.addrs[i].socklen, address,
                            NGX_SOCKADDR_STRLEN, 0);
        address[len] = '\0';

        if (u.addrs[i].sockaddr->sa_family == AF_INET6
            && address[0] == '[')
        {
            address[len - 1] = '\0';
            address++;
        }

        if (ngx_pgq_target_endpoint(cf, target, host, (char *) address, port)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static char *
ngx_pgq_target_option(PQconninfoOption *options, const char *keyword)
{
    PQconninfoOption  *o;

    for (o = options; o->keyword; o++) {
        if (ngx_strcmp(o->keyword, keyword) == 0) {
            return o->val;
        }
    }

    return NULL;
}


/* libpq writes its lists with commas; an empty item is an absent one */

static ngx_uint_t
ngx_pgq_target_count(char *list)
{
    ngx_uint_t  n;

    if (list == NULL) {
        return 0;
    }

    for (n = 1; *list; list++) {
        if (*list == ',') {
            n++;
        }
    }

    return n;
}


static char *
ngx_pgq_target_item(ngx_pool_t *pool, char *list, ngx_uint_t n)
{
    size_t  len;

    if (list == NULL) {
        return NULL;
    }

    while (n--) {
        list = strchr(list, ',');
        if (list == NULL) {
            return NULL;
        }

        list++;
    }

    len = strcspn(list, ",");

    return len ? ngx_pgq_target_copy(pool, list, len) : NULL;
}


static char *
ngx_pgq_target_copy(ngx_pool_t *pool, const char *text, size_t len)
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
