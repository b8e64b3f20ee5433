/* SPDX-License-Identifier: PostgreSQL */
/*
 * control.c
 *	  The levers: ngx_pgq.pause(), resume() and wait_until_drained().
 *
 * Called by SQL, for the database of the caller.  A pause is a flag in shared
 * memory: it ends with resume() or with the server; ngx_pgq.movers = 0 is the
 * way to stop movers for longer.  While it lasts messages come in and wait.
 */
#include "postgres.h"

#include "access/table.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "ngx_pgq.h"

PG_FUNCTION_INFO_V1(ngx_pgq_pause);
PG_FUNCTION_INFO_V1(ngx_pgq_resume);
PG_FUNCTION_INFO_V1(ngx_pgq_wait_until_drained);

#define PAUSE_LOOK_MS	5		/* between looks whether movers have stopped */
#define DRAIN_LOOK_MS	20		/* between looks into the queue */

static NgxPgqDatabase *
my_database(void)
{
	NgxPgqDatabase *database = ngx_pgq_database_of_backend();

	if (database == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no movers serve this database"),
				 errhint("Name it in ngx_pgq.databases, and load ngx_pgq via shared_preload_libraries.")));
	return database;
}

static void
sleep_a_while(long ms)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = ngx_pgq_wait_event("NgxPgqWaitForMovers");
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 ms, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Is a mover at work, or has one not noticed yet that it is paused? */
static bool
any_moving(NgxPgqDatabase *database)
{
	for (int i = 0; i < NGX_PGQ_MOVERS; i++)
	{
		uint32		state = pg_atomic_read_u32(&database->mover[i].state);

		if (state == NGX_PGQ_MOVING || state == NGX_PGQ_IDLE)
			return true;
	}
	return false;
}

/*
 * Returns when no mover is at work any more.  A mover says that it is moving
 * before it looks at the flag, so that it cannot be missed here.
 */
Datum
ngx_pgq_pause(PG_FUNCTION_ARGS)
{
	NgxPgqDatabase *database = my_database();

	pg_atomic_exchange_u32(&database->paused, 1);
	ngx_pgq_wake_all(database);
	while (any_moving(database))
		sleep_a_while(PAUSE_LOOK_MS);
	PG_RETURN_VOID();
}

Datum
ngx_pgq_resume(PG_FUNCTION_ARGS)
{
	NgxPgqDatabase *database = my_database();

	pg_atomic_exchange_u32(&database->paused, 0);
	ngx_pgq_wake_all(database);
	PG_RETURN_VOID();
}

static bool
queue_has_rows(void)
{
	NgxPgqTables tables;
	bool		found = false;

	ngx_pgq_find_tables(&tables);
	if (tables.missing)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("%s is missing", tables.missing),
				 errhint("Run sql/install.sql in this database.")));
	for (int i = 0; i < NGX_PGQ_SLOTS && !found; i++)
	{
		Relation	leaf = table_open(tables.queue[i], AccessShareLock);

		found = ngx_pgq_leaf_has_rows(leaf, NULL);
		table_close(leaf, AccessShareLock);
	}
	return found;
}

/* Microseconds of an interval that begins now. */
static int64
interval_us(Datum interval)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
															  TimestampTzGetDatum(now),
															  interval));

	if (TIMESTAMP_NOT_FINITE(end))
		return TIMESTAMP_IS_NOEND(end) ? PG_INT64_MAX : 0;
	return end - now;
}

/*
 * True as soon as the queue is seen empty, false when the timeout has elapsed,
 * whatever the wall clock does meanwhile; null waits until it is empty.  Keeps
 * no lock on a slot, so that slots go on rotating.
 */
Datum
ngx_pgq_wait_until_drained(PG_FUNCTION_ARGS)
{
	int64		timeout = PG_ARGISNULL(0) ? PG_INT64_MAX :
		interval_us(PG_GETARG_DATUM(0));
	int64		started = ngx_pgq_clock();

	while (queue_has_rows())
	{
		if (ngx_pgq_clock() - started >= timeout)
			PG_RETURN_BOOL(false);
		sleep_a_while(DRAIN_LOOK_MS);
	}
	PG_RETURN_BOOL(true);
}
