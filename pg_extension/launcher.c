/* SPDX-License-Identifier: PostgreSQL */
/*
 * launcher.c
 *	  The launcher: sees to it that each database has the movers it should.
 *
 * A static background worker, started when the server leaves recovery and
 * connected to no database.  Owns the entries of the databases in shared
 * memory and a handle for each mover it has started.
 *
 * - What should run comes from the settings, what can run from pg_database
 *	 and pg_authid: no mover is started for a database or a role that is not
 *	 there, it is looked for again after 1 s, then 2 s, up to 30 s.
 * - A mover that ends is started again, after a pause that doubles each time
 *	 it ended soon after its start.
 * - An entry is given to another database only when its last mover is gone.
 * - While a transaction holds a database (see utility_hook.c), no mover runs in
 *	 it.
 * - When the launcher ends, it stops its movers; the next one starts with
 *	 clean handles, and waits for movers still on their way out.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "fault.h"
#include "ngx_pgq.h"

#define RESTART_SEC		5		/* after the launcher itself ended */
#define SECOND			INT64CONST(1000000)
#define BACKOFF_MIN		SECOND
#define BACKOFF_MAX		(30 * SECOND)
#define LOOK			(30 * SECOND)	/* between looks, when all is well */
#define SETTLED			(10 * SECOND)	/* who lived as long starts at once */
#define NEVER			PG_INT64_MAX

/* A mover as the launcher sees it. */
typedef struct Start
{
	BackgroundWorkerHandle *handle; /* NULL: not running */
	bool		stopping;
	int64		settled_at;		/* ngx_pgq_clock(), as are all times here */
	int64		not_before;
	int64		backoff;
} Start;

/* A database as the launcher sees it; same index as in shared memory. */
typedef struct Wanted
{
	bool		wanted;			/* the settings name it */
	bool		there;			/* and so do pg_database and pg_authid */
	const char *reported;		/* what was said to be missing */
	int64		look_after;
	int64		backoff;
	Start		start[NGX_PGQ_MOVERS];
} Wanted;

static Wanted wanted[NGX_PGQ_DATABASES];
static bool full_reported = false;	/* no worker slot was free */
static bool crowded = false;	/* a database found no entry */

/* A worker of this kind, whose main function is ngx_pgq_<kind>_main(). */
static BackgroundWorker
launcher_worker(const char *kind, int restart_time)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = restart_time;
	snprintf(worker.bgw_name, BGW_MAXLEN, "ngx_pgq %s", kind);
	snprintf(worker.bgw_type, BGW_MAXLEN, "ngx_pgq %s", kind);
	strlcpy(worker.bgw_library_name, "ngx_pgq", BGW_MAXLEN);
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "ngx_pgq_%s_main", kind);
	return worker;
}

void
ngx_pgq_launcher_register(void)
{
	BackgroundWorker worker = launcher_worker("launcher", RESTART_SEC);

	RegisterBackgroundWorker(&worker);
}

/*
 * Have the launcher look at all databases now: what is there has changed, or
 * who holds what.  Must not raise: called after commit.
 */
void
ngx_pgq_launcher_look(void)
{
	uint32		launcher;

	pg_atomic_exchange_u32(&ngx_pgq_shmem->look, 1);
	launcher = pg_atomic_read_u32(&ngx_pgq_shmem->launcher);
	if (launcher > 0)
		SetLatch(&GetPGProcByNumber(launcher - 1)->procLatch);
}

static void
launcher_pause_doubled(int64 *until, int64 *backoff)
{
	*until = ngx_pgq_clock() + *backoff;
	*backoff = Min(*backoff * 2, BACKOFF_MAX);
}

/*
 * The oid of the row of a shared catalog whose name this is; InvalidOid if
 * there is none.  Without a database there are no catalog caches and no index
 * to use, hence the scan.
 */
static Oid
launcher_find_shared(Oid catalog, AttrNumber name_column,
					 AttrNumber oid_column, const char *name)
{
	Relation	rel = table_open(catalog, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			oid = InvalidOid;
	NameData	wanted_name;

	namestrcpy(&wanted_name, name);
	ScanKeyInit(&key, name_column, BTEqualStrategyNumber, F_NAMEEQ,
				NameGetDatum(&wanted_name));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;

		oid = DatumGetObjectId(heap_getattr(tuple, oid_column,
											RelationGetDescr(rel), &isnull));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return oid;
}

/* What keeps movers of this database from starting; NULL if nothing does. */
static const char *
launcher_missing(const char *name, Oid *oid)
{
	const char *what = NULL;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	*oid = launcher_find_shared(DatabaseRelationId, Anum_pg_database_datname,
								Anum_pg_database_oid, name);
	if (!OidIsValid(*oid))
		what = "the database";
	else if (!OidIsValid(launcher_find_shared(AuthIdRelationId,
											  Anum_pg_authid_rolname,
											  Anum_pg_authid_oid,
											  ngx_pgq_role)))
		what = "the role";
	CommitTransactionCommand();
	return what;
}

/* The entry of a database, or a free one; -1 if there is none. */
static int
launcher_find_entry(const char *name)
{
	for (int d = 0; d < NGX_PGQ_DATABASES; d++)
	{
		if (strcmp(ngx_pgq_shmem->database[d].name, name) == 0)
			return d;
	}
	return -1;
}

/* Look at all databases now. */
static void
launcher_look_again(void)
{
	for (int d = 0; d < NGX_PGQ_DATABASES; d++)
	{
		wanted[d].look_after = 0;
		wanted[d].backoff = BACKOFF_MIN;
	}
}

/* The entry for a database: its own, or a free one; -1 if there is none. */
static int
launcher_take_entry(const char *name)
{
	int			d = launcher_find_entry(name);

	if (d < 0 && (d = launcher_find_entry("")) >= 0)
	{
		LWLockAcquire(ngx_pgq_shmem->lock, LW_EXCLUSIVE);
		ngx_pgq_shmem_database_assign(&ngx_pgq_shmem->database[d], name);
		LWLockRelease(ngx_pgq_shmem->lock);
	}
	return d;
}

/* Apply the settings.  All back-offs start again at their minimum. */
static void
launcher_read_settings(void)
{
	char	   *raw = pstrdup(ngx_pgq_databases);
	ListCell   *cell;

	crowded = false;
	launcher_look_again();
	for (int d = 0; d < NGX_PGQ_DATABASES; d++)
	{
		wanted[d].wanted = false;
		for (int m = 0; m < NGX_PGQ_MOVERS; m++)
		{
			wanted[d].start[m].not_before = 0;
			wanted[d].start[m].backoff = BACKOFF_MIN;
		}
	}
	foreach(cell, ngx_pgq_settings_database_names(raw))
	{
		char	   *name = lfirst(cell);
		int			d = launcher_take_entry(name);

		if (d >= 0)
		{
			wanted[d].wanted = true;
			continue;
		}
		ereport(LOG,
				(errmsg("ngx_pgq launcher: no room for database \"%s\" until movers of another have ended",
						name)));
		crowded = true;
	}
}

/* Have the status say why movers that should run do not. */
static void
launcher_say_not_started(int d, int first, int last, const char *why)
{
	for (int m = first; m <= last; m++)
	{
		NgxPgqMover *mover = &ngx_pgq_shmem->database[d].mover[m];

		if (wanted[d].start[m].handle || pg_atomic_read_u32(&mover->pid))
			continue;
		ngx_pgq_shmem_mover_error(mover, why);
		pg_atomic_exchange_u32(&mover->state, NGX_PGQ_FAILED);
	}
}

/*
 * Another database has this name now, or none.  Nobody has told us of what is
 * in the queue of this one; errors and a pause were the other's.
 */
static void
launcher_begin_anew(NgxPgqDatabase *database)
{
	pg_atomic_exchange_u32(&database->paused, 0);
	for (int m = 0; m < NGX_PGQ_MOVERS; m++)
		ngx_pgq_shmem_mover_error(&database->mover[m], "");
	pg_atomic_exchange_u32(&database->blind, 1);
	pg_atomic_exchange_u32(&database->wake, 1);
}

/* Look whether a database and the movers' role are there. */
static void
launcher_look_at(int d)
{
	NgxPgqDatabase *database = &ngx_pgq_shmem->database[d];
	Wanted	   *want = &wanted[d];
	Oid			oid;
	const char *what = launcher_missing(database->name, &oid);
	const char *name = OidIsValid(oid) ? ngx_pgq_role : database->name;

	if (what && what != want->reported)
		ereport(LOG,
				(errmsg("ngx_pgq launcher: no movers for database \"%s\": %s \"%s\" does not exist",
						database->name, what, name)));
	else if (!what && want->reported)
		ereport(LOG,
				(errmsg("ngx_pgq launcher: database \"%s\" and role \"%s\" are there now",
						database->name, ngx_pgq_role)));
	want->reported = what;
	want->there = what == NULL;
	if (pg_atomic_exchange_u32(&database->oid, oid) != oid)
		launcher_begin_anew(database);
	if (what)
		launcher_say_not_started(d, 0, ngx_pgq_movers - 1,
								 psprintf("%s \"%s\" does not exist", what, name));
	if (want->there)
	{
		want->backoff = BACKOFF_MIN;
		want->look_after = ngx_pgq_clock() + LOOK;
	}
	else
		launcher_pause_doubled(&want->look_after, &want->backoff);
}

static void
launcher_start_mover(int d, int m)
{
	NgxPgqDatabase *database = &ngx_pgq_shmem->database[d];
	Start	   *start = &wanted[d].start[m];
	BackgroundWorker worker = launcher_worker("mover", BGW_NEVER_RESTART);
	MemoryContext context;

	worker.bgw_main_arg = Int32GetDatum(d * NGX_PGQ_MOVERS + m);
	worker.bgw_notify_pid = MyProcPid;
	snprintf(worker.bgw_name, BGW_MAXLEN, "ngx_pgq mover %d of %s",
			 m + 1, database->name);

	NGX_PGQ_FAULT("mover-wanted");
	context = MemoryContextSwitchTo(TopMemoryContext);
	if (RegisterDynamicBackgroundWorker(&worker, &start->handle))
	{
		start->settled_at = ngx_pgq_clock() + SETTLED;
		start->stopping = false;
		full_reported = false;
	}
	else
	{
		start->handle = NULL;
		if (!full_reported)
			ereport(LOG,
					(errmsg("ngx_pgq launcher: no free worker slot for mover %d of database \"%s\"",
							m + 1, database->name),
					 errhint("You may need to increase max_worker_processes.")));
		full_reported = true;
		launcher_say_not_started(d, m, m,
								 "no worker slot is free, see max_worker_processes");
		launcher_pause_doubled(&start->not_before, &start->backoff);
	}
	MemoryContextSwitchTo(context);
}

/* Notice a mover that has ended; true if we did not ask it to. */
static bool
launcher_reap(Start *start)
{
	pid_t		pid;

	if (start->handle == NULL ||
		GetBackgroundWorkerPid(start->handle, &pid) != BGWH_STOPPED)
		return false;
	pfree(start->handle);
	start->handle = NULL;
	if (start->stopping || ngx_pgq_clock() >= start->settled_at)
	{
		start->backoff = BACKOFF_MIN;
		start->not_before = 0;
	}
	else
		launcher_pause_doubled(&start->not_before, &start->backoff);
	return !start->stopping;
}

/* Start or stop one mover, if need be; returns when to look again. */
static int64
launcher_tend_mover(int d, int m, bool should_run, int64 now)
{
	Start	   *start = &wanted[d].start[m];

	if (start->handle && !should_run && !start->stopping)
	{
		TerminateBackgroundWorker(start->handle);
		start->stopping = true;
	}
	if (start->handle || !should_run)
		return NEVER;
	if (start->not_before <= now)
	{
		/* one of an earlier launcher may still be on its way out */
		if (pg_atomic_read_u32(&ngx_pgq_shmem->database[d].mover[m].pid))
			launcher_pause_doubled(&start->not_before, &start->backoff);
		else
			launcher_start_mover(d, m);
	}
	return start->handle ? NEVER : start->not_before;
}

/* Free the entry of a database without movers, unless it is held. */
static void
launcher_free_entry(int d)
{
	NgxPgqDatabase *database = &ngx_pgq_shmem->database[d];

	LWLockAcquire(ngx_pgq_shmem->lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u32(&database->holds) == 0)
	{
		ngx_pgq_shmem_database_assign(database, "");
		memset(&wanted[d], 0, sizeof(wanted[d]));
	}
	LWLockRelease(ngx_pgq_shmem->lock);
	if (crowded && database->name[0] == '\0')
		launcher_read_settings();
}

/* A mover that is not to run any more did not fail. */
static void
launcher_forget_failure(int d, int m)
{
	uint32		failed = NGX_PGQ_FAILED;

	(void) pg_atomic_compare_exchange_u32(&ngx_pgq_shmem->database[d].mover[m].state,
										  &failed, NGX_PGQ_STOPPED);
}

/* Bring one database to what it should be; returns when to look again. */
static int64
launcher_tend(int d)
{
	NgxPgqDatabase *database = &ngx_pgq_shmem->database[d];
	Wanted	   *want = &wanted[d];
	int64		now = ngx_pgq_clock();
	int64		next = NEVER;
	bool		held = pg_atomic_read_u32(&database->holds) > 0;
	bool		busy = false;

	if (database->name[0] == '\0')
		return next;
	for (int m = 0; m < NGX_PGQ_MOVERS; m++)
	{
		/* the database may have gone */
		if (launcher_reap(&want->start[m]))
			want->look_after = 0;
	}
	if (want->wanted && want->look_after <= now)
		launcher_look_at(d);
	for (int m = 0; m < NGX_PGQ_MOVERS; m++)
	{
		bool		should_run = want->wanted && want->there && !held &&
		m < ngx_pgq_movers;
		int64		due = launcher_tend_mover(d, m, should_run, now);

		next = Min(next, due);
		busy |= want->start[m].handle != NULL;
		if (m >= ngx_pgq_movers)
			launcher_forget_failure(d, m);
	}
	if (want->wanted)
		return Min(next, want->look_after);
	if (!busy)
		launcher_free_entry(d);
	return next;
}

static void
launcher_stop_movers(int code, Datum arg)
{
	pg_atomic_write_u32(&ngx_pgq_shmem->launcher, 0);
	for (int d = 0; d < NGX_PGQ_DATABASES; d++)
	{
		for (int m = 0; m < NGX_PGQ_MOVERS; m++)
		{
			if (wanted[d].start[m].handle)
				TerminateBackgroundWorker(wanted[d].start[m].handle);
		}
	}
}

static void
launcher_sleep_until(int64 next)
{
	static uint32 wait_event = 0;
	int64		wait = Min(Max(next - ngx_pgq_clock(), 1), LOOK);

	ngx_pgq_wake_wait((wait + 999) / 1000, &wait_event, "NgxPgqLauncherMain");
}

void
ngx_pgq_launcher_main(Datum arg)
{
	MemoryContext context;

	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, SIG_IGN);	/* there is nothing to cancel */
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	SetConfigOption("application_name", MyBgworkerEntry->bgw_name,
					PGC_USERSET, PGC_S_SESSION);
	before_shmem_exit(launcher_stop_movers, (Datum) 0);
	pg_atomic_write_u32(&ngx_pgq_shmem->launcher,
						ngx_pgq_my_proc_number() + 1);

	context = AllocSetContextCreate(TopMemoryContext, "ngx_pgq launcher",
									ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	launcher_read_settings();

	for (;;)
	{
		int64		next = NEVER;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			launcher_read_settings();
		}
		if (pg_atomic_exchange_u32(&ngx_pgq_shmem->look, 0))
			launcher_look_again();
		for (int d = 0; d < NGX_PGQ_DATABASES; d++)
		{
			int64		due = launcher_tend(d);

			next = Min(next, due);
		}
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		launcher_sleep_until(next);
	}
}
