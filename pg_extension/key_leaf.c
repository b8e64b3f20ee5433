/* SPDX-License-Identifier: PostgreSQL */
/*
 * key_leaf.c
 *	  The leaves of the table of idempotency keys.
 *
 * - The time at which a key is taken determines its leaf.  The leaves are used
 *	 in turn, each for one period.
 * - A leaf is truncated when its newest row has expired, so the setting may
 *	 change at any time.  No row is updated or deleted, and truncating waits
 *	 for no lock.
 * - However short keep_keys is, rows are kept for as long as their batch may
 *	 be sent again, see ngx_pgq_key_table_recall().
 * - All rows have the same size, so the pages give the number of rows.
 *	 Expired keys count until their leaf is truncated, as do rows of failed
 *	 transactions.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "fault.h"
#include "key_table.h"
#include "ngx_pgq.h"

/* Rows are kept for at least this time: a batch may be sent again. */
#define KEEP_MIN_US		(3 * NGX_PGQ_BATCH_KEEP_US)
/* Time between saves of the service time. */
#define SAVE_US			INT64CONST(10000000)
#define CHECK_US		INT64CONST(5000000) /* time between checks of leaves */
#define RETRY_US		INT64CONST(1000000) /* if a leaf has expired */

/* The time for which a row is kept. */
static int64
key_leaf_keep_us(void)
{
	return Max(ngx_pgq_keep_keys * USECS_PER_SEC, KEEP_MIN_US);
}

/*
 * The leaf for keys taken at this time.  A period is half of the time for
 * which a row is kept.
 */
int
ngx_pgq_key_leaf_at(TimestampTz at)
{
	return (at / (key_leaf_keep_us() / 2)) % NGX_PGQ_KEY_LEAVES;
}

/* Open an index of the leaf that begins with this column. */
Relation
ngx_pgq_key_leaf_index(Relation leaf, AttrNumber attnum)
{
	List	   *indexes = RelationGetIndexList(leaf);
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index->rd_rel->relam == BTREE_AM_OID &&
			index->rd_index->indisvalid &&
			index->rd_index->indkey.values[0] == attnum &&
			RelationGetIndexPredicate(index) == NIL)
			return index;
		index_close(index, AccessShareLock);
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("relation \"%s.%s\" lacks an index",
					NGX_PGQ_SCHEMA, RelationGetRelationName(leaf)),
			 errhint("Run sql/install.sql in this database.")));
	return NULL;
}

Datum
ngx_pgq_key_leaf_value(TupleTableSlot *row, AttrNumber attnum)
{
	bool		isnull;
	Datum		value = slot_getattr(row, attnum, &isnull);

	if (isnull)
		elog(ERROR, "unexpected null in a row of ngx_pgq.key");
	return value;
}

/* The time of the newest row of a leaf; -infinity if it has none. */
static TimestampTz
key_leaf_newest_row(Relation leaf)
{
	AttrNumber	attnum = ngx_pgq_leaf_column(leaf, "at", TIMESTAMPTZOID);
	Relation	index = ngx_pgq_key_leaf_index(leaf, attnum);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	IndexScanDesc scan = ngx_pgq_index_scan(leaf, index, snapshot, 0);
	TupleTableSlot *row = table_slot_create(leaf, NULL);
	TimestampTz newest = DT_NOBEGIN;

	index_rescan(scan, NULL, 0, NULL, 0);
	if (index_getnext_slot(scan, BackwardScanDirection, row))
		newest = DatumGetTimestampTz(ngx_pgq_key_leaf_value(row, attnum));
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	return newest;
}

/* Has a locked leaf rows, and have all of its rows expired? */
static bool
key_leaf_has_expired(Oid relid)
{
	Relation	leaf = try_table_open(relid, NoLock);
	bool		expired;

	if (leaf == NULL)
		return false;
	expired = RelationGetNumberOfBlocks(leaf) > 0 &&
		key_leaf_newest_row(leaf) < ngx_pgq_service_time() - key_leaf_keep_us();
	table_close(leaf, NoLock);
	return expired;
}

/* key_leaf_has_expired() with a lock that does not block enqueue(). */
static bool
key_leaf_is_old(Oid relid)
{
	bool		old;

	if (!OidIsValid(relid) ||
		!ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	old = key_leaf_has_expired(relid);
	UnlockRelationOid(relid, AccessShareLock);
	return old;
}

/* Truncate a leaf if it has expired; false if it is in use. */
static bool
key_leaf_truncate(int number, Oid relid)
{
	if (!ngx_pgq_leaf_lock_to_truncate(relid))
		return false;
	NGX_PGQ_FAULT("key-leaf-locked");
	if (!key_leaf_has_expired(relid))
		return true;
	ngx_pgq_leaf_truncate("key", number);
	NGX_PGQ_FAULT("key-leaf-truncated");
	return true;
}

/* An upper bound of the number of keys; locked leaves are not counted. */
static int64
key_leaf_count(void)
{
	int64		pages = 0;

	for (int i = 0; i < NGX_PGQ_KEY_LEAVES; i++)
		pages += Max(ngx_pgq_leaf_pages(ngx_pgq_leaf_relid("key", i)), 0);
	return pages * NGX_PGQ_KEY_ROWS_PER_PAGE;
}

/* Log when new keys begin to be refused, and when they are accepted again. */
static void
key_leaf_report_full(int64 count)
{
	static bool full = false;

	if (full == (count >= ngx_pgq_max_keys))
		return;
	full = !full;
	if (full)
		ereport(LOG,
				(errmsg("ngx_pgq: new idempotency keys are refused: the limit of %d (ngx_pgq.max_keys) is reached",
						ngx_pgq_max_keys)));
	else
		ereport(LOG,
				(errmsg("ngx_pgq: new idempotency keys are accepted again")));
}

static int64 next_check_at = 0;	/* no check before this ngx_pgq_clock() */
static int64 save_after = 0;	/* no save before this ngx_pgq_clock() */

bool
ngx_pgq_key_leaf_due(void)
{
	return ngx_pgq_clock() >= next_check_at;
}

/*
 * Truncate at most one leaf, so that its lock is released before another one
 * is requested, and save the time.  The caller begins a transaction for it
 * when it is due, and calls ngx_pgq_key_leaf_committed() after the commit.
 */
void
ngx_pgq_key_leaf_tidy(NgxPgqDatabase *database)
{
	int64		count;

	next_check_at = ngx_pgq_clock() + CHECK_US;
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	for (int i = 0; i < NGX_PGQ_KEY_LEAVES; i++)
	{
		Oid			relid = ngx_pgq_leaf_relid("key", i);

		if (!key_leaf_is_old(relid))
			continue;
		next_check_at = ngx_pgq_clock() + RETRY_US;
		if (key_leaf_truncate(i, relid))
			break;
	}
	count = key_leaf_count();
	key_leaf_report_full(count);
	/* the service time is needed only if there are keys */
	if (count > 0 && ngx_pgq_clock() >= save_after)
	{
		save_after = ngx_pgq_clock() + SAVE_US;
		ngx_pgq_service_time_save();
	}
	SPI_finish();
	PopActiveSnapshot();
	NGX_PGQ_FAULT("keys-finished");
}

void
ngx_pgq_key_leaf_committed(void)
{
	NGX_PGQ_FAULT("keys-committed");
}
