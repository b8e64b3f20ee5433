/* SPDX-License-Identifier: PostgreSQL */
/*
 * disk.c
 *	  Refuses messages before the server's disks are full.
 *
 * Owns nothing.  ngx_pgq_disk_expect() is called before messages are written
 * to the queue.
 *
 * - A full disk under pg_wal ends the server, and what fills it need not be
 *	 ours.  With ngx_pgq.min_free_space set, enqueue and its kin raise
 *	 disk_full (53100) while less is free, and what is waiting can still be
 *	 moved.  A batch that was taken before is recognised all the same: it is
 *	 found before anything is written.
 * - The file systems of base and pg_wal are asked, not those of tablespaces.
 *	 What cannot be asked does not refuse anything.
 */
#include "postgres.h"

#include <sys/statvfs.h>

#include "ngx_pgq.h"

/* Relative to the data directory, which is where a backend works. */
static const char *const places[] = {"base", "pg_wal"};

static bool
disk_is_short(const char *place)
{
	struct statvfs disk;

	return statvfs(place, &disk) == 0 &&
		(uint64) disk.f_bavail * disk.f_frsize <
		(uint64) ngx_pgq_min_free_space * 1024 * 1024;
}

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
