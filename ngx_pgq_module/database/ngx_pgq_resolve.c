/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "resolve" owns the look-up of a name: at most one at a time for
 * each host of a target, in each worker.  What is found the target learns.
 * The memory is the configuration's; a look-up under way is nginx's.
 *
 * Invariants:
 *  - nothing here waits: the answer comes as an event, unless nginx's
 *    resolver still holds one, as long as its TTL says;
 *  - a look-up that nobody waits for any longer goes on, and what it finds
 *    is for the next attempt;
 *  - a look-up that fails takes no address away;
 *  - the log has one line for each change: of the addresses, and of whether
 *    there is an answer.
 */

#include "ngx_pgq_resolve.h"


struct ngx_pgq_resolve_s {
    struct ngx_pgq_target_s  *target;
    ngx_pgq_host_t           *host;
    ngx_resolver_t           *resolver;
    ngx_msec_t                timeout;

    ngx_log_t                *log;
    ngx_resolver_ctx_t       *under_way;    /* or NULL */
    ngx_msec_t                since;
    ngx_int_t                 state;        /* of the last answer */
    ngx_pgq_resolve_pt        ready;        /* NULL if nobody waits */
    void                     *data;
};


static ngx_pgq_resolve_t *ngx_pgq_resolve_create(ngx_conf_t *cf,
    struct ngx_pgq_target_s *target, ngx_pgq_host_t *host,
    ngx_resolver_t *resolver, ngx_msec_t timeout);
static void ngx_pgq_resolve_begin(ngx_pgq_resolve_t *rs);
static void ngx_pgq_resolve_handler(ngx_resolver_ctx_t *ctx);
static void ngx_pgq_resolve_learn(ngx_pgq_resolve_t *rs,
    ngx_resolver_ctx_t *ctx);
static void ngx_pgq_resolve_tell(ngx_pgq_resolve_t *rs);


/*
 * Once all of http{} has been read: names are looked up now, by the system,
 * unless there is a resolver.  What the whole world calls localhost is no
 * name for a resolver to know.
 */

ngx_int_t
ngx_pgq_resolve_names(ngx_conf_t *cf, struct ngx_pgq_target_s *target,
    ngx_str_t *name, ngx_resolver_t *resolver, ngx_msec_t timeout)
{
    ngx_uint_t       i;
    ngx_pgq_host_t  *hosts;

    hosts = target->hosts.elts;

    for (i = 0; i < target->hosts.nelts; i++) {

        if (!hosts[i].named) {
            continue;
        }

        if (resolver && ngx_strcasecmp((u_char *) hosts[i].name,
                                       (u_char *) "localhost") != 0)
        {
            hosts[i].resolve = ngx_pgq_resolve_create(cf, target, &hosts[i],
                                                      resolver, timeout);
            if (hosts[i].resolve == NULL) {
                return NGX_ERROR;
            }

            continue;
        }

        if (ngx_pgq_target_find(cf, &hosts[i], name) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_pgq_resolve_t *
ngx_pgq_resolve_create(ngx_conf_t *cf, struct ngx_pgq_target_s *target,
    ngx_pgq_host_t *host, ngx_resolver_t *resolver, ngx_msec_t timeout)
{
    ngx_pgq_resolve_t  *rs;

    rs = ngx_pcalloc(cf->pool, sizeof(ngx_pgq_resolve_t));
    if (rs == NULL) {
        return NULL;
    }

    rs->target = target;
    rs->host = host;
    rs->resolver = resolver;
    rs->timeout = timeout;

    return rs;
}


/*
 * NGX_AGAIN: ready() will be called, once, unless who waits leaves.
 * NGX_OK: what there is to know is known.
 */

ngx_int_t
ngx_pgq_resolve_ask(ngx_pgq_resolve_t *rs, ngx_log_t *log,
    ngx_pgq_resolve_pt ready, void *data)
{
    rs->log = log;

    if (rs->under_way == NULL) {
        ngx_pgq_resolve_begin(rs);
    }

    if (rs->under_way == NULL) {
        return NGX_OK;
    }

    rs->ready = ready;
    rs->data = data;

    return NGX_AGAIN;
}


/* what the resolver knows by heart it tells before this returns */

static void
ngx_pgq_resolve_begin(ngx_pgq_resolve_t *rs)
{
    ngx_resolver_ctx_t  *ctx;

    ctx = ngx_resolve_start(rs->resolver, NULL);

    if (ctx == NULL || ctx == NGX_NO_RESOLVER) {
        return;
    }

    ctx->name.data = (u_char *) rs->host->name;
    ctx->name.len = ngx_strlen(rs->host->name);
    ctx->handler = ngx_pgq_resolve_handler;
    ctx->data = rs;
    ctx->timeout = rs->timeout;
    ctx->cancelable = 1;

    rs->since = ngx_current_msec;
    rs->under_way = ctx;

    if (ngx_resolve_name(ctx) != NGX_OK) {
        rs->under_way = NULL;
    }
}


void
ngx_pgq_resolve_leave(ngx_pgq_resolve_t *rs)
{
    rs->ready = NULL;
}


/* how long the look-up has been under way */

ngx_msec_t
ngx_pgq_resolve_since(ngx_pgq_resolve_t *rs)
{
    return ngx_current_msec - rs->since;
}


/* what came of it, in words */

const char *
ngx_pgq_resolve_state(ngx_pgq_resolve_t *rs)
{
    return rs->under_way ? "no answer yet" : ngx_resolver_strerror(rs->state);
}


static void
ngx_pgq_resolve_handler(ngx_resolver_ctx_t *ctx)
{
    ngx_int_t            former;
    ngx_pgq_resolve_t   *rs;
    ngx_pgq_resolve_pt   ready;

    rs = ctx->data;
    former = rs->state;
    rs->state = ctx->state;

    if (ctx->state == NGX_OK) {
        ngx_pgq_resolve_learn(rs, ctx);

    } else if (former != ctx->state && rs->host->naddresses) {
        ngx_log_error(NGX_LOG_WARN, rs->log, 0,
                      "pgq resolve: \"%s\": %s, its last addresses stay",
                      rs->host->name, ngx_resolver_strerror(ctx->state));
    }

    ngx_resolve_name_done(ctx);
    rs->under_way = NULL;

    ready = rs->ready;
    rs->ready = NULL;

    if (ready) {
        ready(rs->data);
    }
}


static void
ngx_pgq_resolve_learn(ngx_pgq_resolve_t *rs, ngx_resolver_ctx_t *ctx)
{
    ngx_uint_t         i;
    ngx_pgq_address_t  addresses[NGX_PGQ_MAX_ADDRESSES];

    for (i = 0; i < ctx->naddrs && i < NGX_PGQ_MAX_ADDRESSES; i++) {
        ngx_pgq_target_print(addresses[i], ctx->addrs[i].sockaddr,
                             ctx->addrs[i].socklen);
    }

    if (ngx_pgq_target_learn(rs->target, rs->host, addresses, i)) {
        ngx_pgq_resolve_tell(rs);
    }
}


static void
ngx_pgq_resolve_tell(ngx_pgq_resolve_t *rs)
{
    u_char      *p, *last;
    u_char       text[NGX_PGQ_MAX_ADDRESSES * (NGX_PGQ_ADDRESS_LEN + 2)];
    ngx_uint_t   i;

    p = text;
    last = text + sizeof(text);

    for (i = 0; i < rs->host->naddresses; i++) {
        p = ngx_slprintf(p, last, "%s%s", i ? ", " : "",
                         rs->host->addresses[i]);
    }

    ngx_log_error(NGX_LOG_NOTICE, rs->log, 0, "pgq resolve: \"%s\" is %*s",
                  rs->host->name, (size_t) (p - text), text);
}
