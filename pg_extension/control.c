/* SPDX-License-Identifier: PostgreSQL */
/*
 * control.c
 *	  pause(), resume() and wait_until_drained().
 *
 * A pause is a flag in shared memory.  It ends with resume(), when the
 * database is dropped, or when the server stops.  It also ends when the
 * transaction of pause() is rolled back, for example by a cancel.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "ngx_pgq.h"

PG_FUNCTION_INFO_V1(ngx_pgq_pause);
PG_FUNCTION_INFO_V1(ngx_pgq_resume);
PG_FUNCTION_INFO_V1(ngx_pgq_wait_until_drained);

#define PAUSE_CHECK_MS	5		/* time between checks of the movers */
#define DRAIN_CHECK_MS	20		/* time between checks of the queue */

static NgxPgqDatabase *
control_my_database(void)
{
	NgxPgqDatabase *database = ngx_pgq_shmem_database_of_backend();

	if (database == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no movers serve this database"),
				 errhint("Add it to ngx_pgq.databases, and load ngx_pgq via shared_preload_libraries.")));
	return database;
}

static void
control_wait(long ms)
{
	static uint32 wait_event = 0;

	ngx_pgq_wake_wait(ms, &wait_event, "NgxPgqWaitForMovers");
	CHECK_FOR_INTERRUPTS();
}

/* The pause that this transaction has begun, and its subtransaction. */
static NgxPgqDatabase *begun_for = NULL;
static SubTransactionId begun_in;

static void
control_undo_pause(void)
{
	uint32		pid = MyProcPid;

	if (begun_for && pg_atomic_compare_exchange_u32(&begun_for->paused, &pid, 0))
		ngx_pgq_wake_all(begun_for);
	begun_for = NULL;
}

static void
control_at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_ABORT:
			control_undo_pause();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			begun_for = NULL;
			break;
		default:
			break;
	}
}

static void
control_at_subtransaction_end(SubXactEvent event, SubTransactionId id,
							  SubTransactionId parent, void *arg)
{
	if (begun_for == NULL || begun_in < id)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		control_undo_pause();
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		begun_in = parent;
}

static void
control_begin_pause(NgxPgqDatabase *database)
{
	static bool registered = false;
	uint32		none = 0;

	if (!registered)
	{
		RegisterXactCallback(control_at_transaction_end, NULL);
		RegisterSubXactCallback(control_at_subtransaction_end, NULL);
		registered = true;
	}
	if (pg_atomic_compare_exchange_u32(&database->paused, &none, MyProcPid))
	{
		begun_for = database;
		begun_in = GetCurrentSubTransactionId();
	}
}

/* Is it in a batch, or may it not have seen the flag yet? */
static bool
control_is_moving(NgxPgqMover *mover)
{
	uint32		state = pg_atomic_read_u32(&mover->state);

	return state == NGX_PGQ_MOVING || state == NGX_PGQ_IDLE;
}

static bool
control_any_moving(NgxPgqDatabase *database)
{
	for (int i = 0; i < NGX_PGQ_MOVERS; i++)
	{
		if (control_is_moving(&database->mover[i]))
			return true;
	}
	return false;
}

static void
control_describe_wait(void *arg)
{
	NgxPgqDatabase *database = arg;

	for (int i = 0; i < NGX_PGQ_MOVERS; i++)
	{
		NgxPgqMover *mover = &database->mover[i];

		if (control_is_moving(mover))
			errcontext("waiting for mover %d (process %u) to end its batch",
					   i + 1, pg_atomic_read_u32(&mover->pid));
	}
}

/*
 * Returns when no mover is working.  A mover sets its state to moving before
 * it reads the flag, so it cannot be missed here.
 */
Datum
ngx_pgq_pause(PG_FUNCTION_ARGS)
{
	NgxPgqDatabase *database = control_my_database();
	ErrorContextCallback context = {error_context_stack,
	control_describe_wait, database};

	control_begin_pause(database);
	ngx_pgq_wake_all(database);
	error_context_stack = &context;
	while (control_any_moving(database))
	{
		if (pg_atomic_read_u32(&database->paused) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("pause was ended by another session")));
		control_wait(PAUSE_CHECK_MS);
	}
	error_context_stack = context.previous;
	PG_RETURN_VOID();
}

Datum
ngx_pgq_resume(PG_FUNCTION_ARGS)
{
	NgxPgqDatabase *database = control_my_database();

	pg_atomic_exchange_u32(&database->paused, 0);
	ngx_pgq_wake_all(database);
	PG_RETURN_VOID();
}

static bool
control_queue_has_rows(void)
{
	NgxPgqTables tables;
	bool		found = false;

	ngx_pgq_tables_find(&tables, NoLock);
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

/* Convert an interval that begins now to microseconds. */
static int64
control_interval_us(Datum interval)
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
 * Returns true when the queue is empty, false when the timeout has elapsed by
 * a monotonic clock; null is no timeout.  Holds no lock while it waits, so it
 * blocks neither the rotation of slots nor DDL.
 */
Datum
ngx_pgq_wait_until_drained(PG_FUNCTION_ARGS)
{
	int64		timeout = PG_ARGISNULL(0) ? PG_INT64_MAX :
		control_interval_us(PG_GETARG_DATUM(0));
	int64		started = ngx_pgq_clock();

	while (control_queue_has_rows())
	{
		if (ngx_pgq_clock() - started >= timeout)
			PG_RETURN_BOOL(false);
		control_wait(DRAIN_CHECK_MS);
	}
	PG_RETURN_BOOL(true);
}
