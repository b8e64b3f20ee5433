/* SPDX-License-Identifier: PostgreSQL */

/*
 * The look-ups of host names at run time, by nginx's resolver.
 */

#ifndef NGX_PGQ_RESOLVE_H
#define NGX_PGQ_RESOLVE_H


#include "ngx_pgq_target.h"


typedef struct {
    ngx_queue_t              queue;
    void                   (*ready)(void *data);    /* NULL: does not wait */
    void                    *data;
} ngx_pgq_resolve_waiter_t;


ngx_int_t ngx_pgq_resolve_names(ngx_conf_t *cf, ngx_pgq_target_t *target,
    ngx_str_t *name, ngx_resolver_t *resolver, ngx_msec_t timeout);
ngx_int_t ngx_pgq_resolve_ask(ngx_pgq_resolve_t *rs, ngx_log_t *log,
    ngx_pgq_resolve_waiter_t *waiter, void (*ready)(void *data), void *data);
void ngx_pgq_resolve_leave(ngx_pgq_resolve_waiter_t *waiter);
ngx_msec_t ngx_pgq_resolve_elapsed(ngx_pgq_resolve_t *rs);
const char *ngx_pgq_resolve_state(ngx_pgq_resolve_t *rs);


#endif /* NGX_PGQ_RESOLVE_H */
