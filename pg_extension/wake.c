/* SPDX-License-Identifier: PostgreSQL */
/*
 * wake.c
 *	  Waking: from a backend's commit to a mover's latch.
 *
 * Owns what the current transaction has to tell the movers (pending).  slot()
 * and enqueue() add to it, the transaction callback delivers it; before that it
 * looks where plain INSERTs have written.
 *
 * - Delivered after the commit is visible to others, so a woken mover sees the
 *	 rows; forgotten on abort.  A prepared transaction is forgotten too: COMMIT
 *	 PREPARED, in whatever session, wakes the movers instead (see utility_hook.c).
 * - It is delivered after the commit record is written, where an error would
 *	 be a PANIC: it allocates nothing, takes no lock, and does not raise.
 * - No wake-up is lost: a producer gives its span, sets the wake flag, then
 *	 looks for an idle mover; a mover says it is idle, then looks at the flag,
 *	 and does not sleep while it is set.  Between write and read of each stands
 *	 a full barrier, so one of the two sees the other.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/smgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "fault.h"
#include "ngx_pgq.h"

PG_FUNCTION_INFO_V1(ngx_pgq_slot);

#define ROWS_A_BLOCK	16		/* at least, of small messages */

typedef struct Pending
{
	bool		wake;			/* something was put into the queue */
	bool		blind;			/* some of it to blocks we do not know */
	uint8		slots;			/* bit mask of the spans that are set */
	NgxPgqSpan	span[NGX_PGQ_SLOTS];
	uint32		count[NGX_PGQ_SLOTS];	/* messages */
} Pending;

static Pending pending;

static void
wake_deliver(void)
{
	NgxPgqDatabase *database = ngx_pgq_shmem_database_of_backend();

	if (database == NULL)
		return;
	for (int i = 0; i < NGX_PGQ_SLOTS; i++)
	{
		if (pending.slots & (1 << i))
			ngx_pgq_shmem_span_give(database, i, pending.span[i]);
		if (pending.count[i])
			ngx_pgq_shmem_slot_came(&database->slots[i], pending.count[i]);
	}
	if (pending.blind)
		pg_atomic_write_u32(&database->blind, 1);
	if (pg_atomic_exchange_u32(&database->wake, 1) == 0)
		ngx_pgq_wake(database, false);
}

/*
 * Where did plain INSERTs of this transaction write?  Each session goes on where
 * it wrote last: that block is exact for a single row, and with some before it a
 * good guess for more.  What it misses, a sweep finds.
 */
static void
wake_guess_blocks(void)
{
	Oid			schema = get_namespace_oid(NGX_PGQ_SCHEMA, true);

	for (int i = 0; i < NGX_PGQ_SLOTS; i++)
	{
		BlockNumber block;
		NgxPgqSpan	span;
		Relation	leaf;
		Oid			relid;

		if (pending.count[i] == 0)
			continue;
		relid = get_relname_relid(psprintf("queue_%d", i), schema);
		if (!OidIsValid(relid) ||
			(leaf = try_relation_open(relid, AccessShareLock)) == NULL)
			continue;
		block = RelationGetTargetBlock(leaf);
		relation_close(leaf, AccessShareLock);
		if (!BlockNumberIsValid(block))
			continue;
		span.high = block;
		span.low = block - Min(block, pending.count[i] / ROWS_A_BLOCK + 1);
		ngx_pgq_wake_at_commit(i, span, 0);
	}
}

static void
wake_at_transaction_end(XactEvent event, void *arg)
{
	if (!pending.wake)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (pending.blind)
				wake_guess_blocks();
			return;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
			NGX_PGQ_FAULT("producer-committed");
			wake_deliver();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	memset(&pending, 0, sizeof(pending));
}

static void
wake_expect_commit(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(wake_at_transaction_end, NULL);
		registered = true;
	}
	pending.wake = true;
}

/* Have this transaction's commit tell of so many rows in these blocks. */
void
ngx_pgq_wake_at_commit(int slot, NgxPgqSpan span, int count)
{
	wake_expect_commit();
	pending.count[slot] += count;
	pending.span[slot] = (pending.slots & (1 << slot)) ?
		ngx_pgq_shmem_span_union(pending.span[slot], span) : span;
	pending.slots |= 1 << slot;
}

/* The same about rows in blocks the caller does not know. */
void
ngx_pgq_wake_at_commit_anywhere(void)
{
	wake_expect_commit();
	pending.blind = true;
}

/*
 * Wake an idle mover.  Without another, only if none is at work: one that is
 * looks at the wake flag before it sleeps, and wakes others when there is more
 * than it can do.
 */
void
ngx_pgq_wake(NgxPgqDatabase *database, bool another)
{
	NgxPgqMover *mover;

	for (int i = 0; i < NGX_PGQ_MOVERS && !another; i++)
	{
		mover = &database->mover[i];
		if (pg_atomic_read_u32(&mover->state) == NGX_PGQ_MOVING)
			return;
	}
	for (int i = 0; i < NGX_PGQ_MOVERS; i++)
	{
		uint32		idle = NGX_PGQ_IDLE;

		mover = &database->mover[i];
		if (pg_atomic_compare_exchange_u32(&mover->state, &idle,
										   NGX_PGQ_MOVING))
		{
			SetLatch(&GetPGProcByNumber(pg_atomic_read_u32(&mover->proc))->procLatch);
			return;
		}
	}
}

/* Have every mover look at what it should do. */
void
ngx_pgq_wake_all(NgxPgqDatabase *database)
{
	for (int i = 0; i < NGX_PGQ_MOVERS; i++)
	{
		NgxPgqMover *mover = &database->mover[i];

		if (pg_atomic_read_u32(&mover->pid))
			SetLatch(&GetPGProcByNumber(pg_atomic_read_u32(&mover->proc))->procLatch);
	}
}

/*
 * Wait until the latch is set, or for this time.  wait_event is a static variable
 * of the caller, 0 at first.
 */
void
ngx_pgq_wake_wait(long ms, uint32 *wait_event, const char *name)
{
	if (*wait_event == 0)
		*wait_event = ngx_pgq_wait_event(name);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 ms, *wait_event);
	ResetLatch(MyLatch);
}

/* The slot new messages go to; 0 where no movers serve this database. */
int
ngx_pgq_wake_slot_current(void)
{
	NgxPgqDatabase *database = ngx_pgq_shmem_database_of_backend();

	return database ? pg_atomic_read_u32(&database->slot) : 0;
}

/*
 * ngx_pgq.slot(): the default of queue.slot, so that a plain INSERT finds its
 * leaf and wakes a mover at commit.
 */
Datum
ngx_pgq_slot(PG_FUNCTION_ARGS)
{
	int			slot = ngx_pgq_wake_slot_current();

	ngx_pgq_wake_at_commit_anywhere();
	pending.count[slot]++;
	PG_RETURN_INT16(slot);
}
