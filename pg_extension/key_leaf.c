/* SPDX-License-Identifier: PostgreSQL */
/*
 * key_leaf.c
 *	  The leaves of the table of idempotency keys: which one is written to, how
 *	  many keys they hold, and truncating them.
 *
 * The first mover of a database truncates, and saves the database's own time.
 *
 * - The time of taking chooses the leaf, period by period in turn.
 * - A leaf is truncated when its newest row has expired, by what it holds and
 *	 not by the clock: so the setting may change at any time.  No row is ever
 *	 updated or deleted, and truncating waits for no lock.
 * - Rows are kept as long as a batch that they came with may be sent again,
 *	 however short keep_keys is: see ngx_pgq_key_table_recall().
 * - Each row has the same size, so the pages tell how many there are.  Keys that
 *	 have expired count until their leaf is truncated, and so do rows of
 *	 transactions that failed.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/index.h"
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

/* A batch is not sent again when it is older than the ledger promises. */
#define KEEP_MIN_US		(3 * NGX_PGQ_LEDGER_US)
#define SAVE_US			INT64CONST(10000000)	/* between savings of the time */
#define LOOK_US			INT64CONST(5000000)	/* from look to look at the leaves, */
#define RETRY_US		INT64CONST(1000000)	/* while one is to be truncated */

#define ROWS_A_PAGE		(BLCKSZ / 124)	/* each has 120 bytes, its pointer 4 */

/* How long a row is there, at least. */
static int64
key_leaf_stay_us(void)
{
	return Max(ngx_pgq_keep_keys * USECS_PER_SEC, KEEP_MIN_US);
}

/* Rows of a leaf expire in the period after the next, which is its last. */
int
ngx_pgq_key_leaf_at(TimestampTz at)
{
	return (at / (key_leaf_stay_us() / 2)) % NGX_PGQ_KEY_SLOTS;
}

/* An index of the leaf that begins with this column. */
Relation
ngx_pgq_key_leaf_index(Relation leaf, AttrNumber place)
{
	List	   *indexes = RelationGetIndexList(leaf);
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index->rd_rel->relam == BTREE_AM_OID &&
			index->rd_index->indisvalid &&
			index->rd_index->indkey.values[0] == place &&
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
ngx_pgq_key_leaf_value(TupleTableSlot *row, AttrNumber place)
{
	bool		isnull;
	Datum		value = slot_getattr(row, place, &isnull);

	if (isnull)
		elog(ERROR, "null in a row of a key");
	return value;
}

/* How many rows this number of pages may hold. */
int64
ngx_pgq_key_leaf_rows(int64 pages)
{
	return pages * ROWS_A_PAGE;
}

/* The time of the newest row of a leaf; the beginning of time if it has none. */
static TimestampTz
key_leaf_newest_row(Relation leaf)
{
	AttrNumber	place = ngx_pgq_leaf_column(leaf, "at", TIMESTAMPTZOID);
	Relation	index = ngx_pgq_key_leaf_index(leaf, place);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	IndexScanDesc scan = ngx_pgq_index_scan(leaf, index, snapshot, 0);
	TupleTableSlot *row = table_slot_create(leaf, NULL);
	TimestampTz newest = DT_NOBEGIN;

	index_rescan(scan, NULL, 0, NULL, 0);
	if (index_getnext_slot(scan, BackwardScanDirection, row))
		newest = DatumGetTimestampTz(ngx_pgq_key_leaf_value(row, place));
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	return newest;
}

/* Is there something in a leaf, and all of it expired?  We have it locked. */
static bool
key_leaf_has_expired(Oid relid)
{
	Relation	leaf = try_table_open(relid, NoLock);
	bool		expired;

	if (leaf == NULL)
		return false;
	expired = RelationGetNumberOfBlocks(leaf) > 0 &&
		key_leaf_newest_row(leaf) < ngx_pgq_service_time() - key_leaf_stay_us();
	table_close(leaf, NoLock);
	return expired;
}

/* Looked at under a weak lock, which hinders nobody who enqueues. */
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

/* False if the leaf is in use. */
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

/* How many keys there are at most; a leaf that others have locked counts as 0. */
static int64
key_leaf_count(void)
{
	int64		pages = 0;

	for (int i = 0; i < NGX_PGQ_KEY_SLOTS; i++)
		pages += Max(ngx_pgq_leaf_pages(ngx_pgq_leaf_relid("key", i)), 0);
	return ngx_pgq_key_leaf_rows(pages);
}

/* Say when new keys begin to be refused, and when they are taken again. */
static void
key_leaf_report_full(int64 count)
{
	static bool full = false;

	if (full == (count >= ngx_pgq_max_keys))
		return;
	full = !full;
	if (full)
		ereport(LOG,
				(errmsg("ngx_pgq: new idempotency keys are refused, as there are %d (ngx_pgq.max_keys)",
						ngx_pgq_max_keys)));
	else
		ereport(LOG,
				(errmsg("ngx_pgq: new idempotency keys are accepted again")));
}

static int64 look_after = 0;	/* ngx_pgq_clock() */
static int64 save_after = 0;

/* Is it time to look at the leaves? */
bool
ngx_pgq_key_leaf_due(void)
{
	return ngx_pgq_clock() >= look_after;
}

/*
 * Truncate a leaf whose keys have all expired, and save the time.  Called in a
 * transaction of its own, when due; the commit is told by
 * ngx_pgq_key_leaf_keep().  One leaf at a time: the lock is let go of before the
 * next is asked for.
 */
void
ngx_pgq_key_leaf_tidy(NgxPgqDatabase *database)
{
	int64		count;

	look_after = ngx_pgq_clock() + LOOK_US;
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	for (int i = 0; i < NGX_PGQ_KEY_SLOTS; i++)
	{
		Oid			relid = ngx_pgq_leaf_relid("key", i);

		if (!key_leaf_is_old(relid))
			continue;
		look_after = ngx_pgq_clock() + RETRY_US;
		if (key_leaf_truncate(i, relid))
			break;
	}
	count = key_leaf_count();
	key_leaf_report_full(count);
	/* without keys there is nothing that the time is needed for */
	if (count > 0 && ngx_pgq_clock() >= save_after)
	{
		save_after = ngx_pgq_clock() + SAVE_US;
		ngx_pgq_service_time_save();
	}
	SPI_finish();
	PopActiveSnapshot();
	NGX_PGQ_FAULT("keys-finished");
}

/* The transaction has committed. */
void
ngx_pgq_key_leaf_keep(void)
{
	NGX_PGQ_FAULT("keys-committed");
}
