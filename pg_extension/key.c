/* SPDX-License-Identifier: PostgreSQL */
/*
 * key.c
 *	  The table of idempotency keys: taking keys, recalling them, forgetting
 *	  those of long ago.
 *
 * keyed.c takes and recalls, with the rights of the queue's owner; the first
 * mover of a database tidies.
 *
 * - Who takes a key holds an advisory lock on its hash until his transaction
 *	 has ended, which is after its commit can be seen and has been replicated.
 *	 So whoever gets the lock sees the row, if there is one; and who does not
 *	 get it does not wait.  The locks are of a kind of their own, which nothing
 *	 else uses.  Hence a key is taken by one transaction at a time, and no
 *	 unique index is needed.
 * - Times are those of the database, see service_time.c: no wall clock decides
 *	 anything here.
 * - The time of taking chooses the leaf, period by period in turn.  A key counts
 *	 for ngx_pgq.keep_keys from then on, wherever it lies: looking up goes
 *	 through all leaves.  It lets go of their locks at once, or under load no
 *	 leaf could ever be truncated.
 * - A leaf is truncated when its newest row has expired, by what it holds and
 *	 not by the clock: so the setting may change at any time.  No row is ever
 *	 updated or deleted, and truncating waits for no lock.
 * - Rows are kept for as long as the ledger may know the batch they came with,
 *	 however short keep_keys is: see ngx_pgq_keys_recall().
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "compat.h"
#include "fault.h"
#include "ngx_pgq.h"

/* A batch is not sent again when it is older than the ledger promises. */
#define KEEP_MIN_US		(3 * NGX_PGQ_LEDGER_US)
#define SAVE_US			INT64CONST(10000000)	/* between savings of the time */
#define LOOK_US			INT64CONST(5000000)	/* from look to look at the leaves, */
#define RETRY_US		INT64CONST(1000000)	/* while one is to be truncated */

#define FREED_MS		100		/* for locks of an attempt that has failed */

#define LOCK_KIND		0x7067	/* 1 and 2 are the SQL functions' */
#define LOCK_SEED		UINT64CONST(0x6e67785f7067715f)

/* The columns of a leaf, by their places in it. */
typedef struct Columns
{
	AttrNumber	at;
	AttrNumber	key;
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
keep_us(void)
{
	return ngx_pgq_keep_keys * USECS_PER_SEC;
}

/* How long its row is there, at least. */
static int64
stay_us(void)
{
	return Max(keep_us(), KEEP_MIN_US);
}

/* Rows of a leaf expire in the period after the next, which is its last. */
static int
leaf_at(TimestampTz at)
{
	return (at / (stay_us() / 2)) % NGX_PGQ_KEY_SLOTS;
}

static AttrNumber
column(Relation leaf, const char *name, Oid type)
{
	AttrNumber	place = get_attnum(RelationGetRelid(leaf), name);

	if (place == InvalidAttrNumber ||
		TupleDescAttr(RelationGetDescr(leaf), place - 1)->atttypid != type)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s.%s\" is missing or of another type",
						name, NGX_PGQ_SCHEMA, RelationGetRelationName(leaf))));
	return place;
}

/* An index of the leaf that begins with this column. */
static Relation
open_index(Relation leaf, AttrNumber place)
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

static Datum
value_of(TupleTableSlot *row, AttrNumber place)
{
	bool		isnull;
	Datum		value = slot_getattr(row, place, &isnull);

	if (isnull)
		elog(ERROR, "null in a row of a key");
	return value;
}

/*
 * Is this row a better answer than the one before?  Of those that count, which
 * for a batch sent again are all, the one that says most, and then the newest.
 */
static void
consider(NgxPgqKey *key, Found *found, TupleTableSlot *row,
		 const Columns *columns, TimestampTz expired, bool recall)
{
	static const int ranks[] = {[NGX_PGQ_KEY_OURS] = 3,[NGX_PGQ_KEY_REPLAY] = 2,
	[NGX_PGQ_KEY_OTHER] = 1};
	TimestampTz at = DatumGetTimestampTz(value_of(row, columns->at));
	pg_uuid_t  *id = DatumGetUUIDP(value_of(row, columns->message_id));
	bytea	   *print = DatumGetByteaPP(value_of(row, columns->fingerprint));
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

/* The rows of the keys in one leaf. */
static void
look_into(Relation leaf, Snapshot snapshot, NgxPgqKey *keys, Found *found,
		  int count, TimestampTz expired, bool recall)
{
	Columns		columns = {
		.at = column(leaf, "at", TIMESTAMPTZOID),
		.key = column(leaf, "key", TEXTOID),
		.fingerprint = column(leaf, "fingerprint", BYTEAOID),
		.message_id = column(leaf, "message_id", UUIDOID)
	};
	TupleTableSlot *row = table_slot_create(leaf, NULL);
	Relation	index = open_index(leaf, columns.key);
	IndexScanDesc scan = index_beginscan(leaf, index, snapshot, 1, 0);

	for (int k = 0; k < count; k++)
	{
		ScanKeyData wanted;

		if (keys[k].state == NGX_PGQ_KEY_BUSY)
			continue;
		ScanKeyEntryInitialize(&wanted, 0, 1, BTEqualStrategyNumber, InvalidOid,
							   index->rd_indcollation[0], F_TEXTEQ,
							   PointerGetDatum(keys[k].key));
		index_rescan(scan, &wanted, 1, NULL, 0);
		while (index_getnext_slot(scan, ForwardScanDirection, row))
			consider(&keys[k], &found[k], row, &columns, expired, recall);
	}
	index_endscan(scan);
	index_close(index, AccessShareLock);
	ExecDropSingleTupleTableSlot(row);
}

/*
 * What the table has of these keys, whose locks we have: by a snapshot that is
 * newer than the locks, whatever the transaction's own is.
 */
static void
look_up(NgxPgqKey *keys, int count, TimestampTz expired, bool recall)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Found	   *found = palloc0(count * sizeof(Found));

	for (int i = 0; i < NGX_PGQ_KEY_SLOTS; i++)
	{
		Relation	leaf = ngx_pgq_open_table(psprintf("key_%d", i),
											  AccessShareLock);

		if (RelationGetNumberOfBlocks(leaf) > 0)
			look_into(leaf, snapshot, keys, found, count, expired, recall);
		table_close(leaf, AccessShareLock);
	}
	UnregisterSnapshot(snapshot);
}

/* Lock a key, unless another transaction has it locked. */
static bool
lock_key(const NgxPgqKey *key)
{
	uint64		hash = hash_bytes_extended((unsigned char *) VARDATA_ANY(key->key),
										   VARSIZE_ANY_EXHDR(key->key),
										   LOCK_SEED);
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, LOCK_KIND);
	return LockAcquire(&tag, ExclusiveLock, false, true) !=
		LOCKACQUIRE_NOT_AVAIL;
}

static bool
same_key(const NgxPgqKey *a, const NgxPgqKey *b)
{
	size_t		length = VARSIZE_ANY_EXHDR(a->key);

	return length == VARSIZE_ANY_EXHDR(b->key) &&
		memcmp(VARDATA_ANY(a->key), VARDATA_ANY(b->key), length) == 0;
}

/* Of new keys that are the same, the first is taken. */
static void
find_twins(NgxPgqKey *keys, int count)
{
	for (int i = 0; i < count; i++)
	{
		for (int j = 0; j < i && keys[i].state == NGX_PGQ_KEY_NEW; j++)
		{
			if (keys[j].state == NGX_PGQ_KEY_NEW && same_key(&keys[i], &keys[j]))
				keys[i].state = NGX_PGQ_KEY_BUSY;
		}
	}
}

static SPIPlanPtr
write_plan(int leaf)
{
	static SPIPlanPtr plans[NGX_PGQ_KEY_SLOTS];

	if (plans[leaf] == NULL)
	{
		Oid			types[] = {TIMESTAMPTZOID, INT2OID, TEXTARRAYOID,
		BYTEAARRAYOID, UUIDARRAYOID};
		char	   *sql = psprintf("insert into ngx_pgq.key_%d "
								   "(at, slot, key, fingerprint, message_id) "
								   "select $1, $2, k.key, k.fingerprint, k.id "
								   "from unnest($3, $4, $5) "
								   "as k (key, fingerprint, id)", leaf);
		SPIPlanPtr	plan = SPI_prepare(sql, lengthof(types), types);

		SPI_keepplan(plan);
		plans[leaf] = plan;
	}
	return plans[leaf];
}

static Datum
array_of(Datum *elements, int count, Oid type)
{
	int16		length;
	bool		byval;
	char		align;

	get_typlenbyvalalign(type, &length, &byval, &align);
	return PointerGetDatum(construct_array(elements, count, type, length, byval,
										   align));
}

/* Write down those that are new. */
static void
write_new(NgxPgqKey *keys, int count, TimestampTz at)
{
	Datum	   *texts = palloc(count * sizeof(Datum));
	Datum	   *prints = palloc(count * sizeof(Datum));
	Datum	   *ids = palloc(count * sizeof(Datum));
	int			leaf = leaf_at(at);
	int			used = 0;
	Datum		values[5];

	for (int i = 0; i < count; i++)
	{
		bytea	   *print;

		if (keys[i].state != NGX_PGQ_KEY_NEW)
			continue;
		print = palloc(VARHDRSZ + sizeof(keys[i].fingerprint));
		SET_VARSIZE(print, VARHDRSZ + sizeof(keys[i].fingerprint));
		memcpy(VARDATA(print), keys[i].fingerprint, sizeof(keys[i].fingerprint));
		texts[used] = PointerGetDatum(keys[i].key);
		prints[used] = PointerGetDatum(print);
		ids[used] = UUIDPGetDatum(&keys[i].message_id);
		used++;
	}
	if (used == 0)
		return;
	values[0] = TimestampTzGetDatum(at);
	values[1] = Int16GetDatum(leaf);
	values[2] = array_of(texts, used, TEXTOID);
	values[3] = array_of(prints, used, BYTEAOID);
	values[4] = array_of(ids, used, UUIDOID);
	SPI_execute_plan(write_plan(leaf), values, NULL, false, 0);
	NGX_PGQ_FAULT("keys-written");
}

/*
 * Lock what can be locked.  An attempt of the same batch that has just failed
 * gives its locks up one after the other, and ours may be among the last: that
 * is worth a moment.
 */
static void
lock_keys(NgxPgqKey *keys, int count, bool freed)
{
	int			patience_ms = freed ? FREED_MS : 0;

	for (int i = 0; i < count; i++)
	{
		keys[i].state = NGX_PGQ_KEY_NEW;
		while (!lock_key(&keys[i]))
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
ngx_pgq_keys_take(NgxPgqKey *keys, int count, bool freed)
{
	TimestampTz at;

	if (count == 0)
		return;
	at = ngx_pgq_service_time();
	lock_keys(keys, count, freed);
	NGX_PGQ_FAULT("keys-locked");
	look_up(keys, count, at - keep_us(), false);
	find_twins(keys, count);
	write_new(keys, count, at);
}

/*
 * Say of each key what it is to a batch that is sent again, and whose first
 * attempt has committed.
 *
 * - That attempt took the key: its row is there with our id.  It does not go
 *	 as long as the batch may be sent again, and expired ones count here.
 * - It met the key taken: that row is there, unless it has expired since.  Ours
 *	 never was, so a row with another id is true whoever's it is.
 * - It met the key busy, or that row is gone: busy again.  Nothing was taken
 *	 under this id, and the client may send it anew.
 */
void
ngx_pgq_keys_recall(NgxPgqKey *keys, int count)
{
	if (count == 0)
		return;
	for (int i = 0; i < count; i++)
		keys[i].state = NGX_PGQ_KEY_NEW;
	look_up(keys, count, 0, true);
	for (int i = 0; i < count; i++)
	{
		if (keys[i].state == NGX_PGQ_KEY_NEW)
			keys[i].state = NGX_PGQ_KEY_BUSY;
	}
}

/* The time of the newest row of a leaf; the beginning of time if it has none. */
static TimestampTz
newest_row(Relation leaf)
{
	AttrNumber	place = column(leaf, "at", TIMESTAMPTZOID);
	Relation	index = open_index(leaf, place);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	IndexScanDesc scan = index_beginscan(leaf, index, snapshot, 0, 0);
	TupleTableSlot *row = table_slot_create(leaf, NULL);
	TimestampTz newest = DT_NOBEGIN;

	index_rescan(scan, NULL, 0, NULL, 0);
	if (index_getnext_slot(scan, BackwardScanDirection, row))
		newest = DatumGetTimestampTz(value_of(row, place));
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	return newest;
}

/* Is there something in a leaf, and all of it expired?  We have it locked. */
static bool
has_expired(Oid relid)
{
	Relation	leaf = try_table_open(relid, NoLock);
	bool		expired;

	if (leaf == NULL)
		return false;
	expired = RelationGetNumberOfBlocks(leaf) > 0 &&
		newest_row(leaf) < ngx_pgq_service_time() - stay_us();
	table_close(leaf, NoLock);
	return expired;
}

static Oid
leaf_relid(int leaf)
{
	return get_relname_relid(psprintf("key_%d", leaf),
							 get_namespace_oid(NGX_PGQ_SCHEMA, true));
}

/* Looked at under a weak lock, which hinders nobody who enqueues. */
static bool
is_old(Oid relid)
{
	bool		old;

	if (!OidIsValid(relid) ||
		!ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	old = has_expired(relid);
	UnlockRelationOid(relid, AccessShareLock);
	return old;
}

/* False if the leaf is in use. */
static bool
truncate_leaf(int number, Oid relid)
{
	if (!ngx_pgq_lock_to_truncate(relid))
		return false;
	NGX_PGQ_FAULT("key-leaf-locked");
	if (!has_expired(relid))
		return true;
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	SPI_execute(psprintf("truncate ngx_pgq.key_%d", number), false, 0);
	SPI_finish();
	PopActiveSnapshot();
	NGX_PGQ_FAULT("key-leaf-truncated");
	return true;
}

/*
 * This transaction's commit does not wait for a standby: those who look up keys
 * wait for our lock.
 */
static void
commit_locally(void)
{
	(void) set_config_option("synchronous_commit", "local", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/* Without keys there is nothing that the time is needed for. */
static bool
any_keys(void)
{
	for (int i = 0; i < NGX_PGQ_KEY_SLOTS; i++)
	{
		Oid			relid = leaf_relid(i);
		Relation	leaf = NULL;
		bool		any;

		if (OidIsValid(relid))
			leaf = try_table_open(relid, AccessShareLock);
		if (leaf == NULL)
			continue;
		any = RelationGetNumberOfBlocks(leaf) > 0;
		table_close(leaf, AccessShareLock);
		if (any)
			return true;
	}
	return false;
}

static int64 look_after = 0;	/* ngx_pgq_clock() */
static int64 save_after = 0;

/* Is it time to look at the leaves? */
bool
ngx_pgq_keys_due(void)
{
	return ngx_pgq_clock() >= look_after;
}

/*
 * Truncate a leaf whose keys have all expired, and save the time.  Called in a
 * transaction of its own, when due; the commit is told by ngx_pgq_keys_keep().
 * One leaf at a time: the lock is let go of before the next is asked for.
 */
void
ngx_pgq_keys_tidy(NgxPgqDatabase *database)
{
	look_after = ngx_pgq_clock() + LOOK_US;
	commit_locally();
	PushActiveSnapshot(GetTransactionSnapshot());
	for (int i = 0; i < NGX_PGQ_KEY_SLOTS; i++)
	{
		Oid			relid = leaf_relid(i);

		if (!is_old(relid))
			continue;
		look_after = ngx_pgq_clock() + RETRY_US;
		if (truncate_leaf(i, relid))
			break;
	}
	if (ngx_pgq_clock() >= save_after && any_keys())
	{
		save_after = ngx_pgq_clock() + SAVE_US;
		ngx_pgq_service_time_save();
	}
	PopActiveSnapshot();
	NGX_PGQ_FAULT("keys-finished");
}

/* The transaction has committed. */
void
ngx_pgq_keys_keep(void)
{
	NGX_PGQ_FAULT("keys-committed");
}
