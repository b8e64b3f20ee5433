/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "target": where a pool's database is.  Made from a conninfo string
 * at configuration time, when the environment, a service file and blocking
 * name look-ups are still at hand; afterwards libpq is told addresses only.
 */

#ifndef NGX_PGQ_TARGET_H
#define NGX_PGQ_TARGET_H


#include <ngx_config.h>
#include <ngx_core.h>


typedef struct {
    char                    *host;      /* a name, or a socket's directory */
    char                    *hostaddr;  /* NULL for a socket's directory */
    char                    *port;
} ngx_pgq_endpoint_t;


struct ngx_pgq_target_s {
    ngx_array_t              endpoints; /* ngx_pgq_endpoint_t */
    /* everything but host, hostaddr and port; the last keyword is NULL and
       three places before it are kept free for them */
    const char             **keywords;
    const char             **values;
    ngx_uint_t               nfixed;
    ngx_uint_t               current;   /* the endpoint that answered last */
};


struct ngx_pgq_target_s *ngx_pgq_target_create(ngx_conf_t *cf,
    ngx_str_t *conninfo, ngx_str_t *pool);
ngx_pgq_endpoint_t *ngx_pgq_target_aim(struct ngx_pgq_target_s *target);
void ngx_pgq_target_miss(struct ngx_pgq_target_s *target,
    ngx_pgq_endpoint_t *endpoint);


#endif /* NGX_PGQ_TARGET_H */
