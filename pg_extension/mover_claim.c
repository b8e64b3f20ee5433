/* SPDX-License-Identifier: PostgreSQL */
/*
 * mover_claim.c
 *	  Claiming messages: which blocks a mover looks at, and what it takes there.
 *
 * Owns the claim in hand: the span of blocks this process took out of shared
 * memory and has not yet moved or given back (held).  A claim is taken in the
 * transaction of its batch, and given back when that failed.
 *
 * A claim reads a span of a leaf by a TID range scan and deletes what it sees,
 * skipping rows that others have locked: SKIP LOCKED, but with one record of
 * WAL a row and not two, and without a statement.  Its cost is that of the
 * blocks written since the last claim, however many dead rows lie elsewhere.
 * The span is only a hint; that no committed row is left behind follows from
 * these:
 *
 * - enqueue() gives the blocks it wrote to after its commit is visible, and a
 *	 claim takes the span before its snapshot.  So a claim sees the rows, or the
 *	 span it left behind holds their blocks.
 * - A claim that meets its limit gives the rest back at once; one that fails,
 *	 by an error or by the end of its process, gives all of it back.  A process
 *	 that cannot even do that is a crash: shared memory is made anew, and the
 *	 first cycle sweeps.
 * - Everything else is found by a sweep, see mover_sweep.c.
 * - A message that neither posts nor the dead letters take is set aside: this
 *	 process leaves it in the queue for a while, as if it were locked, so that
 *	 others are moved.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "bulk_insert.h"
#include "fault.h"
#include "ngx_pgq.h"

#define CLAIM_ROOM			1000	/* messages there is room for at first */
#define CLAIM_BYTES			(16 * 1024 * 1024)	/* enough for one batch */

#define ASIDE_MAX			1000	/* messages; more are tried at once */
#define ASIDE_US			INT64CONST(10000000)

typedef struct Aside
{
	int			slot;
	ItemPointerData tid;
	int64		until;			/* ngx_pgq_clock() */
} Aside;

typedef struct Held
{
	int			slot;
	int			count;			/* messages, counted as gone */
	NgxPgqSpan	span;
} Held;

static const NgxPgqSpan nothing = {InvalidBlockNumber, 0};
static Held held = {0, 0, {InvalidBlockNumber, 0}};
static Aside asides[ASIDE_MAX];
static int	aside_count = 0;

/* May this user take messages out of the leaf? */
static void
mover_claim_check_rights(Relation leaf)
{
	AclResult	acl = pg_class_aclcheck(RelationGetRelid(leaf), GetUserId(),
										ACL_SELECT);

	if (acl == ACLCHECK_OK)
		acl = pg_class_aclcheck(RelationGetRelid(leaf), GetUserId(),
								ACL_DELETE);
	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_TABLE, RelationGetRelationName(leaf));
	PreventCommandIfReadOnly("moving messages");
}

/* False if another session has locked or deleted the row. */
static bool
mover_claim_delete_unless_locked(Relation leaf, ItemPointer tid,
								 Snapshot snapshot)
{
	TM_FailureData failure;

	return table_tuple_delete(leaf, tid, GetCurrentCommandId(true), snapshot,
							  InvalidSnapshot, false, &failure,
							  false) == TM_Ok;
}

/* Columns of a leaf by name: a dump restored may have another order. */
static void
mover_claim_find_columns(Relation leaf, AttrNumber *columns)
{
	ngx_pgq_bulk_insert_check_columns(leaf, ngx_pgq_tables_columns,
									  NGX_PGQ_MESSAGE_COLUMNS);
	for (int i = 0; i < NGX_PGQ_MESSAGE_COLUMNS; i++)
		columns[i] = get_attnum(RelationGetRelid(leaf),
								ngx_pgq_tables_columns[i].name);
}

/*
 * A value of a message.  A column that is NOT NULL may hold null all the same
 * where the constraint was not validated.
 */
static Datum
mover_claim_value_of(HeapTuple tuple, AttrNumber column, TupleDesc desc)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, column, desc, &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a message in \"%s.queue\" is null in column \"%s\"",
						NGX_PGQ_SCHEMA,
						NameStr(TupleDescAttr(desc, column - 1)->attname))));
	return value;
}

/* Keep a row of a scan as a message; returns its size. */
static Size
mover_claim_keep_message(NgxPgqClaim *claim, TupleTableSlot *row,
						 const AttrNumber *columns)
{
	NgxPgqMessage *message = &claim->messages[claim->count++];
	HeapTuple	tuple = ExecCopySlotHeapTuple(row);
	TupleDesc	desc = row->tts_tupleDescriptor;

	ItemPointerCopy(&row->tts_tid, &message->tid);
	message->at = mover_claim_value_of(tuple, columns[0], desc);
	message->message_id = mover_claim_value_of(tuple, columns[1], desc);
	message->data = mover_claim_value_of(tuple, columns[2], desc);
	return toast_raw_datum_size(message->data);
}

/* Leave the only message of a claim, which is going to fail, in the queue. */
void
ngx_pgq_mover_claim_set_aside(const NgxPgqClaim *claim)
{
	Aside	   *aside = &asides[aside_count];

	if (aside_count == ASIDE_MAX)
		return;
	aside->slot = claim->slot;
	ItemPointerCopy(&claim->messages[0].tid, &aside->tid);
	aside->until = ngx_pgq_clock() + ASIDE_US;
	aside_count++;
}

/* Forget the messages that have been aside for long enough. */
static void
mover_claim_take_back(void)
{
	int64		now = ngx_pgq_clock();
	int			kept = 0;

	for (int i = 0; i < aside_count; i++)
	{
		if (asides[i].until > now)
			asides[kept++] = asides[i];
	}
	aside_count = kept;
}

static bool
mover_claim_is_aside(ItemPointer tid)
{
	for (int i = 0; i < aside_count; i++)
	{
		if (asides[i].slot == held.slot &&
			ItemPointerEquals(&asides[i].tid, tid))
			return true;
	}
	return false;
}

/*
 * Take messages out of a span, up to limit: delete each row that nobody else
 * has locked, as SELECT ... FOR UPDATE SKIP LOCKED and DELETE do in two steps.
 * True if the limit was met.
 */
static bool
mover_claim_take_rows(Relation leaf, NgxPgqSpan span, int limit,
					  NgxPgqClaim *claim)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *row = table_slot_create(leaf, NULL);
	AttrNumber	columns[NGX_PGQ_MESSAGE_COLUMNS];
	ItemPointerData low;
	ItemPointerData high;
	TableScanDesc scan;
	Size		size = 0;
	int			room = Min(limit, CLAIM_ROOM);

	mover_claim_find_columns(leaf, columns);
	claim->messages = palloc_array(NgxPgqMessage, room);
	ItemPointerSet(&low, span.low, 0);
	ItemPointerSet(&high, span.high, PG_UINT16_MAX);
	scan = table_beginscan_tidrange(leaf, snapshot, &low, &high);
	while (claim->count < limit && size < CLAIM_BYTES &&
		   table_scan_getnextslot_tidrange(scan, ForwardScanDirection, row))
	{
		CHECK_FOR_INTERRUPTS();
		if (mover_claim_is_aside(&row->tts_tid) ||
			!mover_claim_delete_unless_locked(leaf, &row->tts_tid, snapshot))
			continue;
		if (claim->count == room)
		{
			room = Min(limit, room * 2);
			claim->messages = repalloc_array(claim->messages, NgxPgqMessage,
											 room);
		}
		size += mover_claim_keep_message(claim, row, columns);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	UnregisterSnapshot(snapshot);
	return claim->count == limit || size >= CLAIM_BYTES;
}

/* By the time of coming in; by place where that is the same. */
static int
mover_claim_compare_messages(const void *a, const void *b)
{
	const NgxPgqMessage *left = a;
	const NgxPgqMessage *right = b;
	TimestampTz left_at = DatumGetTimestampTz(left->at);
	TimestampTz right_at = DatumGetTimestampTz(right->at);

	if (left_at != right_at)
		return left_at < right_at ? -1 : 1;
	return ItemPointerCompare(unconstify(ItemPointerData *, &left->tid),
							  unconstify(ItemPointerData *, &right->tid));
}

/* Claim messages in a span that is ours alone now. */
static void
mover_claim_span(NgxPgqDatabase *database, NgxPgqTables *tables,
				 NgxPgqSpan span, int limit, NgxPgqClaim *claim)
{
	NgxPgqSlot *slot = &database->slots[claim->slot];
	Relation	leaf;
	bool		full;

	held.slot = claim->slot;
	held.count = 0;
	held.span = span;
	NGX_PGQ_FAULT("span-taken");

	leaf = table_open(tables->queue[claim->slot], RowExclusiveLock);
	mover_claim_check_rights(leaf);
	full = mover_claim_take_rows(leaf, span, limit, claim);
	table_close(leaf, NoLock);
	held.count = claim->count;
	pg_atomic_fetch_add_u64(&slot->gone, claim->count);
	if (claim->count > 0)
		NGX_PGQ_FAULT("rows-taken");

	if (full)
	{
		NgxPgqSpan	rest = span;

		rest.low = ItemPointerGetBlockNumber(&claim->messages[claim->count - 1].tid);
		held.span.high = rest.low;
		ngx_pgq_shmem_span_give(database, claim->slot, rest);
		ngx_pgq_wake(database, true);
	}
	qsort(claim->messages, claim->count, sizeof(NgxPgqMessage),
		  mover_claim_compare_messages);
	if (claim->count > 0)
		pg_atomic_write_u64(&slot->since,
							DatumGetTimestampTz(claim->messages[0].at));
}

/* Claim what a sweep finds, if one is at work and may go on. */
static void
mover_claim_swept(NgxPgqDatabase *database, NgxPgqTables *tables, int limit,
				  NgxPgqClaim *claim)
{
	int64		started = ngx_pgq_clock();
	NgxPgqSpan	chunk;

	if (!ngx_pgq_mover_sweep_step())
		return;
	while (claim->count == 0 &&
		   ngx_pgq_mover_sweep_chunk(database, &claim->slot, &chunk))
		mover_claim_span(database, tables, chunk, limit, claim);
	ngx_pgq_mover_sweep_paid(database, ngx_pgq_clock() - started,
							 claim->count > 0);
}

/* The slots in the order they are looked at: the current one last. */
static void
mover_claim_order_slots(NgxPgqDatabase *database, int *slots)
{
	int			current = pg_atomic_read_u32(&database->slot);
	int			count = 0;

	for (int i = 1; i <= NGX_PGQ_SLOTS; i++)
	{
		int			slot = (current + i) % NGX_PGQ_SLOTS;
		uint64		sealed_at = pg_atomic_read_u64(&database->slots[slot].sealed_at);
		int			place = count++;

		while (slot != current && place > 0 && sealed_at <
			   pg_atomic_read_u64(&database->slots[slots[place - 1]].sealed_at))
		{
			slots[place] = slots[place - 1];
			place--;
		}
		slots[place] = slot;
	}
}

/*
 * Claim up to limit messages of one slot, in the order of coming in; none if
 * there is nothing to be found.  Needs a transaction whose end is told by
 * ngx_pgq_mover_claim_keep() or ngx_pgq_mover_claim_give_back().
 */
void
ngx_pgq_mover_claim_take(NgxPgqDatabase *database, NgxPgqTables *tables,
						 int limit, NgxPgqClaim *claim)
{
	int			slots[NGX_PGQ_SLOTS];

	claim->count = 0;
	mover_claim_take_back();
	mover_claim_swept(database, tables, limit, claim);
	mover_claim_order_slots(database, slots);
	for (int i = 0; i < NGX_PGQ_SLOTS && claim->count == 0; i++)
	{
		NgxPgqSpan	span = ngx_pgq_shmem_span_take(database, slots[i]);

		if (span.low > span.high)
			continue;
		claim->slot = slots[i];
		mover_claim_span(database, tables, span, limit, claim);
		CHECK_FOR_INTERRUPTS();
	}
}

/* The claim's transaction has committed. */
void
ngx_pgq_mover_claim_keep(void)
{
	held.span = nothing;
	held.count = 0;
}

/*
 * The claim's transaction is over and did nothing.  Returns how many messages
 * it was about.
 */
int
ngx_pgq_mover_claim_give_back(NgxPgqDatabase *database)
{
	int			count = held.count;

	ngx_pgq_shmem_span_give(database, held.slot, held.span);
	pg_atomic_fetch_sub_u64(&database->slots[held.slot].gone, held.count);
	ngx_pgq_mover_claim_keep();
	return count;
}
