/* SPDX-License-Identifier: PostgreSQL */
/*
 * key_table.c
 *	  The table of idempotency keys: taking keys and recalling them.
 *
 * The caller has the rights of the queue's owner.  key_leaf.c has the leaves
 * of the table.
 *
 * - A transaction that takes a key holds an advisory lock on its digest until
 *	 it has ended, that is, until its commit is replicated and visible.  So a
 *	 transaction that gets the lock sees the row if there is one.  A
 *	 transaction that does not get the lock does not wait.  Hence one
 *	 transaction at a time takes a key, and no unique index is needed.
 * - Times are those of the database (service_time.c), not of a wall clock.
 * - A key is valid for ngx_pgq.keep_keys after it was taken, in any leaf: a
 *	 lookup searches all leaves.  It releases their locks at once; otherwise no
 *	 leaf could be truncated under load.
 * - The SHA-256 of a key is stored.  New keys are refused while the table may
 *	 have ngx_pgq.max_keys rows.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lock.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "bulk_insert.h"
#include "compat.h"
#include "fault.h"
#include "key_table.h"
#include "ngx_pgq.h"

#define LOCK_WAIT_MS	100		/* wait for a failed attempt to unlock */

typedef struct Columns
{
	AttrNumber	at;
	AttrNumber	digest;
	AttrNumber	fingerprint;
	AttrNumber	message_id;
} Columns;

/* The best row found so far for a key. */
typedef struct Found
{
	int			rank;			/* rank of its state; 0: no row was found */
	TimestampTz at;
} Found;

/*
 * Use this row if it is the best so far: highest rank first, then newest.
 * Expired rows count only if a batch is recalled.
 */
static void
key_table_consider(NgxPgqKey *key, Found *found, TupleTableSlot *row,
				   const Columns *columns, TimestampTz expired, bool recall)
{
	static const int ranks[] = {[NGX_PGQ_KEY_OURS] = 3,[NGX_PGQ_KEY_REPLAY] = 2,
	[NGX_PGQ_KEY_OTHER] = 1};
	TimestampTz at = DatumGetTimestampTz(ngx_pgq_key_leaf_value(row, columns->at));
	pg_uuid_t  *id = DatumGetUUIDP(ngx_pgq_key_leaf_value(row, columns->message_id));
	Datum		value = ngx_pgq_key_leaf_value(row, columns->fingerprint);
	bytea	   *fingerprint = DatumGetByteaPP(value);
	NgxPgqKeyState state = NGX_PGQ_KEY_OTHER;
	int			rank;

	if (!recall && at <= expired)
		return;
	if (VARSIZE_ANY_EXHDR(fingerprint) == sizeof(key->fingerprint) &&
		memcmp(VARDATA_ANY(fingerprint), key->fingerprint,
			   sizeof(key->fingerprint)) == 0)
		state = NGX_PGQ_KEY_REPLAY;
	if (recall && memcmp(id, &key->message_id, UUID_LEN) == 0)
		state = NGX_PGQ_KEY_OURS;
	rank = recall ? ranks[state] : 1;
	if (rank < found->rank || (rank == found->rank && at <= found->at))
		return;
	found->rank = rank;
	found->at = at;
	key->state = state;
	key->known_id = *id;
}

static Datum
key_table_bytes(const uint8 *data, size_t length)
{
	bytea	   *value = palloc(VARHDRSZ + length);

	SET_VARSIZE(value, VARHDRSZ + length);
	memcpy(VARDATA(value), data, length);
	return PointerGetDatum(value);
}

/* Look up the keys in one leaf. */
static void
key_table_look_up_leaf(Relation leaf, Snapshot snapshot, NgxPgqKey *keys,
					   Found *found, int count, TimestampTz expired,
					   bool recall)
{
	Columns		columns = {
		.at = ngx_pgq_leaf_column(leaf, "at", TIMESTAMPTZOID),
		.digest = ngx_pgq_leaf_column(leaf, "digest", BYTEAOID),
		.fingerprint = ngx_pgq_leaf_column(leaf, "fingerprint", BYTEAOID),
		.message_id = ngx_pgq_leaf_column(leaf, "message_id", UUIDOID)
	};
	TupleTableSlot *row = table_slot_create(leaf, NULL);
	Relation	index = ngx_pgq_key_leaf_index(leaf, columns.digest);
	IndexScanDesc scan = ngx_pgq_index_scan(leaf, index, snapshot, 1);

	for (int k = 0; k < count; k++)
	{
		ScanKeyData wanted;

		if (keys[k].state == NGX_PGQ_KEY_BUSY)
			continue;
		ScanKeyEntryInitialize(&wanted, 0, 1, BTEqualStrategyNumber, InvalidOid,
							   InvalidOid, F_BYTEAEQ,
							   key_table_bytes(keys[k].digest,
											   sizeof(keys[k].digest)));
		index_rescan(scan, &wanted, 1, NULL, 0);
		while (index_getnext_slot(scan, ForwardScanDirection, row))
			key_table_consider(&keys[k], &found[k], row, &columns, expired,
							   recall);
	}
	index_endscan(scan);
	index_close(index, AccessShareLock);
	ExecDropSingleTupleTableSlot(row);
}

/*
 * Look up these keys, which are locked, by a snapshot that is newer than the
 * locks.  Returns an upper bound of the number of rows in the table.
 */
static int64
key_table_look_up(NgxPgqKey *keys, int count, TimestampTz expired, bool recall)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Found	   *found = palloc0(count * sizeof(Found));
	int64		pages = 0;

	for (int i = 0; i < NGX_PGQ_KEY_LEAVES; i++)
	{
		Relation	leaf = ngx_pgq_leaf_open("key", i, AccessShareLock);
		BlockNumber blocks = RelationGetNumberOfBlocks(leaf);

		if (blocks > 0)
			key_table_look_up_leaf(leaf, snapshot, keys, found, count, expired,
								   recall);
		pages += blocks;
		table_close(leaf, AccessShareLock);
	}
	UnregisterSnapshot(snapshot);
	return pages * NGX_PGQ_KEY_ROWS_PER_PAGE;
}

/* Lock a key, unless another transaction has it locked. */
static bool
key_table_lock_key(const NgxPgqKey *key)
{
	uint32		hash[2];
	LOCKTAG		tag;

	memcpy(hash, key->digest, sizeof(hash));
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, hash[0], hash[1], NGX_PGQ_LOCK_KEY);
	return LockAcquire(&tag, ExclusiveLock, false, true) !=
		LOCKACQUIRE_NOT_AVAIL;
}

/* If a new key is given twice, only the first is taken. */
static void
key_table_find_duplicates(NgxPgqKey *keys, int count)
{
	for (int i = 0; i < count; i++)
	{
		for (int j = 0; j < i && keys[i].state == NGX_PGQ_KEY_NEW; j++)
		{
			if (keys[j].state == NGX_PGQ_KEY_NEW &&
				memcmp(keys[i].digest, keys[j].digest,
					   sizeof(keys[i].digest)) == 0)
				keys[i].state = NGX_PGQ_KEY_BUSY;
		}
	}
}

static SPIPlanPtr
key_table_write_plan(int leaf)
{
	static SPIPlanPtr plans[NGX_PGQ_KEY_LEAVES];

	if (plans[leaf] == NULL)
	{
		Oid			types[] = {TIMESTAMPTZOID, INT2OID, BYTEAARRAYOID,
		BYTEAARRAYOID, UUIDARRAYOID};
		char	   *sql = psprintf("insert into ngx_pgq.key_%d "
								   "(at, slot, digest, fingerprint, message_id) "
								   "select $1, $2, k.digest, k.fingerprint, k.id "
								   "from unnest($3, $4, $5) "
								   "as k (digest, fingerprint, id)", leaf);
		SPIPlanPtr	plan = SPI_prepare(sql, lengthof(types), types);

		SPI_keepplan(plan);
		plans[leaf] = plan;
	}
	return plans[leaf];
}

/* Insert the new keys. */
static void
key_table_write_new(NgxPgqKey *keys, int count, TimestampTz at)
{
	Datum	   *digests = palloc(count * sizeof(Datum));
	Datum	   *fingerprints = palloc(count * sizeof(Datum));
	Datum	   *ids = palloc(count * sizeof(Datum));
	int			leaf = ngx_pgq_key_leaf_at(at);
	int			used = 0;
	Datum		values[5];

	for (int i = 0; i < count; i++)
	{
		if (keys[i].state != NGX_PGQ_KEY_NEW)
			continue;
		digests[used] = key_table_bytes(keys[i].digest,
										sizeof(keys[i].digest));
		fingerprints[used] = key_table_bytes(keys[i].fingerprint,
											 sizeof(keys[i].fingerprint));
		ids[used] = UUIDPGetDatum(&keys[i].message_id);
		used++;
	}
	if (used == 0)
		return;
	values[0] = TimestampTzGetDatum(at);
	values[1] = Int16GetDatum(leaf);
	values[2] = ngx_pgq_bulk_insert_array(digests, used, BYTEAOID);
	values[3] = ngx_pgq_bulk_insert_array(fingerprints, used, BYTEAOID);
	values[4] = ngx_pgq_bulk_insert_array(ids, used, UUIDOID);
	SPI_execute_plan(key_table_write_plan(leaf), values, NULL, false, 0);
	NGX_PGQ_FAULT("keys-written");
}

/*
 * Lock the keys that no other transaction has locked.  retry: an attempt of
 * the same batch has just failed and releases its locks one by one.  Wait up
 * to LOCK_WAIT_MS for them.
 */
static void
key_table_lock_keys(NgxPgqKey *keys, int count, bool retry)
{
	int			wait_ms = retry ? LOCK_WAIT_MS : 0;

	for (int i = 0; i < count; i++)
	{
		keys[i].state = NGX_PGQ_KEY_NEW;
		while (!key_table_lock_key(&keys[i]))
		{
			if (wait_ms-- <= 0)
			{
				keys[i].state = NGX_PGQ_KEY_BUSY;
				break;
			}
			CHECK_FOR_INTERRUPTS();
			pg_usleep(1000);
		}
	}
}

/*
 * Take the keys that are free, and set the state of each.  Does not wait for a
 * key that another transaction takes.  Needs an SPI connection.
 */
void
ngx_pgq_key_table_take(NgxPgqKey *keys, int count, bool retry)
{
	TimestampTz at;
	bool		full;

	if (count == 0)
		return;
	at = ngx_pgq_service_time();
	key_table_lock_keys(keys, count, retry);
	NGX_PGQ_FAULT("keys-locked");
	full = key_table_look_up(keys, count,
							 at - ngx_pgq_keep_keys * USECS_PER_SEC,
							 false) >= ngx_pgq_max_keys;
	for (int i = 0; i < count && full; i++)
	{
		if (keys[i].state == NGX_PGQ_KEY_NEW)
			keys[i].state = NGX_PGQ_KEY_FULL;
	}
	key_table_find_duplicates(keys, count);
	key_table_write_new(keys, count, at);
}

/*
 * Set the state of each key for a batch that is sent again after its first
 * attempt has committed.
 *
 * - If that attempt took the key, its row has our id.  The row is kept for as
 *	 long as the batch may be sent again; expired rows are used too.
 * - If the key was taken, that row exists, unless it has expired since.  The
 *	 key was never ours, so any row with another id is right.
 * - If the key was busy, the table full, or that row has expired: busy again.
 *	 Nothing was enqueued under this id, so the client may send it again.
 */
void
ngx_pgq_key_table_recall(NgxPgqKey *keys, int count)
{
	if (count == 0)
		return;
	for (int i = 0; i < count; i++)
		keys[i].state = NGX_PGQ_KEY_NEW;
	(void) key_table_look_up(keys, count, 0, true);
	for (int i = 0; i < count; i++)
	{
		if (keys[i].state == NGX_PGQ_KEY_NEW)
			keys[i].state = NGX_PGQ_KEY_BUSY;
	}
}
