/* SPDX-License-Identifier: PostgreSQL */
/*
 * launcher.c
 *	  The launcher: starts and stops the movers of all databases.
 *
 * A static background worker without a database; it starts when recovery ends.
 * Owns the databases' entries in shared memory and a handle for each mover.
 *
 * - If a database of the settings or the role does not exist, no mover is
 *	 started; the launcher checks again after 1 s, then 2 s, up to 30 s.
 * - A mover that exits is started again, with a back-off that doubles each
 *	 time it exits soon after its start.
 * - An entry is reused for another database when its last mover has exited.
 * - While a transaction holds a database (see utility_hook.c), it has no
 *	 movers.
 * - When the launcher exits, it stops its movers.  The next launcher starts
 *	 without handles and waits until these movers have exited.
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

#define RESTART_SEC		5		/* the server restarts it after this time */
#define SECOND			INT64CONST(1000000)
#define BACKOFF_MIN		SECOND
#define BACKOFF_MAX		(30 * SECOND)
#define CHECK_INTERVAL	(30 * SECOND)	/* maximum time between checks */
#define STABLE			(10 * SECOND)	/* run time that ends a back-off */
#define NEVER			PG_INT64_MAX

/* The launcher's state of a mover.  Times are those of ngx_pgq_clock(). */
typedef struct MoverProcess
{
	BackgroundWorkerHandle *handle; /* NULL: the mover does not run */
	bool		stopping;
	int64		stable_at;		/* an exit after this time has no back-off */
	int64		not_before;		/* not started before this time */
	int64		backoff;
} MoverProcess;

/* The launcher's state of a database; same index as in shared memory. */
typedef struct LauncherDatabase
{
	bool		configured;		/* ngx_pgq.databases names it */
	bool		exists;			/* the database and ngx_pgq.role exist */
	const char *reported;		/* what was last logged as missing */
	int64		next_check_at;
	int64		backoff;
	MoverProcess processes[NGX_PGQ_MOVERS];
} LauncherDatabase;

static LauncherDatabase states[NGX_PGQ_DATABASES];
/* The log has a line that no worker slot is free. */
static bool no_slot_reported = false;
static bool entry_missing = false;	/* no entry was free for a database */

/* A worker whose main function is ngx_pgq_<kind>_main(). */
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
 * Make the launcher check all databases: one was created, dropped, held or
 * released.  Called after commit: must not raise.
 */
void
ngx_pgq_launcher_recheck(void)
{
	uint32		launcher;

	pg_atomic_exchange_u32(&ngx_pgq_shmem->databases_changed, 1);
	launcher = pg_atomic_read_u32(&ngx_pgq_shmem->launcher);
	if (launcher > 0)
		SetLatch(&GetPGProcByNumber(launcher - 1)->procLatch);
}

static void
launcher_back_off(int64 *until, int64 *backoff)
{
	*until = ngx_pgq_clock() + *backoff;
	*backoff = Min(*backoff * 2, BACKOFF_MAX);
}

/*
 * The oid of the row with this name in a shared catalog; InvalidOid if there
 * is none.  A process without a database cannot use catalog caches.
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

/* What is missing to start movers of this database; NULL if nothing is. */
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

/* The entry of this name; "" finds a free one.  -1 if there is none. */
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

static void
launcher_recheck(void)
{
	for (int d = 0; d < NGX_PGQ_DATABASES; d++)
	{
		states[d].next_check_at = 0;
		states[d].backoff = BACKOFF_MIN;
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

	entry_missing = false;
	launcher_recheck();
	for (int d = 0; d < NGX_PGQ_DATABASES; d++)
	{
		states[d].configured = false;
		for (int m = 0; m < NGX_PGQ_MOVERS; m++)
		{
			states[d].processes[m].not_before = 0;
			states[d].processes[m].backoff = BACKOFF_MIN;
		}
	}
	foreach(cell, ngx_pgq_settings_database_names(raw))
	{
		char	   *name = lfirst(cell);
		int			d = launcher_take_entry(name);

		if (d >= 0)
		{
			states[d].configured = true;
			continue;
		}
		ereport(LOG,
				(errmsg("ngx_pgq launcher: no entry for database \"%s\" until movers of another database have exited",
						name)));
		entry_missing = true;
	}
}

/* Show in the status why these movers do not run. */
static void
launcher_set_failed(int d, int first, int last, const char *why)
{
	for (int m = first; m <= last; m++)
	{
		NgxPgqMover *mover = &ngx_pgq_shmem->database[d].mover[m];

		if (states[d].processes[m].handle || pg_atomic_read_u32(&mover->pid))
			continue;
		ngx_pgq_shmem_mover_error(mover, why);
		pg_atomic_exchange_u32(&mover->state, NGX_PGQ_FAILED);
	}
}

/*
 * The database of this name has another oid than before, or none.  Clear its
 * errors and its pause.  A sweep finds the messages in its queue.
 */
static void
launcher_reset_database(NgxPgqDatabase *database)
{
	pg_atomic_exchange_u32(&database->paused, 0);
	for (int m = 0; m < NGX_PGQ_MOVERS; m++)
		ngx_pgq_shmem_mover_error(&database->mover[m], "");
	pg_atomic_exchange_u32(&database->sweep_wanted, 1);
	pg_atomic_exchange_u32(&database->wake, 1);
}

/* Check whether a database and the role of the movers exist. */
static void
launcher_check_database(int d)
{
	NgxPgqDatabase *database = &ngx_pgq_shmem->database[d];
	LauncherDatabase *state = &states[d];
	Oid			oid;
	const char *what = launcher_missing(database->name, &oid);
	const char *name = OidIsValid(oid) ? ngx_pgq_role : database->name;

	if (what && what != state->reported)
		ereport(LOG,
				(errmsg("ngx_pgq launcher: no movers for database \"%s\": %s \"%s\" does not exist",
						database->name, what, name)));
	else if (!what && state->reported)
		ereport(LOG,
				(errmsg("ngx_pgq launcher: database \"%s\" and role \"%s\" exist now",
						database->name, ngx_pgq_role)));
	state->reported = what;
	state->exists = what == NULL;
	if (pg_atomic_exchange_u32(&database->oid, oid) != oid)
		launcher_reset_database(database);
	if (what)
		launcher_set_failed(d, 0, ngx_pgq_movers - 1,
							psprintf("%s \"%s\" does not exist", what, name));
	if (state->exists)
	{
		state->backoff = BACKOFF_MIN;
		state->next_check_at = ngx_pgq_clock() + CHECK_INTERVAL;
	}
	else
		launcher_back_off(&state->next_check_at, &state->backoff);
}

static void
launcher_start_mover(int d, int m)
{
	NgxPgqDatabase *database = &ngx_pgq_shmem->database[d];
	MoverProcess *process = &states[d].processes[m];
	BackgroundWorker worker = launcher_worker("mover", BGW_NEVER_RESTART);
	MemoryContext context;

	worker.bgw_main_arg = Int32GetDatum(d * NGX_PGQ_MOVERS + m);
	worker.bgw_notify_pid = MyProcPid;
	snprintf(worker.bgw_name, BGW_MAXLEN, "ngx_pgq mover %d of %s",
			 m + 1, database->name);

	NGX_PGQ_FAULT("mover-wanted");
	context = MemoryContextSwitchTo(TopMemoryContext);
	if (RegisterDynamicBackgroundWorker(&worker, &process->handle))
	{
		process->stable_at = ngx_pgq_clock() + STABLE;
		process->stopping = false;
		no_slot_reported = false;
	}
	else
	{
		process->handle = NULL;
		if (!no_slot_reported)
			ereport(LOG,
					(errmsg("ngx_pgq launcher: no free worker slot for mover %d of database \"%s\"",
							m + 1, database->name),
					 errhint("You may need to increase max_worker_processes.")));
		no_slot_reported = true;
		launcher_set_failed(d, m, m,
							"no worker slot is free, see max_worker_processes");
		launcher_back_off(&process->not_before, &process->backoff);
	}
	MemoryContextSwitchTo(context);
}

/* Forget a mover that has exited; true if we did not stop it. */
static bool
launcher_reap(MoverProcess *process)
{
	pid_t		pid;

	if (process->handle == NULL ||
		GetBackgroundWorkerPid(process->handle, &pid) != BGWH_STOPPED)
		return false;
	pfree(process->handle);
	process->handle = NULL;
	if (process->stopping || ngx_pgq_clock() >= process->stable_at)
	{
		process->backoff = BACKOFF_MIN;
		process->not_before = 0;
	}
	else
		launcher_back_off(&process->not_before, &process->backoff);
	return !process->stopping;
}

/* Start or stop a mover; returns when to check it again. */
static int64
launcher_manage_mover(int d, int m, bool should_run, int64 now)
{
	MoverProcess *process = &states[d].processes[m];

	if (process->handle && !should_run && !process->stopping)
	{
		TerminateBackgroundWorker(process->handle);
		process->stopping = true;
	}
	if (process->handle || !should_run)
		return NEVER;
	if (process->not_before <= now)
	{
		/* a mover of an earlier launcher may not have exited yet */
		if (pg_atomic_read_u32(&ngx_pgq_shmem->database[d].mover[m].pid))
			launcher_back_off(&process->not_before, &process->backoff);
		else
			launcher_start_mover(d, m);
	}
	return process->handle ? NEVER : process->not_before;
}

/* Free the entry of a database that has no movers, unless it is held. */
static void
launcher_free_entry(int d)
{
	NgxPgqDatabase *database = &ngx_pgq_shmem->database[d];

	LWLockAcquire(ngx_pgq_shmem->lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u32(&database->holds) == 0)
	{
		ngx_pgq_shmem_database_assign(database, "");
		memset(&states[d], 0, sizeof(states[d]));
	}
	LWLockRelease(ngx_pgq_shmem->lock);
	if (entry_missing && database->name[0] == '\0')
		launcher_read_settings();
}

/* Start and stop movers of a database; returns when to check it again. */
static int64
launcher_manage_database(int d)
{
	NgxPgqDatabase *database = &ngx_pgq_shmem->database[d];
	LauncherDatabase *state = &states[d];
	int64		now = ngx_pgq_clock();
	int64		next = NEVER;
	bool		held = pg_atomic_read_u32(&database->holds) > 0;
	bool		busy = false;

	if (database->name[0] == '\0')
		return next;
	for (int m = 0; m < NGX_PGQ_MOVERS; m++)
	{
		/* the database may have been dropped */
		if (launcher_reap(&state->processes[m]))
			state->next_check_at = 0;
	}
	if (state->configured && state->next_check_at <= now)
		launcher_check_database(d);
	for (int m = 0; m < NGX_PGQ_MOVERS; m++)
	{
		bool		should_run = state->configured && state->exists && !held &&
			m < ngx_pgq_movers;
		int64		due = launcher_manage_mover(d, m, should_run, now);

		next = Min(next, due);
		busy |= state->processes[m].handle != NULL;
		if (m >= ngx_pgq_movers)
		{
			uint32		failed = NGX_PGQ_FAILED;

			/* a mover that need not run has not failed */
			(void) pg_atomic_compare_exchange_u32(&database->mover[m].state,
												  &failed, NGX_PGQ_STOPPED);
		}
	}
	if (state->configured)
		return Min(next, state->next_check_at);
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
			if (states[d].processes[m].handle)
				TerminateBackgroundWorker(states[d].processes[m].handle);
		}
	}
}

static void
launcher_sleep_until(int64 next)
{
	static uint32 wait_event = 0;
	int64		wait = Min(Max(next - ngx_pgq_clock(), 1), CHECK_INTERVAL);

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
		if (pg_atomic_exchange_u32(&ngx_pgq_shmem->databases_changed, 0))
			launcher_recheck();
		for (int d = 0; d < NGX_PGQ_DATABASES; d++)
		{
			int64		due = launcher_manage_database(d);

			next = Min(next, due);
		}
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		launcher_sleep_until(next);
	}
}
