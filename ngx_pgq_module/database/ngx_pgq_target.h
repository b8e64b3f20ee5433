/* SPDX-License-Identifier: PostgreSQL */

/*
 * A target is the hosts of a conninfo.  A host has the address that the
 * conninfo gives, or the addresses of its name, which is looked up when the
 * configuration is read or, if there is a resolver, while nginx runs.
 */

#ifndef NGX_PGQ_TARGET_H
#define NGX_PGQ_TARGET_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_pgq_conninfo.h"
#include "ngx_pgq_module.h"


#define NGX_PGQ_ADDRESS_LEN      64      /* text of an address, with a scope */
#define NGX_PGQ_MAX_ADDRESSES    16      /* of one name; more are ignored */


typedef char                       ngx_pgq_address_t[NGX_PGQ_ADDRESS_LEN];
typedef struct ngx_pgq_resolve_s   ngx_pgq_resolve_t;


typedef struct {
    char                    *name;      /* host name or socket directory */
    char                    *port;
    char                    *password;  /* NULL: none */
    ngx_pgq_address_t       *addresses; /* "" for a socket's directory */
    ngx_uint_t               naddresses;
    ngx_pgq_resolve_t       *resolve;   /* NULL: no look-up at run time */
    unsigned                 named:1;   /* the name has to be looked up */
} ngx_pgq_host_t;


typedef struct {
    ngx_pgq_host_t          *host;
    ngx_pgq_address_t        address;
} ngx_pgq_endpoint_t;


struct ngx_pgq_target_s {
    ngx_pgq_conninfo_t       conninfo;
    ngx_array_t              hosts;     /* ngx_pgq_host_t */
    /* indexes of the current endpoint */
    ngx_uint_t               host;
    ngx_uint_t               address;
};


ngx_pgq_target_t *ngx_pgq_target_create(ngx_conf_t *cf, ngx_str_t *conninfo,
    ngx_str_t *name);
ngx_int_t ngx_pgq_target_verify(ngx_conf_t *cf, ngx_pgq_target_t *target,
    ngx_str_t *name);
ngx_int_t ngx_pgq_target_lookup(ngx_conf_t *cf, ngx_pgq_host_t *host,
    ngx_str_t *name);
ngx_int_t ngx_pgq_target_current(ngx_pgq_target_t *target,
    ngx_pgq_endpoint_t *endpoint);
void ngx_pgq_target_failed(ngx_pgq_target_t *target,
    ngx_pgq_endpoint_t *endpoint);
ngx_uint_t ngx_pgq_target_endpoints(ngx_pgq_target_t *target);
ngx_uint_t ngx_pgq_target_update(ngx_pgq_target_t *target,
    ngx_pgq_host_t *host, ngx_pgq_address_t *addresses, ngx_uint_t n);
void ngx_pgq_target_print(char *text, struct sockaddr *sockaddr,
    socklen_t socklen);


#endif /* NGX_PGQ_TARGET_H */
