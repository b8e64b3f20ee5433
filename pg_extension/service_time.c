/* SPDX-License-Identifier: PostgreSQL */
/*
 * service_time.c
 *	  The database's own time, by which idempotency keys expire.
 *
 * Owns the table ngx_pgq.service_time.  It reads like a wall clock, but begins
 * with the first key, and from then on only the elapsed time of the server that
 * is the primary is added to it.  So it does not matter what the wall clocks of
 * the hosts say, nor whether they agree:
 *
 * - In between, shared memory holds what is to be added to ngx_pgq_clock().
 *	 After a start, a crash or a promotion that is found anew from the table.
 * - The first key saves the time with its own commit.  Then the first mover
 *	 saves it every few seconds while there are keys.  What
 *	 was not saved, and the time in which no primary runs, does not count: the
 *	 time may be late, and is then made up for by nobody.  A key counts for
 *	 ngx_pgq.keep_keys at least.
 * - After a failover the time may be some seconds earlier than it has been.  Keys
 *	 taken in these seconds live for so much longer.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "ngx_pgq.h"

/*
 * What was saved last; the beginning of time if nothing was.  A dump that is
 * restored may have added a row.
 */
static TimestampTz
service_time_saved(void)
{
	Relation	rel = ngx_pgq_leaf_open_table("service_time", AccessShareLock);
	AttrNumber	place = ngx_pgq_leaf_column(rel, "at", TIMESTAMPTZOID);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *row = table_slot_create(rel, NULL);
	TimestampTz saved = DT_NOBEGIN;

	while (table_scan_getnextslot(scan, ForwardScanDirection, row))
	{
		bool		isnull;
		TimestampTz at = DatumGetTimestampTz(slot_getattr(row, place, &isnull));

		if (!isnull && !TIMESTAMP_NOT_FINITE(at))
			saved = Max(saved, at);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return saved;
}

/* Save a time; an earlier one is not forgotten for it. */
static void
service_time_write(TimestampTz at)
{
	Oid			types[] = {TIMESTAMPTZOID};
	Datum		values[] = {TimestampTzGetDatum(at)};

	SPI_execute_with_args("update ngx_pgq.service_time set at = $1 "
						  "where at operator(pg_catalog.<) $1",
						  lengthof(types), types, values, NULL, false, 0);
	if (SPI_processed == 0 && service_time_saved() == DT_NOBEGIN)
		SPI_execute_with_args("insert into ngx_pgq.service_time (at) values ($1)",
							  lengthof(types), types, values, NULL, false, 0);
}

/* What was saved last; now, if nothing was, which is then the beginning. */
static TimestampTz
service_time_begin(void)
{
	TimestampTz saved = service_time_saved();

	if (saved != DT_NOBEGIN)
		return saved;
	saved = GetCurrentTimestamp();
	service_time_write(saved);
	return saved;
}

/*
 * The database's own time.  Where no mover serves the database, nothing is
 * added to what was saved.  Needs an SPI connection and the right to write.
 */
TimestampTz
ngx_pgq_service_time(void)
{
	NgxPgqDatabase *database = ngx_pgq_shmem_database_of_backend();
	uint64		offset;
	uint64		found;

	if (database == NULL)
		return service_time_begin();
	offset = pg_atomic_read_u64(&database->service_offset);
	if (offset == 0)
	{
		found = service_time_begin() - ngx_pgq_clock();
		if (pg_atomic_compare_exchange_u64(&database->service_offset, &offset,
										   found))
			offset = found;
	}
	return ngx_pgq_clock() + (int64) offset;
}

/*
 * Save the time, in a transaction of the first mover.  Nobody need wait for it,
 * nor for its standby.  Needs an SPI connection.
 */
void
ngx_pgq_service_time_save(void)
{
	service_time_write(ngx_pgq_service_time());
}
