/* SPDX-License-Identifier: PostgreSQL */
/*
 * claim.c
 *	  Claiming messages: which blocks a mover looks at, and what it locks there.
 *
 * Owns the claim in hand: the span of blocks this process took out of shared
 * memory and has not yet moved or given back (held).  Called by move, in its
 * transaction, and by mover when a transaction failed.
 *
 * A claim reads a span of a leaf by a TID range scan, FOR UPDATE SKIP LOCKED.
 * Its cost is that of the blocks written since the last claim, however many
 * dead rows lie elsewhere.  The span is only a hint; that no committed row is
 * left behind follows from these:
 *
 * - enqueue() gives the blocks it wrote to after its commit is visible, and a
 *	 claim takes the span before its snapshot.  So a claim sees the rows, or the
 *	 span it left behind holds their blocks.
 * - A claim that meets its limit gives the rest back at once; one that fails,
 *	 by an error or by the end of its process, gives all of it back.  A process
 *	 that cannot even do that is a crash: shared memory is made anew, and the
 *	 first cycle sweeps.
 * - Everything else (plain INSERTs, rows another session had locked, prepared
 *	 transactions, restores) is found by a sweep, which gives all blocks of all
 *	 leaves.  There is one whenever a commit says "somewhere" and one every
 *	 ngx_pgq.idle_interval, but never so many that sweeping takes more than one
 *	 part in SWEEP_SHARE of the time, or a tenth of that if no commit asked.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "fault.h"
#include "ngx_pgq.h"

#define SWEEP_SHARE			20
#define SWEEP_PAUSE_US		1000	/* between two sweeps, at least */

typedef struct Held
{
	int			slot;
	int			count;			/* messages */
	NgxPgqSpan	span;
} Held;

static const NgxPgqSpan nothing = {InvalidBlockNumber, 0};
static Held held = {0, 0, {InvalidBlockNumber, 0}};
static bool sweeping = false;	/* the spans hold what a sweep put there */
static bool sweep_begun = false;	/* and not yet in the spans */

static SPIPlanPtr
claim_plan(int slot)
{
	static SPIPlanPtr plans[NGX_PGQ_SLOTS];

	if (plans[slot] == NULL)
	{
		Oid			types[] = {TIDOID, TIDOID, INT8OID};
		char	   *sql = psprintf("select ctid, at, message_id, data "
								   "from ngx_pgq.queue_%d "
								   "where ctid >= $1 and ctid <= $2 "
								   "limit $3 for update skip locked", slot);
		SPIPlanPtr	plan = SPI_prepare_cursor(sql, lengthof(types), types,
											  CURSOR_OPT_GENERIC_PLAN);

		SPI_keepplan(plan);
		plans[slot] = plan;
	}
	return plans[slot];
}

/*
 * Lock up to limit messages in a span.  The planner takes a small leaf for
 * cheaper to read whole; it is right today, and wrong when the plan is still
 * there and the leaf has grown.
 */
static void
lock_messages(int slot, NgxPgqSpan span, int limit)
{
	ItemPointerData low;
	ItemPointerData high;
	Datum		values[] = {PointerGetDatum(&low),
	PointerGetDatum(&high), Int64GetDatum(limit)};
	int			nest = NewGUCNestLevel();

	ItemPointerSet(&low, span.low, 0);
	ItemPointerSet(&high, span.high, PG_UINT16_MAX);
	(void) set_config_option("enable_seqscan", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SPI_execute_plan(claim_plan(slot), values, NULL, false, 0);
	AtEOXact_GUC(true, nest);
}

/* Turn what SPI returned into messages. */
static void
fetch_messages(NgxPgqClaim *claim)
{
	TupleDesc	desc = SPI_tuptable->tupdesc;

	claim->count = SPI_processed;
	claim->messages = palloc_array(NgxPgqMessage, Max(claim->count, 1));
	for (int i = 0; i < claim->count; i++)
	{
		NgxPgqMessage *message = &claim->messages[i];
		Datum		values[4];
		bool		nulls[4];

		heap_deform_tuple(SPI_tuptable->vals[i], desc, values, nulls);
		ItemPointerCopy((ItemPointer) DatumGetPointer(values[0]),
						&message->tid);
		message->at = values[1];
		message->message_id = values[2];
		message->data = values[3];
	}
}

/* By the time of coming in; by place where that is the same. */
static int
compare_messages(const void *a, const void *b)
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

/* Put off the next sweep by what this part of one has cost. */
static void
sweep_pay(NgxPgqDatabase *database, int64 started)
{
	int64		now = ngx_pgq_clock();

	pg_atomic_write_u64(&database->sweep_after,
						now + Max((now - started) * SWEEP_SHARE,
								  SWEEP_PAUSE_US));
}

static void
claim_slot(NgxPgqDatabase *database, int limit, NgxPgqClaim *claim)
{
	int64		started = ngx_pgq_clock();

	held.slot = claim->slot;
	held.count = 0;
	held.span = ngx_pgq_span_take(database, claim->slot);
	if (held.span.low > held.span.high)
		return;
	NGX_PGQ_FAULT("span-taken");

	lock_messages(claim->slot, held.span, limit);
	fetch_messages(claim);
	held.count = claim->count;
	if (claim->count > 0)
		NGX_PGQ_FAULT("rows-locked");
	if (sweeping)
		sweep_pay(database, started);

	if (claim->count == limit)
	{
		NgxPgqSpan	rest = held.span;

		rest.low = ItemPointerGetBlockNumber(&claim->messages[limit - 1].tid);
		held.span.high = rest.low;
		ngx_pgq_span_give(database, claim->slot, rest);
		ngx_pgq_wake(database, true);
	}
	qsort(claim->messages, claim->count, sizeof(NgxPgqMessage),
		  compare_messages);
}

/*
 * Claim up to limit messages of one slot, in the order of coming in; none if
 * there is nothing to be found.  Needs an SPI connection, and a transaction whose end
 * is told by ngx_pgq_claim_keep() or ngx_pgq_claim_give_back().
 */
void
ngx_pgq_claim_take(NgxPgqDatabase *database, int limit, NgxPgqClaim *claim)
{
	int			current = pg_atomic_read_u32(&database->slot);

	/* the slot after the current one is the oldest */
	for (int i = 1; i <= NGX_PGQ_SLOTS; i++)
	{
		claim->slot = (current + i) % NGX_PGQ_SLOTS;
		claim->count = 0;
		claim_slot(database, limit, claim);
		if (claim->count > 0)
			return;
		CHECK_FOR_INTERRUPTS();
	}
	sweeping = false;
}

/* Delete the claimed messages; the caller has checked the privilege. */
void
ngx_pgq_claim_delete(NgxPgqClaim *claim, Relation leaf)
{
	for (int i = 0; i < claim->count; i++)
		simple_table_tuple_delete(leaf, &claim->messages[i].tid,
								  GetActiveSnapshot());
}

/* The claim's transaction has committed. */
void
ngx_pgq_claim_keep(void)
{
	held.span = nothing;
	held.count = 0;
}

/*
 * The claim's transaction is over and did nothing.  Returns how many messages
 * it was about.  A sweep that was begun is asked for again.
 */
int
ngx_pgq_claim_give_back(NgxPgqDatabase *database)
{
	int			count = held.count;

	ngx_pgq_span_give(database, held.slot, held.span);
	if (sweep_begun)
		pg_atomic_write_u32(&database->blind, 1);
	sweep_begun = false;
	ngx_pgq_claim_keep();
	return count;
}

/* Milliseconds until all leaves should be looked through; 0: now. */
long
ngx_pgq_sweep_wait(NgxPgqDatabase *database)
{
	int64		now = ngx_pgq_clock();
	int64		due = pg_atomic_read_u64(&database->sweep_after);

	if (!pg_atomic_read_u32(&database->blind))
	{
		int64		swept_at = pg_atomic_read_u64(&database->swept_at);

		/* nobody is known to wait: let sweeping take ten times less */
		due = Max(swept_at + (due - (int64) swept_at) * 10,
				  swept_at + ngx_pgq_idle_interval * INT64CONST(1000));
	}
	return due <= now ? 0 : (due - now + 999) / 1000;
}

/* Give all blocks there are to the next claims. */
void
ngx_pgq_sweep_start(NgxPgqDatabase *database, NgxPgqTables *tables)
{
	pg_atomic_write_u64(&database->swept_at, ngx_pgq_clock());
	sweep_begun = true;
	pg_atomic_exchange_u32(&database->blind, 0);
	NGX_PGQ_FAULT("sweep-started");
	for (int i = 0; i < NGX_PGQ_SLOTS; i++)
	{
		Relation	leaf = table_open(tables->queue[i], AccessShareLock);
		NgxPgqSpan	all = {0, 0};

		all.high = RelationGetNumberOfBlocks(leaf);
		if (all.high > 0)
		{
			all.high--;
			ngx_pgq_span_give(database, i, all);
			sweeping = true;
		}
		table_close(leaf, NoLock);
	}
	sweep_begun = false;
	NGX_PGQ_FAULT("sweep-given");
}
