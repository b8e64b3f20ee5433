/* SPDX-License-Identifier: PostgreSQL */

/*
 * Conninfo strings and their hosts, compared with libpq's own parser.  Then
 * host names get addresses, and connections fail: the target is always an
 * address of one of the hosts, and is kept while the host has it.
 *
 * An input is the conninfo, up to a line feed, and a list of steps: a byte for
 * the event, one for the host, two for the addresses of its name.
 */

#include "nginx_stub.h"
#include "ngx_pgq_target.h"

#include <libpq-fe.h>


/* Returns the length of item n of a list with commas; 0 if it is missing. */

static size_t
item(const char *list, ngx_uint_t n, const char **p)
{
    *p = list;

    while (*p && n--) {
        *p = strchr(*p, ',');
        *p = *p ? *p + 1 : NULL;
    }

    return *p ? strcspn(*p, ",") : 0;
}


static ngx_uint_t
items(const char *list)
{
    ngx_uint_t  n;

    for (n = list ? 1 : 0; list && *list; list++) {
        n += *list == ',';
    }

    return n;
}


static const char *
option(PQconninfoOption *options, const char *keyword)
{
    for ( /* void */ ; options->keyword; options++) {
        if (strcmp(options->keyword, keyword) == 0) {
            return options->val && *options->val ? options->val : NULL;
        }
    }

    return NULL;
}


static void
check_hosts(ngx_pgq_target_t *target, const char *text)
{
    size_t             len;
    ngx_uint_t         i, n;
    const char        *p, *host, *address, *port;
    ngx_pgq_host_t    *hosts;
    PQconninfoOption  *given;

    given = PQconninfoParse(text, NULL);
    fuzz_check(given != NULL);

    host = option(given, "host");
    address = option(given, "hostaddr");
    port = option(given, "port");
    n = items(host) > items(address) ? items(host) : items(address);
    n = n ? n : 1;
    hosts = target->hosts.elts;

    if (option(given, "service") == NULL && !strstr(text, "dbname")
        && !strstr(text, "://"))
    {
        fuzz_check(target->hosts.nelts == n);

        for (i = 0; i < n; i++) {

            len = item(host, i, &p);
            fuzz_check(len == 0 || (strlen(hosts[i].name) == len
                                    && memcmp(hosts[i].name, p, len) == 0));

            len = item(address, i, &p);
            fuzz_check(len == 0 || (hosts[i].naddresses == 1
                       && strncmp(hosts[i].addresses[0], p,
                                  len < NGX_PGQ_ADDRESS_LEN - 1 ? len
                                  : NGX_PGQ_ADDRESS_LEN - 1) == 0));

            len = item(port, items(port) > 1 ? i : 0, &p);
            fuzz_check(len ? strlen(hosts[i].port) == len
                             && memcmp(hosts[i].port, p, len) == 0
                       : strcmp(hosts[i].port, "5432") == 0);
        }
    }

    PQconninfoFree(given);
}


static void
learn(ngx_pgq_target_t *target, ngx_pgq_host_t *host, unsigned set)
{
    unsigned            i, j, n;
    ngx_int_t           found;
    ngx_pgq_address_t   addresses[NGX_PGQ_MAX_ADDRESSES];
    ngx_pgq_endpoint_t  before, after;

    for (n = 0, i = 0; i < NGX_PGQ_MAX_ADDRESSES; i++) {
        if (set & (1u << i)) {
            snprintf(addresses[n++], sizeof(ngx_pgq_address_t), "10.0.0.%u",
                     i);
        }
    }

    found = ngx_pgq_target_current(target, &before);
    (void) ngx_pgq_target_update(target, host, addresses, n);

    fuzz_check(host->naddresses == n);

    for (i = 0; i < n; i++) {
        for (j = 0; j < n; j++) {
            if (strcmp(host->addresses[i], addresses[j]) == 0) {
                break;
            }
        }

        fuzz_check(j < n);
    }

    /* an address that the host still has is kept */

    for (i = 0; i < n && found == NGX_OK && before.host == host; i++) {
        if (strcmp(addresses[i], before.address) == 0) {
            fuzz_check(ngx_pgq_target_current(target, &after) == NGX_OK);
            fuzz_check(strcmp(after.address, before.address) == 0);
        }
    }
}


static void
step(ngx_pgq_target_t *target, fuzz_input_t *in)
{
    unsigned             what, which, set;
    ngx_uint_t           i, n;
    ngx_int_t            rc;
    ngx_pgq_host_t      *hosts, *host;
    ngx_pgq_endpoint_t   endpoint;

    hosts = target->hosts.elts;
    what = fuzz_byte(in) % 3;
    which = fuzz_byte(in);
    host = &hosts[which % target->hosts.nelts];

    if (what == 0) {
        set = fuzz_byte(in) * 256;
        set += fuzz_byte(in);

        if (host->named) {
            learn(target, host, set);
        }
    }

    rc = ngx_pgq_target_current(target, &endpoint);
    fuzz_check(endpoint.host >= hosts
               && endpoint.host < hosts + target->hosts.nelts);
    fuzz_check((rc == NGX_OK) == (endpoint.host->naddresses > 0));
    fuzz_check(rc == NGX_OK || endpoint.address[0] == '\0');

    if (what == 1) {
        ngx_pgq_target_failed(target, &endpoint);
    }

    for (n = 0, i = 0; i < target->hosts.nelts; i++) {
        n += hosts[i].naddresses ? hosts[i].naddresses : 1;
    }

    fuzz_check(ngx_pgq_target_endpoints(target) == n);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    char                     *text;
    size_t                    n;
    ngx_str_t                 conninfo;
    ngx_conf_t                cf;
    fuzz_input_t              in = { p, len };
    const uint8_t            *end;
    ngx_pgq_target_t         *target;

    static ngx_str_t  pool = ngx_string("main");

    end = len ? memchr(p, '\n', len) : NULL;
    (void) fuzz_bytes(&in, end ? (size_t) (end - p) : len, &n);
    (void) fuzz_byte(&in);

    text = fuzz_copy(p, n + 1 <= len ? n + 1 : n);
    text = realloc(text, n + 1);
    text[n] = '\0';

    conninfo.data = (u_char *) text;
    conninfo.len = n;

    memset(&cf, 0, sizeof(cf));
    cf.pool = ngx_create_pool(0, NULL);

    target = memchr(text, '\0', n) ? NULL
             : ngx_pgq_target_create(&cf, &conninfo, &pool);

    if (target) {
        check_hosts(target, text);
        (void) ngx_pgq_target_verify(&cf, target, &pool);

        while (in.len) {
            step(target, &in);
        }
    }

    ngx_destroy_pool(cf.pool);
    free(text);

    return 0;
}
