/* SPDX-License-Identifier: PostgreSQL */
/*
 * status.c
 *	  ngx_pgq.mover_status(): what is behind the view ngx_pgq.status.
 *
 * Called by SQL.  Reads shared memory and nothing else: no table is touched,
 * and no mover waits for a reader.  The fields of a row are read one by one,
 * so a row is not a snapshot of one moment.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "ngx_pgq.h"

PG_FUNCTION_INFO_V1(ngx_pgq_mover_status);

#define STATUS_COLUMNS	11

static const char *
state_name(NgxPgqMoverState state)
{
	switch (state)
	{
		case NGX_PGQ_STOPPED:
			return "stopped";
		case NGX_PGQ_STARTING:
			return "starting";
		case NGX_PGQ_MOVING:
			return "moving";
		case NGX_PGQ_IDLE:
			return "idle";
		case NGX_PGQ_BACKING_OFF:
			return "backing off";
		case NGX_PGQ_MISSING:
			return "extension or table missing";
	}
	return "unknown";
}

static Datum
time_or_null(pg_atomic_uint64 *time, bool *isnull)
{
	TimestampTz value = pg_atomic_read_u64(time);

	*isnull = value == 0;
	return TimestampTzGetDatum(value);
}

static void
put_mover(ReturnSetInfo *result, NgxPgqDatabase *database, int m)
{
	NgxPgqMover *mover = &database->mover[m];
	uint32		pid = pg_atomic_read_u32(&mover->pid);
	NameData	name;
	char		error[NGX_PGQ_ERROR_LEN];
	Datum		values[STATUS_COLUMNS];
	bool		nulls[STATUS_COLUMNS] = {false};
	int			n = 0;

	LWLockAcquire(ngx_pgq_shared->lock, LW_SHARED);
	namestrcpy(&name, database->name);
	strlcpy(error, mover->last_error, sizeof(error));
	LWLockRelease(ngx_pgq_shared->lock);

	values[n++] = NameGetDatum(&name);
	values[n++] = Int32GetDatum(m + 1);
	nulls[n] = pid == 0;
	values[n++] = Int32GetDatum(pid);
	values[n++] = CStringGetTextDatum(state_name(pg_atomic_read_u32(&mover->state)));
	values[n++] = Int64GetDatum(pg_atomic_read_u64(&mover->batches));
	values[n++] = Int64GetDatum(pg_atomic_read_u64(&mover->messages));
	values[n++] = Int64GetDatum(pg_atomic_read_u64(&mover->dead_letters));
	values[n++] = Int64GetDatum(pg_atomic_read_u64(&mover->errors));
	nulls[n] = error[0] == '\0';
	values[n++] = CStringGetTextDatum(error);
	values[n] = time_or_null(&mover->moved_at, &nulls[n]);
	n++;
	values[n] = time_or_null(&mover->started_at, &nulls[n]);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

Datum
ngx_pgq_mover_status(PG_FUNCTION_ARGS)
{
	if (ngx_pgq_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("ngx_pgq must be loaded via shared_preload_libraries")));

	InitMaterializedSRF(fcinfo, 0);
	for (int d = 0; d < NGX_PGQ_DATABASES; d++)
	{
		NgxPgqDatabase *database = &ngx_pgq_shared->database[d];

		for (int m = 0; m < NGX_PGQ_MOVERS; m++)
		{
			if (pg_atomic_read_u64(&database->mover[m].started_at))
				put_mover((ReturnSetInfo *) fcinfo->resultinfo, database, m);
		}
	}
	return (Datum) 0;
}
