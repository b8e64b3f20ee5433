/* SPDX-License-Identifier: PostgreSQL */
/*
 * disk.c
 *	  Refusing messages before the server's disks are full.
 *
 * Owns nothing.
 *
 * - The server stops when the disk of pg_wal is full.  With
 *	 ngx_pgq.min_free_space set, the functions that enqueue raise disk_full
 *	 (53100) while less is free; the movers go on.  A batch that was enqueued
 *	 before is still recognized, as nothing is written before it is found.
 * - The file systems of base and pg_wal are checked, not those of tablespaces.
 *	 If statvfs() fails, nothing is refused.
 */
#include "postgres.h"

#include <sys/statvfs.h>

#include "ngx_pgq.h"

/* Relative to the data directory, the working directory of a backend. */
static const char *const places[] = {"base", "pg_wal"};

static bool
disk_is_short(const char *place)
{
	struct statvfs disk;

	return statvfs(place, &disk) == 0 &&
		(uint64) disk.f_bavail * disk.f_frsize <
		(uint64) ngx_pgq_min_free_space * 1024 * 1024;
}

/* Raises if a disk is too full.  Call before messages are written. */
void
ngx_pgq_disk_expect(void)
{
	if (ngx_pgq_min_free_space == 0)
		return;
	for (size_t i = 0; i < lengthof(places); i++)
	{
		if (disk_is_short(places[i]))
			ereport(ERROR,
					(errcode(ERRCODE_DISK_FULL),
					 errmsg("cannot enqueue while less than %d MB are free in \"%s\"",
							ngx_pgq_min_free_space, places[i]),
					 errhint("Free disk space, or lower ngx_pgq.min_free_space.")));
	}
}
