/* SPDX-License-Identifier: PostgreSQL */
/*
 * key_table.c
 *	  The table of idempotency keys: taking keys, and recalling them.
 *
 * enqueue.c calls it with the rights of the queue's owner.  The leaves of the
 * table are key_leaf.c's.
 *
 * - A transaction that takes a key holds an advisory lock on its digest until it
 *	 has ended, which is after its commit can be seen and has been replicated.
 *	 So a transaction that gets the lock sees the row, if there is one; and one
 *	 that does not get it does not wait.  The locks are of a kind of their own,
 *	 which nothing else uses.  Hence a key is taken by one transaction at a time,
 *	 and no unique index is needed.
 * - Times are those of the database, see service_time.c: no wall clock decides
 *	 anything here.
 * - A key counts for ngx_pgq.keep_keys from its taking on, wherever it lies:
 *	 looking up goes through all leaves.  It lets go of their locks at once, or
 *	 under load no leaf could ever be truncated.
 * - A key is kept as its SHA-256.  A new one is refused when the table may hold
 *	 ngx_pgq.max_keys.
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
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "bulk_insert.h"
#include "compat.h"
#include "fault.h"
#include "key_table.h"
#include "ngx_pgq.h"

#define FREED_MS		100		/* for locks of an attempt that has failed */

#define LOCK_KIND		0x7067	/* 1 and 2 are the SQL functions' */

/* The columns of a leaf, by their places in it. */
typedef struct Columns
{
	AttrNumber	at;
	AttrNumber	digest;
	AttrNumber	fingerprint;
	AttrNumber	message_id;
} Columns;

/* The best row for a key so far. */
typedef struct Found
{
	int			rank;			/* 0: there is none */
	TimestampTz at;
} Found;

/* How long a key counts. */
static int64
key_table_keep_us(void)
{
	return ngx_pgq_keep_keys * USECS_PER_SEC;
}

/*
 * Is this row a better answer than the one before?  Of those that count, which
 * for a batch sent again are all, the one that says most, and then the newest.
 */
static void
key_table_consider(NgxPgqKey *key, Found *found, TupleTableSlot *row,
				   const Columns *columns, TimestampTz expired, bool recall)
{
	static const int ranks[] = {[NGX_PGQ_KEY_OURS] = 3,[NGX_PGQ_KEY_REPLAY] = 2,
	[NGX_PGQ_KEY_OTHER] = 1};
	TimestampTz at = DatumGetTimestampTz(ngx_pgq_key_leaf_value(row, columns->at));
	pg_uuid_t  *id = DatumGetUUIDP(ngx_pgq_key_leaf_value(row, columns->message_id));
	bytea	   *print = DatumGetByteaPP(ngx_pgq_key_leaf_value(row, columns->fingerprint));
	NgxPgqKeyState state = NGX_PGQ_KEY_OTHER;
	int			rank;

	if (!recall && at <= expired)
		return;
	if (VARSIZE_ANY_EXHDR(print) == sizeof(key->fingerprint) &&
		memcmp(VARDATA_ANY(print), key->fingerprint,
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

/* The rows of the keys in one leaf. */
static void
key_table_look_into(Relation leaf, Snapshot snapshot, NgxPgqKey *keys,
					Found *found, int count, TimestampTz expired, bool recall)
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
 * What the table has of these keys, whose locks we have: by a snapshot that is
 * newer than the locks, whatever the transaction's own is.  Returns how many
 * rows there are at most, by the pages that they take.
 */
static int64
key_table_look_up(NgxPgqKey *keys, int count, TimestampTz expired, bool recall)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Found	   *found = palloc0(count * sizeof(Found));
	int64		pages = 0;

	for (int i = 0; i < NGX_PGQ_KEY_SLOTS; i++)
	{
		Relation	leaf = ngx_pgq_leaf_open("key", i, AccessShareLock);
		BlockNumber blocks = RelationGetNumberOfBlocks(leaf);

		if (blocks > 0)
			key_table_look_into(leaf, snapshot, keys, found, count, expired,
								recall);
		pages += blocks;
		table_close(leaf, AccessShareLock);
	}
	UnregisterSnapshot(snapshot);
	return ngx_pgq_key_leaf_rows(pages);
}

/* Lock a key, unless another transaction has it locked. */
static bool
key_table_lock_key(const NgxPgqKey *key)
{
	uint32		hash[2];
	LOCKTAG		tag;

	memcpy(hash, key->digest, sizeof(hash));
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, hash[0], hash[1], LOCK_KIND);
	return LockAcquire(&tag, ExclusiveLock, false, true) !=
		LOCKACQUIRE_NOT_AVAIL;
}

/* Of new keys that are the same, the first is taken. */
static void
key_table_find_twins(NgxPgqKey *keys, int count)
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

/* The table has as many keys as it may have: those that are new are refused. */
static void
key_table_refuse_new(NgxPgqKey *keys, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (keys[i].state == NGX_PGQ_KEY_NEW)
			keys[i].state = NGX_PGQ_KEY_FULL;
	}
}

static SPIPlanPtr
key_table_write_plan(int leaf)
{
	static SPIPlanPtr plans[NGX_PGQ_KEY_SLOTS];

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

/* Write down those that are new. */
static void
key_table_write_new(NgxPgqKey *keys, int count, TimestampTz at)
{
	Datum	   *digests = palloc(count * sizeof(Datum));
	Datum	   *prints = palloc(count * sizeof(Datum));
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
		prints[used] = key_table_bytes(keys[i].fingerprint,
									   sizeof(keys[i].fingerprint));
		ids[used] = UUIDPGetDatum(&keys[i].message_id);
		used++;
	}
	if (used == 0)
		return;
	values[0] = TimestampTzGetDatum(at);
	values[1] = Int16GetDatum(leaf);
	values[2] = ngx_pgq_bulk_insert_array(digests, used, BYTEAOID);
	values[3] = ngx_pgq_bulk_insert_array(prints, used, BYTEAOID);
	values[4] = ngx_pgq_bulk_insert_array(ids, used, UUIDOID);
	SPI_execute_plan(key_table_write_plan(leaf), values, NULL, false, 0);
	NGX_PGQ_FAULT("keys-written");
}

/*
 * Lock what can be locked.  An attempt of the same batch that has just failed
 * gives its locks up one after the other, and ours may be among the last: that
 * is worth a moment.
 */
static void
key_table_lock_keys(NgxPgqKey *keys, int count, bool freed)
{
	int			patience_ms = freed ? FREED_MS : 0;

	for (int i = 0; i < count; i++)
	{
		keys[i].state = NGX_PGQ_KEY_NEW;
		while (!key_table_lock_key(&keys[i]))
		{
			if (patience_ms-- <= 0)
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
 * Take these keys, as far as they are free, and say of each what it is.  Never
 * waits for another's key.  Needs an SPI connection.
 */
void
ngx_pgq_key_table_take(NgxPgqKey *keys, int count, bool freed)
{
	TimestampTz at;

	if (count == 0)
		return;
	at = ngx_pgq_service_time();
	key_table_lock_keys(keys, count, freed);
	NGX_PGQ_FAULT("keys-locked");
	if (key_table_look_up(keys, count, at - key_table_keep_us(), false) >=
		ngx_pgq_max_keys)
		key_table_refuse_new(keys, count);
	key_table_find_twins(keys, count);
	key_table_write_new(keys, count, at);
}

/*
 * Say of each key what it is to a batch that is sent again, and whose first
 * attempt has committed.
 *
 * - That attempt took the key: its row is there with our id.  It does not go
 *	 as long as the batch may be sent again, and expired ones count here.
 * - It met the key taken: that row is there, unless it has expired since.  Ours
 *	 never was, so a row with another id is true whoever's it is.
 * - It met the key busy, or the table full, or that row is gone: busy again.
 *	 Nothing was taken under this id, and the client may send it anew.
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
