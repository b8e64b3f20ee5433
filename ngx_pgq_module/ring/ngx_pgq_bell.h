/* SPDX-License-Identifier: PostgreSQL */

/*
 * Each worker has a bell, which other workers ring to wake it up.  A ring has
 * no payload; several may be noticed as one.
 */

#ifndef NGX_PGQ_BELL_H
#define NGX_PGQ_BELL_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>


/* in the master, before workers start; without descriptors there are fewer */
void ngx_pgq_bell_create(ngx_cycle_t *cycle);

/*
 * In a worker.  The handler is called from the event loop after a ring, and
 * once with ngx_exiting set when a graceful exit begins.
 */
void ngx_pgq_bell_open(ngx_cycle_t *cycle, void (*handler)(void));
void ngx_pgq_bell_close(void);

/* bells are numbered from 0 */
ngx_uint_t ngx_pgq_bell_count(void);

/* slot: ngx_process_slot of a worker; without a bell, nothing happens */
void ngx_pgq_bell_ring(ngx_uint_t slot);


#endif /* NGX_PGQ_BELL_H */
