/* SPDX-License-Identifier: PostgreSQL */
/*
 * batch_table.c
 *	  The ledger of batches already taken: entering one, forgetting old ones.
 *
 * enqueue enters each batch, with the rights of the queue's owner; the first
 * mover of a database tidies.  The caller's duty: a batch is sent, or fenced,
 * for the last time within NGX_PGQ_LEDGER_US of the first time, by the caller's
 * own elapsed time.
 *
 * That a batch is taken at most once rests on no clock that anybody sets, on
 * none that two hosts would have to agree about, and not on what the batch id
 * says of a time:
 *
 * - Attempts of one batch come one after the other: each locks the batch id,
 *	 by a lock of a kind of its own, until its transaction has ended, that is,
 *	 until a commit has been confirmed by the synchronous standby and is visible.
 * - Under that lock all leaves are looked into, by a snapshot newer than the
 *	 lock.  So it does not matter which leaf a batch lies in: a new one goes to
 *	 the current leaf.
 * - A leaf is truncated when it has been quiet for NGX_PGQ_LEDGER_US, by the
 *	 elapsed time of this server.  It is quiet from the moment on when it is not
 *	 the current leaf and no transaction that may have written to it is in
 *	 progress: one that waits for a standby for hours is not forgotten as soon
 *	 as it has ended.  All its batches have been committed before.
 * - How long a leaf has been quiet is in shared memory alone.  After a start, a
 *	 crash or a promotion it counts from zero: frequent restarts cost space.
 * - A writer asks whether its leaf is still the current one when it has locked
 *	 it.  The mover first makes another leaf the current one, then looks for
 *	 locks of writers.  So there is no writer it does not see.
 * - Truncating never waits for a lock, and so never makes anybody wait for it.
 *
 * A batch met again writes WAL all the same: its commit must wait for the
 * synchronous standby as the first one's had to.  A batch that is fenced, not
 * taken, has infinity for its time, for ever: a caller that fences twice must
 * not believe that its first fence was the batch.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "bulk_insert.h"
#include "compat.h"
#include "fault.h"
#include "ngx_pgq.h"

#define LOOK_US		INT64CONST(5000000) /* from look to look at the leaves */
#define FORCED_US	INT64CONST(3000000) /* both times, in a test that asks */

#define LOCK_KIND	0x7068		/* of a batch id; 1 and 2 are the SQL functions' */
#define LOCK_SEED	UINT64CONST(0x6e67785f62617463)

/* How long a leaf that is quiet is kept, and how long one is the current. */
static int64
batch_table_period_us(void)
{
	return NGX_PGQ_FAULT_FORCED("ledger-due") ? FORCED_US : NGX_PGQ_LEDGER_US;
}

/*
 * Lock a batch id until the transaction ends; true if another attempt was still
 * in progress, and has been waited for.
 */
static bool
batch_table_lock_batch(const pg_uuid_t *batch_id)
{
	uint64		hash = hash_bytes_extended(batch_id->data, UUID_LEN, LOCK_SEED);
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, LOCK_KIND);
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
	AttrNumber	place;
	Oid			index_id = ngx_pgq_primary_key(leaf);
	bool		found;

	if (!OidIsValid(index_id))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("relation \"%s.%s\" lacks its primary key",
						NGX_PGQ_SCHEMA, RelationGetRelationName(leaf)),
				 errhint("Run sql/install.sql in this database.")));
	index = index_open(index_id, AccessShareLock);
	place = index->rd_index->indkey.values[0];
	if (place == InvalidAttrNumber ||
		TupleDescAttr(RelationGetDescr(leaf), place - 1)->atttypid != UUIDOID)
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

/* The leaf that a batch lies in, whose id we have locked; -1 if none has it. */
static int
batch_table_find_batch(const pg_uuid_t *batch_id)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int			found = -1;

	for (int i = 0; i < NGX_PGQ_LEDGER_SLOTS && found < 0; i++)
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

/* The leaf that new batches go to. */
static int
batch_table_current_leaf(void)
{
	NgxPgqDatabase *database = ngx_pgq_shmem_database_of_backend();

	return database ? pg_atomic_read_u32(&database->ledger_leaf) : 0;
}

/*
 * The current leaf, locked until the transaction ends.  One that ceases to be
 * the current leaf before we have its lock is let go of again: the mover has
 * not seen us, and may take it for quiet.
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

/* By the executor only if the leaf is not what sql/batch.sql has made. */
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
		bulk.check_bound = false;	/* the number is that of the leaf */
		ngx_pgq_bulk_insert_add(&bulk, values);
		ngx_pgq_bulk_insert_end(&bulk);
		return;
	}
	sql = psprintf("insert into ngx_pgq.batch_%d (at, slot, batch_id) "
				   "values ($1, $2, $3)", leaf);
	SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 0);
}

/* A batch that is there: have its row written again, and say what it is. */
static NgxPgqEntry
batch_table_meet_again(int leaf, const pg_uuid_t *batch_id)
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
				 errmsg("batch was removed from the ledger while it was looked up")));
	return DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, 1, &isnull)) ?
		NGX_PGQ_ENTRY_TAKEN : NGX_PGQ_ENTRY_FENCED;
}

/*
 * Enter a batch, to be taken or to be fenced.  If it is known, a first attempt
 * has committed; one that is still running is waited for.  Needs an SPI
 * connection.
 */
NgxPgqEntry
ngx_pgq_batch_table_enter(const pg_uuid_t *batch_id, bool fence)
{
	bool		waited = batch_table_lock_batch(batch_id);
	int			leaf = batch_table_find_batch(batch_id);
	TimestampTz at = fence ? DT_NOEND : GetCurrentTimestamp();
	Relation	rel;

	if (leaf >= 0)
		return batch_table_meet_again(leaf, batch_id);

	rel = batch_table_open_current(&leaf);
	batch_table_insert(rel, leaf, batch_id, at);
	table_close(rel, NoLock);
	CommandCounterIncrement();	/* so that this command finds it again */
	return waited ? NGX_PGQ_ENTRY_FREED : NGX_PGQ_ENTRY_NEW;
}

/* Is no transaction in progress that may have written to the leaf? */
static bool
batch_table_is_without_writers(Oid relid)
{
	if (!ConditionalLockRelationOid(relid, ShareLock))
		return false;
	UnlockRelationOid(relid, ShareLock);
	return true;
}

/* Truncate a leaf that has been quiet for long, unless it is in use. */
static bool
batch_table_truncate_leaf(int leaf, Oid relid)
{
	if (!ngx_pgq_leaf_lock_to_truncate(relid))
		return false;
	NGX_PGQ_FAULT("ledger-locked");
	ngx_pgq_leaf_truncate("batch", leaf);
	NGX_PGQ_FAULT("ledger-truncated");
	return true;
}

/*
 * A leaf that is not the current one: note since when it is quiet, or truncate
 * it.  True if it was truncated.
 */
static bool
batch_table_tidy_old(NgxPgqDatabase *database, int leaf, int64 now)
{
	Oid			relid = ngx_pgq_leaf_relid("batch", leaf);
	int64		quiet_at = pg_atomic_read_u64(&database->ledger_quiet_at[leaf]);

	if (ngx_pgq_leaf_pages(relid) <= 0)
		return false;
	if (quiet_at == 0)
	{
		if (batch_table_is_without_writers(relid))
			pg_atomic_write_u64(&database->ledger_quiet_at[leaf], now);
		return false;
	}
	return now - quiet_at >= batch_table_period_us() &&
		batch_table_truncate_leaf(leaf, relid);
}

/* An empty leaf; -1 if there is none. */
static int
batch_table_empty_leaf(int current)
{
	for (int i = 1; i < NGX_PGQ_LEDGER_SLOTS; i++)
	{
		int			leaf = (current + i) % NGX_PGQ_LEDGER_SLOTS;

		if (ngx_pgq_leaf_pages(ngx_pgq_leaf_relid("batch", leaf)) == 0)
			return leaf;
	}
	return -1;
}

/*
 * Let an empty leaf take over from the current one when that is old: whichever
 * is empty, as a transaction that does not end keeps one from being truncated.
 */
static void
batch_table_advance(NgxPgqDatabase *database, int64 now)
{
	int			current = pg_atomic_read_u32(&database->ledger_leaf);
	int64		since = pg_atomic_read_u64(&database->ledger_since);
	int			next;

	if (since == 0)
		pg_atomic_write_u64(&database->ledger_since, now);
	else if (now - since >= batch_table_period_us() &&
			 ngx_pgq_leaf_pages(ngx_pgq_leaf_relid("batch", current)) > 0 &&
			 (next = batch_table_empty_leaf(current)) >= 0)
	{
		pg_atomic_write_u64(&database->ledger_quiet_at[current], 0);
		pg_atomic_write_u64(&database->ledger_since, now);
		/* an exchange, as it has to come before we look for writers */
		pg_atomic_exchange_u32(&database->ledger_leaf, next);
	}
}

static int64 look_after = 0;	/* ngx_pgq_clock() */

/* Is it time to look at the leaves? */
bool
ngx_pgq_batch_table_due(void)
{
	return ngx_pgq_clock() >= look_after || NGX_PGQ_FAULT_FORCED("ledger-due");
}

/*
 * Truncate a leaf that has been quiet for long enough.  Called in a transaction
 * of its own, when due; the commit is told by ngx_pgq_batch_table_keep().  One at
 * a time: the lock is let go of before the next is asked for.
 */
void
ngx_pgq_batch_table_tidy(NgxPgqDatabase *database)
{
	int64		now = ngx_pgq_clock();
	int			current;

	look_after = now + LOOK_US;
	batch_table_advance(database, now);
	current = pg_atomic_read_u32(&database->ledger_leaf);
	for (int i = 0; i < NGX_PGQ_LEDGER_SLOTS; i++)
	{
		if (i != current && batch_table_tidy_old(database, i, now))
			break;
	}
	NGX_PGQ_FAULT("ledger-finished");
}

/* The transaction has committed. */
void
ngx_pgq_batch_table_keep(void)
{
	NGX_PGQ_FAULT("ledger-committed");
}
