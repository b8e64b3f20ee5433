/* SPDX-License-Identifier: PostgreSQL */
/*
 * mover_claim.c
 *	  Claiming messages: deleting them from the queue for a batch.
 *
 * Owns the current claim (held): the span that this process has taken from
 * shared memory and has not yet moved or given back.  A claim belongs to the
 * transaction of its batch, and is given back if that fails.
 *
 * A claim reads a span of a leaf by a TID range scan and deletes the rows that
 * no other session has locked.  This is SKIP LOCKED with one WAL record for
 * each row instead of two, and without a statement.  Its cost is that of the
 * blocks written since the last claim; dead rows in other blocks cost nothing.
 * The span is only a hint.  No committed row is left behind, because:
 *
 * - enqueue() adds the blocks it wrote to after its commit is visible, and a
 *	 claim takes the span before its snapshot.  So a claim sees the rows, or
 *	 their blocks are in the span that is left for the next claim.
 * - A claim that reaches its limit gives the rest back at once.  A claim that
 *	 fails, by an error or the exit of its process, gives all back.  If a
 *	 process cannot do that, the server restarts, shared memory is initialized,
 *	 and the first batch begins with a sweep.
 * - A sweep finds all other rows, see mover_sweep.c.
 * - A message that both posts and the dead letters refuse is set aside: this
 *	 process ignores it for a while, as if it were locked.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "bulk_insert.h"
#include "fault.h"
#include "ngx_pgq.h"

#define CLAIM_ALLOCATED		1000	/* initial size of the array of messages */
#define CLAIM_BYTES			(16 * 1024 * 1024)	/* maximum size of a batch */

#define ASIDE_MAX			1000	/* maximum number of messages set aside */
/* A message stays aside for this time. */
#define ASIDE_US			INT64CONST(10000000)

/* A message that this process ignores for a while. */
typedef struct Aside
{
	int			slot;
	ItemPointerData tid;
	int64		until;			/* ngx_pgq_clock() when this ends */
} Aside;

/* The current claim. */
typedef struct Held
{
	int			slot;
	int			count;			/* messages that were counted as moved */
	NgxPgqSpan	span;
} Held;

static const NgxPgqSpan nothing = {InvalidBlockNumber, 0};
static Held held = {0, 0, {InvalidBlockNumber, 0}};
static Aside asides[ASIDE_MAX];
static int	aside_count = 0;

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

/*
 * Find columns by name: the restore of a dump may change their order.  The
 * last one, topic, is InvalidAttrNumber if it does not exist.
 */
static void
mover_claim_find_columns(Relation leaf, AttrNumber *columns)
{
	ngx_pgq_bulk_insert_check_columns(leaf, ngx_pgq_tables_columns,
									  ngx_pgq_tables_count_columns(RelationGetRelid(leaf)));
	for (int i = 0; i < NGX_PGQ_MESSAGE_COLUMNS; i++)
		columns[i] = get_attnum(RelationGetRelid(leaf),
								ngx_pgq_tables_columns[i].name);
}

/* A value of a message.  It may be null if NOT NULL was not validated. */
static Datum
mover_claim_value_of(const Datum *values, const bool *nulls, AttrNumber column,
					 TupleDesc desc)
{
	if (nulls[column - 1])
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a message in \"%s.queue\" is null in column \"%s\"",
						NGX_PGQ_SCHEMA,
						NameStr(TupleDescAttr(desc, column - 1)->attname))));
	return values[column - 1];
}

/* Add a row to the claim; returns its size. */
static Size
mover_claim_add_message(NgxPgqClaim *claim, TupleTableSlot *row,
						const AttrNumber *columns)
{
	NgxPgqMessage *message = &claim->messages[claim->count++];
	HeapTuple	tuple = ExecCopySlotHeapTuple(row);
	TupleDesc	desc = row->tts_tupleDescriptor;
	Datum		values[MaxHeapAttributeNumber];
	bool		nulls[MaxHeapAttributeNumber];

	/* in one pass: the last columns have no fixed offset */
	heap_deform_tuple(tuple, desc, values, nulls);
	ItemPointerCopy(&row->tts_tid, &message->tid);
	message->at = mover_claim_value_of(values, nulls, columns[0], desc);
	message->message_id = mover_claim_value_of(values, nulls, columns[1], desc);
	message->data = mover_claim_value_of(values, nulls, columns[2], desc);
	message->topic = columns[3] == InvalidAttrNumber ?
		CStringGetTextDatum("") :
		mover_claim_value_of(values, nulls, columns[3], desc);
	return toast_raw_datum_size(message->data);
}

/* Set the only message of a claim aside; its transaction will fail. */
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

static void
mover_claim_expire_asides(void)
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
 * Delete up to limit rows of a span that no other session has locked.  Returns
 * true if the limit was reached.
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
	int			allocated = Min(limit, CLAIM_ALLOCATED);

	mover_claim_find_columns(leaf, columns);
	claim->messages = palloc_array(NgxPgqMessage, allocated);
	ItemPointerSet(&low, span.low, 0);
	ItemPointerSet(&high, span.high, PG_UINT16_MAX);
	scan = table_beginscan_tidrange(leaf, snapshot, &low, &high);
	while (claim->count < limit && size < CLAIM_BYTES &&
		   table_scan_getnextslot_tidrange(scan, ForwardScanDirection, row))
	{
		TM_FailureData failure;

		CHECK_FOR_INTERRUPTS();
		if (mover_claim_is_aside(&row->tts_tid) ||
			table_tuple_delete(leaf, &row->tts_tid, GetCurrentCommandId(true),
							   snapshot, InvalidSnapshot, false, &failure,
							   false) != TM_Ok)
			continue;
		if (claim->count == allocated)
		{
			allocated = Min(limit, allocated * 2);
			claim->messages = repalloc_array(claim->messages, NgxPgqMessage,
											 allocated);
		}
		size += mover_claim_add_message(claim, row, columns);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	UnregisterSnapshot(snapshot);
	return claim->count == limit || size >= CLAIM_BYTES;
}

/* Compare by time, then by TID. */
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

/* Claim messages in a span that was taken from shared memory. */
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
	pg_atomic_fetch_add_u64(&slot->moved, claim->count);
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
		pg_atomic_write_u64(&slot->oldest_at,
							DatumGetTimestampTz(claim->messages[0].at));
}

/* Claim messages that a sweep finds, if one is active and its step is due. */
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
	ngx_pgq_mover_sweep_account(database, ngx_pgq_clock() - started,
								claim->count > 0);
}

/* The slots in the order in which they were sealed; the current one last. */
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
 * Claim up to limit messages of one slot, ordered by time.  Needs a
 * transaction; after its end the caller calls ngx_pgq_mover_claim_committed()
 * or ngx_pgq_mover_claim_give_back().
 */
void
ngx_pgq_mover_claim_take(NgxPgqDatabase *database, NgxPgqTables *tables,
						 int limit, NgxPgqClaim *claim)
{
	int			slots[NGX_PGQ_SLOTS];

	claim->count = 0;
	mover_claim_expire_asides();
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

void
ngx_pgq_mover_claim_committed(void)
{
	held.span = nothing;
	held.count = 0;
}

/* The transaction was rolled back.  Returns the number of claimed messages. */
int
ngx_pgq_mover_claim_give_back(NgxPgqDatabase *database)
{
	int			count = held.count;

	ngx_pgq_shmem_span_give(database, held.slot, held.span);
	pg_atomic_fetch_sub_u64(&database->slots[held.slot].moved, held.count);
	ngx_pgq_mover_claim_committed();
	return count;
}
