/* SPDX-License-Identifier: PostgreSQL */
/*
 * disk.c
 *	  Refusing messages before the server's disks are full.
 *
 * - The server stops when the disk of pg_wal is full.  So while less than
 *	 ngx_pgq.min_free_space is free, the functions that enqueue raise disk_full
 *	 (53100).  Movers continue, and a batch that was enqueued before is still
 *	 recognized.
 * - The file systems of base and pg_wal are checked, not those of tablespaces.
 *	 If statvfs() fails, nothing is refused.
 */
#include "postgres.h"

#include <sys/statvfs.h>

#include "ngx_pgq.h"

/* Relative to the data directory, the working directory of a backend. */
static const char *const directories[] = {"base", "pg_wal"};

/* Raises if a disk is too full.  Call before messages are written. */
void
ngx_pgq_disk_expect(void)
{
	const uint64 needed = (uint64) ngx_pgq_min_free_space * 1024 * 1024;

	if (needed == 0)
		return;
	for (size_t i = 0; i < lengthof(directories); i++)
	{
		struct statvfs disk;

		if (statvfs(directories[i], &disk) == 0 &&
			(uint64) disk.f_bavail * disk.f_frsize < needed)
			ereport(ERROR,
					(errcode(ERRCODE_DISK_FULL),
					 errmsg("cannot enqueue while less than %d MB are free in \"%s\"",
							ngx_pgq_min_free_space, directories[i]),
					 errhint("Free disk space, or lower ngx_pgq.min_free_space.")));
	}
}
