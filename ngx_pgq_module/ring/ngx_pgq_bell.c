/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the bells, which are eventfds.  The master creates them, so that all
 * workers inherit all of them; it keeps them over reloads.  The bell of a
 * worker has the number of its process slot.
 *
 * Invariants:
 *  - a worker whose slot has no bell has one that no worker can ring.  A
 *    worker that has no descriptor or connection for it has none.  Both notice
 *    changes, and the latter its exit, by their timers;
 *  - the bell's connection is marked idle, so that nginx calls its handler
 *    when a graceful exit begins.  It does not keep the worker from exiting;
 *  - only the worker with the slot reads a bell.
 */

#include "ngx_pgq_bell.h"

#include <sys/eventfd.h>


#define NGX_PGQ_BELL_MIN         16
#define NGX_PGQ_BELL_WORKERS     4      /* bells for each worker: old ones */


static void ngx_pgq_bell_event_handler(ngx_event_t *rev);


static int                ngx_pgq_bells[NGX_MAX_PROCESSES];
static ngx_uint_t         ngx_pgq_bell_number;
static ngx_connection_t  *ngx_pgq_bell_connection;
static void             (*ngx_pgq_bell_handler)(void);


void
ngx_pgq_bell_create(ngx_cycle_t *cycle)
{
    int               fd;
    ngx_uint_t        number;
    ngx_core_conf_t  *ccf;

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    number = ngx_max(NGX_PGQ_BELL_WORKERS * ccf->worker_processes,
                     NGX_PGQ_BELL_MIN);
    number = ngx_min(number, NGX_MAX_PROCESSES);

    while (ngx_pgq_bell_number < number) {
        fd = eventfd(0, EFD_NONBLOCK|EFD_CLOEXEC);

        if (fd == -1) {
            ngx_log_error(NGX_LOG_ERR, cycle->log, ngx_errno,
                          "pgq ring: eventfd() failed, %ui of %ui bells",
                          ngx_pgq_bell_number, number);
            return;
        }

        ngx_pgq_bells[ngx_pgq_bell_number++] = fd;
    }
}


void
ngx_pgq_bell_open(ngx_cycle_t *cycle, void (*handler)(void))
{
    int                fd;
    ngx_connection_t  *c;

    if ((ngx_uint_t) ngx_process_slot < ngx_pgq_bell_number) {
        fd = ngx_pgq_bells[ngx_process_slot];

    } else {
        fd = eventfd(0, EFD_NONBLOCK|EFD_CLOEXEC);
    }

    c = fd == -1 ? NULL : ngx_get_connection(fd, cycle->log);
    if (c == NULL) {
        ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                      "pgq ring: no bell, this worker notices new posts by"
                      " polls");
        return;
    }

    c->shared = 1;    /* the socket is not closed with it */
    c->idle = 1;
    c->read->handler = ngx_pgq_bell_event_handler;
    c->read->log = cycle->log;
    c->write->log = cycle->log;

    ngx_pgq_bell_connection = c;
    ngx_pgq_bell_handler = handler;

    (void) ngx_add_event(c->read, NGX_READ_EVENT, NGX_LEVEL_EVENT);
}


void
ngx_pgq_bell_close(void)
{
    if (ngx_pgq_bell_connection) {
        ngx_del_event(ngx_pgq_bell_connection->read, NGX_READ_EVENT, 0);
        ngx_close_connection(ngx_pgq_bell_connection);
        ngx_pgq_bell_connection = NULL;
    }
}


ngx_uint_t
ngx_pgq_bell_count(void)
{
    return ngx_pgq_bell_number;
}


void
ngx_pgq_bell_ring(ngx_uint_t slot)
{
    uint64_t  one = 1;

    if (slot < ngx_pgq_bell_number) {
        /* it can only fail if the counter is full: the bell has been rung */
        (void) !write(ngx_pgq_bells[slot], &one, sizeof(one));
    }
}


static void
ngx_pgq_bell_event_handler(ngx_event_t *rev)
{
    uint64_t           n;
    ngx_connection_t  *c;

    c = rev->data;

    (void) !read(c->fd, &n, sizeof(n));

    ngx_pgq_bell_handler();
}
