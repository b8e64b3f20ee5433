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
	STATUS_STARTED_AT,
	STATUS_COLUMNS
};

/* A row of the result.  Columns that are not put are null. */
typedef struct StatusRow
{
	Datum		values[STATUS_COLUMNS];
	bool		nulls[STATUS_COLUMNS];
} StatusRow;

static const char *const state_names[] = {
	[NGX_PGQ_STOPPED] = "stopped",
	[NGX_PGQ_STARTING] = "starting",
	[NGX_PGQ_FAILED] = "could not start",
	[NGX_PGQ_MOVING] = "moving",
	[NGX_PGQ_IDLE] = "idle",
	[NGX_PGQ_BACKING_OFF] = "backing off",
	[NGX_PGQ_MISSING] = "extension or table missing",
	[NGX_PGQ_PAUSED] = "paused"
};

static const char *const skip_reasons[] = {
	[NGX_PGQ_NOT_SKIPPED] = NULL,
	[NGX_PGQ_SKIP_UNMOVED] = "messages are not moved yet",
	[NGX_PGQ_SKIP_LOCKED] = "locked by another session",
	[NGX_PGQ_SKIP_SNAPSHOT] = "an older snapshot is held, see ngx_pgq.horizon",
	[NGX_PGQ_SKIP_NEXT] = "full, but no other slot is empty"
};

static void
status_put(StatusRow *row, int column, Datum value)
{
	row->values[column] = value;
	row->nulls[column] = false;
}

static void
status_put_text(StatusRow *row, int column, const char *value)
{
	if (value && *value)
		status_put(row, column, CStringGetTextDatum(value));
}

static void
status_put_count(StatusRow *row, int column, pg_atomic_uint64 *count)
{
	status_put(row, column, Int64GetDatum(pg_atomic_read_u64(count)));
}

static void
status_put_time(StatusRow *row, int column, pg_atomic_uint64 *time)
{
	TimestampTz value = pg_atomic_read_u64(time);

	if (value != 0)
		status_put(row, column, TimestampTzGetDatum(value));
}

static void
status_fill_slot(StatusRow *row, NgxPgqDatabase *database, int s)
{
	NgxPgqSlot *slot = &database->slots[s];
	uint64		depth = ngx_pgq_shmem_slot_depth(slot);
	uint32		blocks = pg_atomic_read_u32(&slot->blocks);
	const char *state = "empty";

	if (pg_atomic_read_u32(&database->slot) == (uint32) s)
		state = "current";
	else if (depth > 0)
		state = "draining";
	else if (blocks > 0)
		state = "drained";

	status_put(row, STATUS_SLOT, Int32GetDatum(s));
	status_put_text(row, STATUS_STATE, state);
	status_put(row, STATUS_DEPTH, Int64GetDatum(depth));
	status_put(row, STATUS_BYTES, Int64GetDatum((int64) blocks * BLCKSZ));
	/* the time of a message may be infinite */
	if (depth > 0 &&
		!TIMESTAMP_NOT_FINITE((TimestampTz) pg_atomic_read_u64(&slot->oldest_at)))
		status_put_time(row, STATUS_OLDEST_AT, &slot->oldest_at);
	status_put_count(row, STATUS_ROTATIONS, &slot->rotations);
	status_put_text(row, STATUS_SKIPPED,
					skip_reasons[pg_atomic_read_u32(&slot->skip)]);
}

static void
status_fill_mover(StatusRow *row, NgxPgqMover *mover, int number)
{
	uint32		pid = pg_atomic_read_u32(&mover->pid);
	char		error[NGX_PGQ_ERROR_LEN];

	LWLockAcquire(ngx_pgq_shmem->lock, LW_SHARED);
	strlcpy(error, mover->last_error, sizeof(error));
	LWLockRelease(ngx_pgq_shmem->lock);

	status_put(row, STATUS_MOVER, Int32GetDatum(number));
	if (pid)
		status_put(row, STATUS_PID, Int32GetDatum(pid));
	status_put_text(row, STATUS_STATE,
					state_names[pg_atomic_read_u32(&mover->state)]);
	status_put_count(row, STATUS_BATCHES, &mover->batches);
	status_put_count(row, STATUS_MESSAGES, &mover->messages);
	status_put(row, STATUS_RATE,
			   Float8GetDatum(ngx_pgq_shmem_rate(mover,
												 GetCurrentTimestamp())));
	status_put_count(row, STATUS_DEAD_LETTERS, &mover->dead_letters);
	status_put_count(row, STATUS_ERRORS, &mover->errors);
	status_put_text(row, STATUS_LAST_ERROR, error);
	status_put_time(row, STATUS_LAST_ERROR_AT, &mover->error_at);
	status_put_time(row, STATUS_LAST_MOVE_AT, &mover->moved_at);
	status_put_time(row, STATUS_STARTED_AT, &mover->started_at);
}

static void
status_begin_row(StatusRow *row, Name database)
{
	memset(row->nulls, true, sizeof(row->nulls));
	status_put(row, STATUS_DATABASE, NameGetDatum(database));
}

static void
status_end_row(StatusRow *row, ReturnSetInfo *result)
{
	tuplestore_putvalues(result->setResult, result->setDesc, row->values,
						 row->nulls);
}

static void
status_put_database(ReturnSetInfo *result, NgxPgqDatabase *database, Name name)
{
	StatusRow	row;

	for (int s = 0; s < NGX_PGQ_SLOTS; s++)
	{
		status_begin_row(&row, name);
		status_fill_slot(&row, database, s);
		status_end_row(&row, result);
	}
	for (int m = 0; m < NGX_PGQ_MOVERS; m++)
	{
		NgxPgqMover *mover = &database->mover[m];

		/* it was never started */
		if (pg_atomic_read_u64(&mover->started_at) == 0 &&
			pg_atomic_read_u32(&mover->state) == NGX_PGQ_STOPPED)
			continue;
		status_begin_row(&row, name);
		status_fill_mover(&row, mover, m + 1);
		status_end_row(&row, result);
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
