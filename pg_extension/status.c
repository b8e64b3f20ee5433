/* SPDX-License-Identifier: PostgreSQL */
/*
 * status.c
 *	  status_rows(), which the view ngx_pgq.status reads.
 *
 * The fields of a row are read one by one: they are not a consistent snapshot.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "ngx_pgq.h"

PG_FUNCTION_INFO_V1(ngx_pgq_status_rows);

#define STATUS_COLUMNS	19

enum
{
	STATUS_DATABASE,
	STATUS_SLOT,
	STATUS_MOVER,
	STATUS_PID,
	STATUS_STATE,
	STATUS_DEPTH,
	STATUS_BYTES,
	STATUS_OLDEST_AT,
	STATUS_ROTATIONS,
	STATUS_SKIPPED,
	STATUS_BATCHES,
	STATUS_MESSAGES,
	STATUS_RATE,
	STATUS_DEAD_LETTERS,
	STATUS_ERRORS,
	STATUS_LAST_ERROR,
	STATUS_LAST_ERROR_AT,
	STATUS_LAST_MOVE_AT,
	STATUS_STARTED_AT
};

static const char *
status_state_name(NgxPgqMoverState state)
{
	switch (state)
	{
		case NGX_PGQ_STOPPED:
			return "stopped";
		case NGX_PGQ_STARTING:
			return "starting";
		case NGX_PGQ_FAILED:
			return "could not start";
		case NGX_PGQ_MOVING:
			return "moving";
		case NGX_PGQ_IDLE:
			return "idle";
		case NGX_PGQ_BACKING_OFF:
			return "backing off";
		case NGX_PGQ_MISSING:
			return "extension or table missing";
		case NGX_PGQ_PAUSED:
			return "paused";
	}
	return "unknown";
}

static const char *
status_skip_reason(NgxPgqSkip skip)
{
	switch (skip)
	{
		case NGX_PGQ_NOT_SKIPPED:
			return NULL;
		case NGX_PGQ_SKIP_UNMOVED:
			return "messages are not moved yet";
		case NGX_PGQ_SKIP_LOCKED:
			return "locked by another session";
		case NGX_PGQ_SKIP_SNAPSHOT:
			return "an older snapshot is held, see ngx_pgq.horizon";
		case NGX_PGQ_SKIP_NEXT:
			return "full, but no other slot is empty";
	}
	return "unknown";
}

static void
status_put(Datum *values, bool *nulls, int column, Datum value)
{
	values[column] = value;
	nulls[column] = false;
}

static void
status_put_text(Datum *values, bool *nulls, int column, const char *value)
{
	if (value && *value)
		status_put(values, nulls, column, CStringGetTextDatum(value));
}

static void
status_put_count(Datum *values, bool *nulls, int column,
				 pg_atomic_uint64 *count)
{
	status_put(values, nulls, column,
			   Int64GetDatum(pg_atomic_read_u64(count)));
}

static void
status_put_time(Datum *values, bool *nulls, int column, pg_atomic_uint64 *time)
{
	TimestampTz value = pg_atomic_read_u64(time);

	if (value != 0)
		status_put(values, nulls, column, TimestampTzGetDatum(value));
}

static void
status_put_slot(ReturnSetInfo *result, NgxPgqDatabase *database, Name name,
				int s)
{
	NgxPgqSlot *slot = &database->slots[s];
	uint64		depth = ngx_pgq_shmem_slot_depth(slot);
	uint32		blocks = pg_atomic_read_u32(&slot->blocks);
	Datum		values[STATUS_COLUMNS];
	bool		nulls[STATUS_COLUMNS];
	const char *state = "empty";

	memset(nulls, true, sizeof(nulls));
	if (pg_atomic_read_u32(&database->slot) == (uint32) s)
		state = "current";
	else if (depth > 0)
		state = "draining";
	else if (blocks > 0)
		state = "drained";

	status_put(values, nulls, STATUS_DATABASE, NameGetDatum(name));
	status_put(values, nulls, STATUS_SLOT, Int32GetDatum(s));
	status_put_text(values, nulls, STATUS_STATE, state);
	status_put(values, nulls, STATUS_DEPTH, Int64GetDatum(depth));
	status_put(values, nulls, STATUS_BYTES,
			   Int64GetDatum((int64) blocks * BLCKSZ));
	/* the time of a message may be infinite */
	if (depth > 0 &&
		!TIMESTAMP_NOT_FINITE((TimestampTz) pg_atomic_read_u64(&slot->oldest_at)))
		status_put_time(values, nulls, STATUS_OLDEST_AT, &slot->oldest_at);
	status_put_count(values, nulls, STATUS_ROTATIONS, &slot->rotations);
	status_put_text(values, nulls, STATUS_SKIPPED,
					status_skip_reason(pg_atomic_read_u32(&slot->skip)));
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* The row of a mover; false if it was never started. */
static bool
status_mover_row(NgxPgqDatabase *database, Name name, int m, Datum *values,
				 bool *nulls)
{
	NgxPgqMover *mover = &database->mover[m];
	uint32		pid = pg_atomic_read_u32(&mover->pid);
	char		error[NGX_PGQ_ERROR_LEN];

	if (pg_atomic_read_u64(&mover->started_at) == 0 &&
		pg_atomic_read_u32(&mover->state) == NGX_PGQ_STOPPED)
		return false;
	LWLockAcquire(ngx_pgq_shmem->lock, LW_SHARED);
	strlcpy(error, mover->last_error, sizeof(error));
	LWLockRelease(ngx_pgq_shmem->lock);

	memset(nulls, true, STATUS_COLUMNS * sizeof(bool));
	status_put(values, nulls, STATUS_DATABASE, NameGetDatum(name));
	status_put(values, nulls, STATUS_MOVER, Int32GetDatum(m + 1));
	if (pid)
		status_put(values, nulls, STATUS_PID, Int32GetDatum(pid));
	status_put_text(values, nulls, STATUS_STATE,
					status_state_name(pg_atomic_read_u32(&mover->state)));
	status_put_count(values, nulls, STATUS_BATCHES, &mover->batches);
	status_put_count(values, nulls, STATUS_MESSAGES, &mover->messages);
	status_put(values, nulls, STATUS_RATE,
			   Float8GetDatum(ngx_pgq_shmem_rate(mover,
												 GetCurrentTimestamp())));
	status_put_count(values, nulls, STATUS_DEAD_LETTERS, &mover->dead_letters);
	status_put_count(values, nulls, STATUS_ERRORS, &mover->errors);
	status_put_text(values, nulls, STATUS_LAST_ERROR, error);
	status_put_time(values, nulls, STATUS_LAST_ERROR_AT, &mover->error_at);
	status_put_time(values, nulls, STATUS_LAST_MOVE_AT, &mover->moved_at);
	status_put_time(values, nulls, STATUS_STARTED_AT, &mover->started_at);
	return true;
}

static void
status_put_database(ReturnSetInfo *result, NgxPgqDatabase *database, Name name)
{
	Datum		values[STATUS_COLUMNS];
	bool		nulls[STATUS_COLUMNS];

	for (int s = 0; s < NGX_PGQ_SLOTS; s++)
		status_put_slot(result, database, name, s);
	for (int m = 0; m < NGX_PGQ_MOVERS; m++)
	{
		if (status_mover_row(database, name, m, values, nulls))
			tuplestore_putvalues(result->setResult, result->setDesc, values,
								 nulls);
	}
}

Datum
ngx_pgq_status_rows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	if (ngx_pgq_shmem == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("ngx_pgq must be loaded via shared_preload_libraries")));
	for (int d = 0; d < NGX_PGQ_DATABASES; d++)
	{
		NgxPgqDatabase *database = &ngx_pgq_shmem->database[d];
		NameData	name;

		LWLockAcquire(ngx_pgq_shmem->lock, LW_SHARED);
		namestrcpy(&name, database->name);
		LWLockRelease(ngx_pgq_shmem->lock);
		if (*NameStr(name))
			status_put_database(result, database, &name);
	}
	return (Datum) 0;
}
