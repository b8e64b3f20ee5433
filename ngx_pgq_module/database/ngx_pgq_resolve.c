/* SPDX-License-Identifier: PostgreSQL */

/*
 * A resolve looks up the name of one host of a target by nginx's resolver,
 * once at a time in each worker.  Its memory belongs to the configuration.
 * Several lanes can wait for one look-up, for a target belongs to several
 * pools: those of POSTs, of GETs and of the follower.
 *
 * Invariants:
 *  - nothing here blocks: the answer is an event, or is in the cache of
 *    nginx's resolver;
 *  - a look-up continues when no lane waits for it any more: the next attempt
 *    to connect uses its result;
 *  - a look-up that fails removes no address;
 *  - a change of the addresses, and the first failure, are logged.
 */

#include "ngx_pgq_resolve.h"


struct ngx_pgq_resolve_s {
    ngx_pgq_target_t         *target;
    ngx_pgq_host_t           *host;
    ngx_resolver_t           *resolver;
    ngx_msec_t                timeout;

    ngx_log_t                *log;
    ngx_resolver_ctx_t       *running;      /* look-up in progress, or NULL */
    ngx_msec_t                started_at;
    ngx_int_t                 state;        /* result of the last look-up */
    ngx_queue_t               waiters;
};


static void ngx_pgq_resolve_begin(ngx_pgq_resolve_t *rs);
static void ngx_pgq_resolve_handler(ngx_resolver_ctx_t *ctx);
static void ngx_pgq_resolve_update(ngx_pgq_resolve_t *rs,
    ngx_resolver_ctx_t *ctx);


/*
 * Called when all of http{} has been read.  Without a resolver, and for
 * "localhost", names are looked up now, by the system.
 */

ngx_int_t
ngx_pgq_resolve_names(ngx_conf_t *cf, ngx_pgq_target_t *target,
    ngx_str_t *name, ngx_resolver_t *resolver, ngx_msec_t timeout)
{
    ngx_uint_t          i;
    ngx_pgq_host_t     *hosts;
    ngx_pgq_resolve_t  *rs;

    hosts = target->hosts.elts;

    for (i = 0; i < target->hosts.nelts; i++) {

        if (!hosts[i].named) {
            continue;
        }

        if (resolver == NULL || ngx_strcasecmp((u_char *) hosts[i].name,
                                               (u_char *) "localhost") == 0)
        {
            if (ngx_pgq_target_lookup(cf, &hosts[i], name) != NGX_OK) {
                return NGX_ERROR;
            }

            continue;
        }

        rs = ngx_pcalloc(cf->pool, sizeof(ngx_pgq_resolve_t));
        if (rs == NULL) {
            return NGX_ERROR;
        }

        rs->target = target;
        rs->host = &hosts[i];
        rs->resolver = resolver;
        rs->timeout = timeout;
        ngx_queue_init(&rs->waiters);

        hosts[i].resolve = rs;
    }

    return NGX_OK;
}


/*
 * NGX_AGAIN: ready() will be called once, unless ngx_pgq_resolve_leave() is
 * called before.  NGX_OK: the look-up has ended or could not start.  The
 * waiter must not be waiting.
 */

ngx_int_t
ngx_pgq_resolve_ask(ngx_pgq_resolve_t *rs, ngx_log_t *log,
    ngx_pgq_resolve_waiter_t *waiter, void (*ready)(void *data), void *data)
{
    rs->log = log;

    if (rs->running == NULL) {
        ngx_pgq_resolve_begin(rs);
    }

    if (rs->running == NULL) {
        return NGX_OK;
    }

    waiter->ready = ready;
    waiter->data = data;
    ngx_queue_insert_tail(&rs->waiters, &waiter->queue);

    return NGX_AGAIN;
}


/* starts a look-up; a cached answer calls the handler at once */

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

    rs->started_at = ngx_current_msec;
    rs->running = ctx;

    if (ngx_resolve_name(ctx) != NGX_OK) {
        rs->running = NULL;
    }
}


void
ngx_pgq_resolve_leave(ngx_pgq_resolve_waiter_t *waiter)
{
    if (waiter->ready) {
        ngx_queue_remove(&waiter->queue);
        waiter->ready = NULL;
    }
}


ngx_msec_t
ngx_pgq_resolve_elapsed(ngx_pgq_resolve_t *rs)
{
    return ngx_current_msec - rs->started_at;
}


const char *
ngx_pgq_resolve_state(ngx_pgq_resolve_t *rs)
{
    return rs->running ? "no answer yet" : ngx_resolver_strerror(rs->state);
}


static void
ngx_pgq_resolve_handler(ngx_resolver_ctx_t *ctx)
{
    void                     (*ready)(void *data);
    ngx_int_t                  previous;
    ngx_queue_t                waiters;
    ngx_pgq_resolve_t         *rs;
    ngx_pgq_resolve_waiter_t  *waiter;

    rs = ctx->data;
    previous = rs->state;
    rs->state = ctx->state;

    if (ctx->state == NGX_OK) {
        ngx_pgq_resolve_update(rs, ctx);

    } else if (previous != ctx->state && rs->host->naddresses) {
        ngx_log_error(NGX_LOG_WARN, rs->log, 0,
                      "pgq resolve: \"%s\": %s, keeping its last addresses",
                      rs->host->name, ngx_resolver_strerror(ctx->state));
    }

    ngx_resolve_name_done(ctx);
    rs->running = NULL;

    /* those that wait from now on wait for the next look-up */

    ngx_queue_init(&waiters);
    ngx_queue_add(&waiters, &rs->waiters);
    ngx_queue_init(&rs->waiters);

    while (!ngx_queue_empty(&waiters)) {
        waiter = ngx_queue_data(ngx_queue_head(&waiters),
                                ngx_pgq_resolve_waiter_t, queue);
        ready = waiter->ready;
        ngx_pgq_resolve_leave(waiter);
        ready(waiter->data);
    }
}


static void
ngx_pgq_resolve_update(ngx_pgq_resolve_t *rs, ngx_resolver_ctx_t *ctx)
{
    u_char            *p, *last;
    u_char             text[NGX_PGQ_MAX_ADDRESSES * (NGX_PGQ_ADDRESS_LEN + 2)];
    ngx_uint_t         i;
    ngx_pgq_address_t  addresses[NGX_PGQ_MAX_ADDRESSES];

    for (i = 0; i < ctx->naddrs && i < NGX_PGQ_MAX_ADDRESSES; i++) {
        ngx_pgq_target_print(addresses[i], ctx->addrs[i].sockaddr,
                             ctx->addrs[i].socklen);
    }

    if (!ngx_pgq_target_update(rs->target, rs->host, addresses, i)) {
        return;
    }

    p = text;
    last = text + sizeof(text);

    for (i = 0; i < rs->host->naddresses; i++) {
        p = ngx_slprintf(p, last, "%s%s", i ? ", " : "",
                         rs->host->addresses[i]);
    }

    ngx_log_error(NGX_LOG_NOTICE, rs->log, 0, "pgq resolve: \"%s\" is %*s",
                  rs->host->name, (size_t) (p - text), text);
}
