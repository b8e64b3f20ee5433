/* SPDX-License-Identifier: PostgreSQL */

/*
 * A target owns the hosts of a database and their addresses, and chooses the
 * endpoint to connect to.  All memory belongs to the configuration; each
 * worker updates its own copy.
 *
 * Invariants:
 *  - libpq never looks up a name: an endpoint is an address or the directory
 *    of a Unix socket;
 *  - all lanes of a worker connect to the same endpoint; when it fails, all
 *    connect to the next one;
 *  - addresses keep their order when others of the same name are added or
 *    removed, so that no address is skipped.
 */

#include "ngx_pgq_target.h"


static ngx_int_t ngx_pgq_target_hosts(ngx_conf_t *cf,
    ngx_pgq_target_t *target);
static ngx_int_t ngx_pgq_target_host(ngx_conf_t *cf, ngx_pgq_target_t *target,
    char *name, char *address, char *port);
static ngx_uint_t ngx_pgq_target_is_local(ngx_pgq_host_t *host);
static ngx_int_t ngx_pgq_target_position(ngx_pgq_address_t *addresses,
    ngx_uint_t n, char *address);
static char *ngx_pgq_target_item(ngx_pool_t *pool, char *list, ngx_uint_t n);
static ngx_uint_t ngx_pgq_target_count(char *list);


ngx_pgq_target_t *
ngx_pgq_target_create(ngx_conf_t *cf, ngx_str_t *conninfo, ngx_str_t *name)
{
    ngx_uint_t         i;
    ngx_pgq_host_t    *hosts;
    ngx_pgq_target_t  *target;

    target = ngx_pcalloc(cf->pool, sizeof(ngx_pgq_target_t));
    if (target == NULL) {
        return NULL;
    }

    if (ngx_pgq_conninfo_read(cf, &target->conninfo, conninfo, name) != NGX_OK
        || ngx_pgq_target_hosts(cf, target) != NGX_OK)
    {
        return NULL;
    }

    hosts = target->hosts.elts;

    for (i = 0; i < target->hosts.nelts; i++) {

        if (*hosts[i].name != '/' && *hosts[i].name != '@'
            && target->conninfo.verifies && !target->conninfo.rooted)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "the sslmode of pgq_pool \"%V\" needs an"
                               " sslrootcert", name);
            return NULL;
        }

        if (ngx_pgq_conninfo_password(cf, &target->conninfo, hosts[i].name,
                                      hosts[i].naddresses
                                      && *hosts[i].addresses[0]
                                      ? hosts[i].addresses[0] : NULL,
                                      hosts[i].port, &hosts[i].password)
            != NGX_OK)
        {
            return NULL;
        }
    }

    return target;
}


/*
 * Rejects a password if the server's certificate is not verified: another
 * server could receive the password, or guess it from the SCRAM exchange.
 */

ngx_int_t
ngx_pgq_target_verify(ngx_conf_t *cf, ngx_pgq_target_t *target,
    ngx_str_t *name)
{
    ngx_uint_t       i;
    ngx_pgq_host_t  *hosts;

    hosts = target->hosts.elts;

    for (i = 0; i < target->hosts.nelts; i++) {

        if (hosts[i].password == NULL || target->conninfo.verifies_name
            || ngx_pgq_target_is_local(&hosts[i]))
        {
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "pgq_pool \"%V\" has a password for host \"%s\","
                           " whose certificate is not verified: set"
                           " \"sslmode=verify-full\", or \"verify=off\" to"
                           " allow this", name, hosts[i].name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* whether the host is a Unix socket or a loopback address */

static ngx_uint_t
ngx_pgq_target_is_local(ngx_pgq_host_t *host)
{
    in_addr_t  addr;

    if (host->named) {
        return ngx_strcasecmp((u_char *) host->name, (u_char *) "localhost")
               == 0;
    }

    if (host->addresses[0][0] == '\0'
        || ngx_strcmp(host->addresses[0], "::1") == 0)
    {
        return 1;
    }

    addr = ngx_inet_addr((u_char *) host->addresses[0],
                         ngx_strlen(host->addresses[0]));

    return addr != INADDR_NONE && ntohl(addr) >> 24 == IN_LOOPBACKNET;
}


/* returns NGX_DECLINED if no address of the current host is known */

ngx_int_t
ngx_pgq_target_current(ngx_pgq_target_t *target,
    ngx_pgq_endpoint_t *endpoint)
{
    ngx_pgq_host_t  *hosts;

    hosts = target->hosts.elts;

    endpoint->host = &hosts[target->host];
    endpoint->address[0] = '\0';

    if (endpoint->host->naddresses == 0) {
        return NGX_DECLINED;
    }

    ngx_memcpy(endpoint->address, endpoint->host->addresses[target->address],
               sizeof(ngx_pgq_address_t));

    return NGX_OK;
}


void
ngx_pgq_target_failed(ngx_pgq_target_t *target,
    ngx_pgq_endpoint_t *endpoint)
{
    ngx_pgq_endpoint_t  current;

    (void) ngx_pgq_target_current(target, &current);

    if (current.host != endpoint->host
        || ngx_strcmp(current.address, endpoint->address) != 0)
    {
        return;
    }

    if (++target->address >= current.host->naddresses) {
        target->address = 0;
        target->host = (target->host + 1) % target->hosts.nelts;
    }
}


/* the number of endpoints; a host without an address counts as one */

ngx_uint_t
ngx_pgq_target_endpoints(ngx_pgq_target_t *target)
{
    ngx_uint_t       i, n;
    ngx_pgq_host_t  *hosts;

    n = 0;
    hosts = target->hosts.elts;

    for (i = 0; i < target->hosts.nelts; i++) {
        n += ngx_max(hosts[i].naddresses, 1);
    }

    return n;
}


/* sets the addresses of a name; returns 1 if they have changed */

ngx_uint_t
ngx_pgq_target_update(ngx_pgq_target_t *target, ngx_pgq_host_t *host,
    ngx_pgq_address_t *addresses, ngx_uint_t n)
{
    ngx_int_t           position;
    ngx_uint_t          i, kept;
    ngx_pgq_endpoint_t  current;

    (void) ngx_pgq_target_current(target, &current);

    kept = 0;

    for (i = 0; i < host->naddresses; i++) {
        if (ngx_pgq_target_position(addresses, n, host->addresses[i]) >= 0) {
            ngx_memmove(host->addresses[kept++], host->addresses[i],
                        sizeof(ngx_pgq_address_t));
        }
    }

    if (kept == n && kept == host->naddresses) {
        return 0;
    }

    host->naddresses = kept;

    for (i = 0; i < n && host->naddresses < NGX_PGQ_MAX_ADDRESSES; i++) {
        if (ngx_pgq_target_position(host->addresses, kept, addresses[i]) < 0)
        {
            ngx_memcpy(host->addresses[host->naddresses++], addresses[i],
                       sizeof(ngx_pgq_address_t));
        }
    }

    if (current.host == host) {
        position = ngx_pgq_target_position(host->addresses, host->naddresses,
                                           current.address);
        target->address = ngx_max(position, 0);
    }

    return 1;
}


static ngx_int_t
ngx_pgq_target_position(ngx_pgq_address_t *addresses, ngx_uint_t n,
    char *address)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        if (ngx_strcmp(addresses[i], address) == 0) {
            return i;
        }
    }

    return -1;
}


static ngx_int_t
ngx_pgq_target_hosts(ngx_conf_t *cf, ngx_pgq_target_t *target)
{
    char                *name, *address, *port;
    ngx_uint_t           i, n;
    ngx_pgq_conninfo_t  *ci;

    ci = &target->conninfo;

    /* without a host: the directory of the server's socket, as in libpq */

    n = ngx_max(ngx_pgq_target_count(ci->host),
                ngx_pgq_target_count(ci->hostaddr));
    n = ngx_max(n, 1);

    if (ngx_array_init(&target->hosts, cf->pool, n, sizeof(ngx_pgq_host_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < n; i++) {
        name = ngx_pgq_target_item(cf->pool, ci->host, i);
        address = ngx_pgq_target_item(cf->pool, ci->hostaddr, i);
        port = ngx_pgq_target_item(cf->pool, ci->port,
                                   ngx_pgq_target_count(ci->port) > 1 ? i : 0);

        if (ngx_pgq_target_host(cf, target, name, address,
                                port ? port : (char *) "5432")
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_pgq_target_host(ngx_conf_t *cf, ngx_pgq_target_t *target,
    char *name, char *address, char *port)
{
    ngx_pgq_host_t  *host;

    if (name == NULL) {
        name = address ? address : (char *) "/var/run/postgresql";
    }

    if (address == NULL
        && (ngx_strchr(name, ':') != NULL
            || ngx_inet_addr((u_char *) name, ngx_strlen(name))
               != INADDR_NONE))
    {
        address = name;
    }

    host = ngx_array_push(&target->hosts);
    if (host == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(host, sizeof(ngx_pgq_host_t));

    host->name = name;
    host->port = port;
    host->named = address == NULL && *name != '/' && *name != '@';

    host->addresses = ngx_pcalloc(cf->pool, sizeof(ngx_pgq_address_t)
                                  * (host->named ? NGX_PGQ_MAX_ADDRESSES
                                     : 1));
    if (host->addresses == NULL) {
        return NGX_ERROR;
    }

    if (!host->named) {
        host->naddresses = 1;
        ngx_cpystrn((u_char *) host->addresses[0],
                    (u_char *) (address ? address : ""),
                    NGX_PGQ_ADDRESS_LEN);
    }

    return NGX_OK;
}


/* looks up a name by the system's resolver, which may block */

ngx_int_t
ngx_pgq_target_lookup(ngx_conf_t *cf, ngx_pgq_host_t *host, ngx_str_t *name)
{
    ngx_url_t   u;
    ngx_uint_t  i;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url.data = (u_char *) host->name;
    u.url.len = ngx_strlen(host->name);
    u.default_port = 5432;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s in host \"%s\" of pgq_pool \"%V\"",
                           u.err ? u.err : "error", host->name, name);
        return NGX_ERROR;
    }

    for (i = 0; i < u.naddrs && i < NGX_PGQ_MAX_ADDRESSES; i++) {
        ngx_pgq_target_print(host->addresses[i], u.addrs[i].sockaddr,
                             u.addrs[i].socklen);
        host->naddresses++;
    }

    return NGX_OK;
}


void
ngx_pgq_target_print(char *text, struct sockaddr *sockaddr,
    socklen_t socklen)
{
    size_t  len;

    len = ngx_sock_ntop(sockaddr, socklen, (u_char *) text,
                        NGX_PGQ_ADDRESS_LEN - 1, 0);

    text[len] = '\0';
}


/* the number of items in a comma-separated list of the conninfo */

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


/* an item of a comma-separated list; NULL if it is absent or empty */

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

    return len ? ngx_pgq_conninfo_copy(pool, list, len) : NULL;
}
