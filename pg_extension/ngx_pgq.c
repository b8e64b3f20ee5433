/* SPDX-License-Identifier: PostgreSQL */
/*
 * ngx_pgq.c
 *	  _PG_init(): what happens when the server loads the library.
 *
 * - If the library is not preloaded, there is no shared memory and there are
 *	 no movers.  enqueue() and slot() still work, so that a dump can be
 *	 restored on any server; messages wait in the queue.
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
