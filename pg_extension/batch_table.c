/* SPDX-License-Identifier: PostgreSQL */
/*
 * batch_table.c
 *	  The batch table: entering batches, truncating old leaves.
 *
 * Batches are entered with the rights of the queue's owner; the first mover of
 * a database truncates leaves.  The client's duty: it sends or fences a batch
 * for the last time within NGX_PGQ_BATCH_KEEP_US of the first time, by its own
 * elapsed time.
 *
 * That a batch is enqueued at most once does not depend on a clock that can be
 * set, on clocks of two hosts that agree, or on a time in the batch id:
 *
 * - Attempts of one batch are serialized: each holds an advisory lock on the
 *	 batch id until its transaction has ended, that is, until its commit was
 *	 confirmed by the synchronous standby and is visible.
 * - Holding that lock, a transaction searches all leaves by a snapshot that is
 *	 newer than the lock.  So it does not matter which leaf has the batch; new
 *	 batches go to the current leaf.
 * - A leaf is truncated when it has been unused for NGX_PGQ_BATCH_KEEP_US of
 *	 this server's elapsed time.  It is unused if it is not the current leaf
 *	 and no transaction in progress may have written to it.  So if a
 *	 transaction waits for a standby for hours, its batch is still kept for the
 *	 full time after it has ended.
 * - The time for which a leaf is unused is kept in shared memory only.  It
 *	 starts at zero after a restart, a crash or a promotion: frequent restarts
 *	 cost space.
 * - After it has locked its leaf, a writer checks that it is still the current
 *	 one.  The mover makes another leaf the current one before it looks for
 *	 locks of writers.  So it sees every writer.
 * - Truncating never waits for a lock, so no session waits for it.
 *
 * The row of a batch that is sent again is updated, which writes WAL: its
 * commit must wait for the synchronous standby as the first one did.  A batch
 * that was fenced, not enqueued, keeps the time infinity: a client that fences
 * twice must not take its first fence for the batch.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "bulk_insert.h"
#include "compat.h"
#include "fault.h"
#include "ngx_pgq.h"

#define CHECK_US	INT64CONST(5000000) /* time between checks of leaves */
/* Replaces NGX_PGQ_BATCH_KEEP_US while the point batch-table-due is forced. */
#define FORCED_US	INT64CONST(3000000)

#define LOCK_SEED	UINT64CONST(0x6e67785f62617463)

/* The time for which a leaf is the current one, or is kept when unused. */
static int64
batch_table_period_us(void)
{
	return NGX_PGQ_FAULT_FORCED("batch-table-due") ? FORCED_US : NGX_PGQ_BATCH_KEEP_US;
}

/* Lock a batch id until the transaction ends; true if it had to wait. */
static bool
batch_table_lock_batch(const pg_uuid_t *batch_id)
{
	uint64		hash = hash_bytes_extended(batch_id->data, UUID_LEN, LOCK_SEED);
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, NGX_PGQ_LOCK_BATCH);
	if (LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL)
		return false;
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	return true;
}

/* Is the batch in this leaf? */
static bool
batch_table_leaf_has(Relation leaf, const pg_uuid_t *batch_id,
					 Snapshot snapshot)
{
	Relation	index;
	IndexScanDesc scan;
	ScanKeyData wanted;
	TupleTableSlot *row;
	AttrNumber	attnum;
	Oid			index_id = ngx_pgq_primary_key(leaf);
	bool		found;

	if (!OidIsValid(index_id))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("relation \"%s.%s\" lacks its primary key",
						NGX_PGQ_SCHEMA, RelationGetRelationName(leaf)),
				 errhint("Run sql/install.sql in this database.")));
	index = index_open(index_id, AccessShareLock);
	attnum = index->rd_index->indkey.values[0];
	if (attnum == InvalidAttrNumber ||
		TupleDescAttr(RelationGetDescr(leaf), attnum - 1)->atttypid != UUIDOID)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("the primary key of relation \"%s.%s\" does not begin with a batch id",
						NGX_PGQ_SCHEMA, RelationGetRelationName(leaf))));

	row = table_slot_create(leaf, NULL);
	scan = ngx_pgq_index_scan(leaf, index, snapshot, 1);
	ScanKeyEntryInitialize(&wanted, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   InvalidOid, F_UUID_EQ, UUIDPGetDatum(batch_id));
	index_rescan(scan, &wanted, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, row);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	index_close(index, AccessShareLock);
	return found;
}

/* The leaf that has a batch, whose id is locked; -1 if there is none. */
static int
batch_table_find_batch(const pg_uuid_t *batch_id)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int			found = -1;

	for (int i = 0; i < NGX_PGQ_BATCH_LEAVES && found < 0; i++)
	{
		Relation	leaf = ngx_pgq_leaf_open("batch", i, AccessShareLock);

		if (RelationGetNumberOfBlocks(leaf) > 0 &&
			batch_table_leaf_has(leaf, batch_id, snapshot))
			found = i;
		table_close(leaf, AccessShareLock);
	}
	UnregisterSnapshot(snapshot);
	return found;
}

static int
batch_table_current_leaf(void)
{
	NgxPgqDatabase *database = ngx_pgq_shmem_database_of_backend();

	return database ? pg_atomic_read_u32(&database->batch_leaf) : 0;
}

/*
 * The current leaf, locked until the transaction ends.  If it is no longer the
 * current one when it is locked, the mover may not have seen the lock and may
 * consider the leaf unused: then the lock is released.
 */
static Relation
batch_table_open_current(int *leaf)
{
	for (;;)
	{
		Relation	rel;

		*leaf = batch_table_current_leaf();
		rel = ngx_pgq_leaf_open("batch", *leaf, RowExclusiveLock);
		if (batch_table_current_leaf() == *leaf)
			return rel;
		table_close(rel, RowExclusiveLock);
	}
}

/* Insert a batch.  The executor does it if a bulk insert is not possible. */
static void
batch_table_insert(Relation rel, int leaf, const pg_uuid_t *batch_id,
				   TimestampTz at)
{
	static const NgxPgqColumn columns[] = {
		{"at", TIMESTAMPTZOID},
		{"slot", INT2OID},
		{"batch_id", UUIDOID}
	};
	Oid			types[] = {TIMESTAMPTZOID, INT2OID, UUIDOID};
	Datum		values[] = {TimestampTzGetDatum(at), Int16GetDatum(leaf),
	UUIDPGetDatum(batch_id)};
	NgxPgqBulk	bulk;
	char	   *sql;

	if (ngx_pgq_bulk_insert_begin(&bulk, rel, columns, lengthof(columns)))
	{
		bulk.check_partition = false;	/* slot is the leaf number */
		ngx_pgq_bulk_insert_add(&bulk, values);
		ngx_pgq_bulk_insert_end(&bulk);
		return;
	}
	sql = psprintf("insert into ngx_pgq.batch_%d (at, slot, batch_id) "
				   "values ($1, $2, $3)", leaf);
	SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 0);
}

/* Update the row of a batch; returns whether it was enqueued or fenced. */
static NgxPgqEntry
batch_table_update_known(int leaf, const pg_uuid_t *batch_id)
{
	Oid			types[] = {INT2OID, UUIDOID};
	Datum		values[] = {Int16GetDatum(leaf), UUIDPGetDatum(batch_id)};
	char	   *sql = psprintf("update ngx_pgq.batch_%d "
							   "set at = greatest(at, pg_catalog.clock_timestamp()) "
							   "where slot operator(pg_catalog.=) $1 "
							   "and batch_id operator(pg_catalog.=) $2 "
							   "returning pg_catalog.isfinite(at)", leaf);
	bool		isnull;

	SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 0);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("batch was removed from ngx_pgq.batch while it was looked up")));
	return DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, 1, &isnull)) ?
		NGX_PGQ_ENTRY_ENQUEUED : NGX_PGQ_ENTRY_FENCED;
}

/*
 * Enter a batch as enqueued or fenced, unless it has a row.  Waits for another
 * attempt that is in progress.  Needs an SPI connection.
 */
NgxPgqEntry
ngx_pgq_batch_table_enter(const pg_uuid_t *batch_id, bool fence)
{
	bool		waited = batch_table_lock_batch(batch_id);
	int			leaf = batch_table_find_batch(batch_id);
	TimestampTz at = fence ? DT_NOEND : GetCurrentTimestamp();
	Relation	rel;

	if (leaf >= 0)
		return batch_table_update_known(leaf, batch_id);

	rel = batch_table_open_current(&leaf);
	batch_table_insert(rel, leaf, batch_id, at);
	table_close(rel, NoLock);
	CommandCounterIncrement();	/* so that this command can find it */
	return waited ? NGX_PGQ_ENTRY_RETRY : NGX_PGQ_ENTRY_NEW;
}

/* Truncate a leaf, or record that it is unused; true if truncated. */
static bool
batch_table_tidy_unused(NgxPgqDatabase *database, int leaf, int64 now)
{
	Oid			relid = ngx_pgq_leaf_relid("batch", leaf);
	int64		unused_since = pg_atomic_read_u64(&database->batch_unused_since[leaf]);

	if (ngx_pgq_leaf_pages(relid) <= 0)
		return false;
	if (unused_since == 0)
	{
		/* no transaction in progress has written to the leaf */
		if (ConditionalLockRelationOid(relid, ShareLock))
		{
			UnlockRelationOid(relid, ShareLock);
			pg_atomic_write_u64(&database->batch_unused_since[leaf], now);
		}
		return false;
	}
	if (now - unused_since < batch_table_period_us() ||
		!ngx_pgq_leaf_lock_to_truncate(relid))
		return false;
	NGX_PGQ_FAULT("batch-table-locked");
	ngx_pgq_leaf_truncate("batch", leaf);
	NGX_PGQ_FAULT("batch-table-truncated");
	return true;
}

/* An empty leaf other than the current one; -1 if there is none. */
static int
batch_table_empty_leaf(int current)
{
	for (int i = 1; i < NGX_PGQ_BATCH_LEAVES; i++)
	{
		int			leaf = (current + i) % NGX_PGQ_BATCH_LEAVES;

		if (ngx_pgq_leaf_pages(ngx_pgq_leaf_relid("batch", leaf)) == 0)
			return leaf;
	}
	return -1;
}

/*
 * Make an empty leaf the current one when the current one is old.  Any empty
 * leaf will do, as a long transaction may keep the next one from being
 * truncated.
 */
static void
batch_table_advance(NgxPgqDatabase *database, int64 now)
{
	int			current = pg_atomic_read_u32(&database->batch_leaf);
	int64		since = pg_atomic_read_u64(&database->batch_leaf_since);
	int			next;

	if (since == 0)
		pg_atomic_write_u64(&database->batch_leaf_since, now);
	else if (now - since >= batch_table_period_us() &&
			 ngx_pgq_leaf_pages(ngx_pgq_leaf_relid("batch", current)) > 0 &&
			 (next = batch_table_empty_leaf(current)) >= 0)
	{
		pg_atomic_write_u64(&database->batch_unused_since[current], 0);
		pg_atomic_write_u64(&database->batch_leaf_since, now);
		/* a full barrier: it must precede the search for writers */
		pg_atomic_exchange_u32(&database->batch_leaf, next);
	}
}

static int64 next_check_at = 0;	/* no check before this ngx_pgq_clock() */

bool
ngx_pgq_batch_table_due(void)
{
	return ngx_pgq_clock() >= next_check_at || NGX_PGQ_FAULT_FORCED("batch-table-due");
}

/*
 * Truncate at most one leaf, so that its lock is released before another one
 * is requested.  The caller begins a transaction for it when it is due, and
 * calls ngx_pgq_batch_table_committed() after the commit.
 */
void
ngx_pgq_batch_table_tidy(NgxPgqDatabase *database)
{
	int64		now = ngx_pgq_clock();
	int			current;

	next_check_at = now + CHECK_US;
	batch_table_advance(database, now);
	current = pg_atomic_read_u32(&database->batch_leaf);
	for (int i = 0; i < NGX_PGQ_BATCH_LEAVES; i++)
	{
		if (i != current && batch_table_tidy_unused(database, i, now))
			break;
	}
	NGX_PGQ_FAULT("batch-table-finished");
}

void
ngx_pgq_batch_table_committed(void)
{
	NGX_PGQ_FAULT("batch-table-committed");
}
