/* SPDX-License-Identifier: PostgreSQL */
/*
 * service_time.c
 *	  The time by which idempotency keys expire: how long a primary has run.
 *
 * Owns the table ngx_pgq.service_time.  The time starts as the wall clock's
 * time of the first key, and then advances only by the elapsed time of the
 * primary.  So the wall clocks of the hosts do not matter:
 *
 * - Shared memory has the difference to ngx_pgq_clock().  After a start, a
 *	 crash or a promotion it is computed from the table.
 * - The first key saves the time with its commit.  Then the first mover saves
 *	 it every few seconds while there are keys.  Time that was not saved, or in
 *	 which no primary ran, is lost: a key is valid for ngx_pgq.keep_keys or
 *	 longer.
 * - After a failover the time may go back by some seconds.  Keys that were
 *	 taken in these seconds are valid for that much longer.
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
 * The latest saved time; -infinity if there is none.  A restored dump may have
 * left several rows.
 */
static TimestampTz
service_time_saved(void)
{
	Relation	rel = ngx_pgq_leaf_open_table("service_time", AccessShareLock);
	AttrNumber	attnum = ngx_pgq_leaf_column(rel, "at", TIMESTAMPTZOID);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *row = table_slot_create(rel, NULL);
	TimestampTz saved = DT_NOBEGIN;

	while (table_scan_getnextslot(scan, ForwardScanDirection, row))
	{
		bool		isnull;
		TimestampTz at = DatumGetTimestampTz(slot_getattr(row, attnum, &isnull));

		if (!isnull && !TIMESTAMP_NOT_FINITE(at))
			saved = Max(saved, at);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return saved;
}

/* Save a time, unless a later one is saved. */
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

/* The saved time.  If there is none, save the current time. */
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
 * The current service time.  It does not advance if no mover serves the
 * database.  Needs an SPI connection and the right to write the table.
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

/* Save the current time.  The commit need not wait for a standby. */
void
ngx_pgq_service_time_save(void)
{
	service_time_write(ngx_pgq_service_time());
}
