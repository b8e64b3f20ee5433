/* SPDX-License-Identifier: PostgreSQL */
/*
 * ngx_pgq.c
 *	  The face of ngx_pgq: what happens when the server loads the library.
 *
 * _PG_init is called once by the postmaster when the library is preloaded, and
 * once by each backend that meets it otherwise.
 *
 * - Shared memory and movers exist only when the library is preloaded; without
 *	 it enqueue() and slot() still work, so that a dump can be restored
 *	 anywhere, and messages wait in the queue.
 * - Nothing runs during pg_upgrade.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "ngx_pgq.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	ngx_pgq_settings_define();

	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;

	ngx_pgq_shmem_install();
	ngx_pgq_utility_hook_install();
	ngx_pgq_launcher_register();
}
