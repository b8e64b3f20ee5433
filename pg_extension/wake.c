/* SPDX-License-Identifier: PostgreSQL */
/*
 * wake.c
 *	  Waking movers when a transaction commits.
 *
 * Owns what the current transaction reports to the movers (pending).  slot()
 * and enqueue() add to it; the transaction callback delivers it.  The C
 * function ngx_pgq_slot() has the name of the SQL function, not of this file.
 *
 * - It is delivered after the commit is visible, so a woken mover sees the
 *	 rows.  It is discarded on abort and by PREPARE TRANSACTION; COMMIT
 *	 PREPARED in any session wakes the movers (see utility_hook.c).
 * - It is delivered after the commit record is written, where an error would
 *	 be a PANIC: no memory is allocated, no lock is taken, no error is raised.
 * - No wake-up is lost.  A producer adds its span, sets the wake flag, then
 *	 looks for an idle mover.  A mover sets its state to idle, then checks the
 *	 flag, and does not sleep if it is set.  Each has a full barrier between
 *	 its write and its read, so one of them sees the other's write.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/smgr.h"
#include "utils/rel.h"

#include "compat.h"
#include "fault.h"
#include "ngx_pgq.h"

PG_FUNCTION_INFO_V1(ngx_pgq_slot);

#define ROWS_PER_BLOCK	16		/* minimum rows of a block of small messages */

/* What the commit of the current transaction reports. */
typedef struct Pending
{
	bool		wake;			/* true if messages were enqueued */
	bool		sweep_wanted;	/* true if some are in unknown blocks */
	uint8		slots;			/* bit i is set if span[i] is valid */
	NgxPgqSpan	span[NGX_PGQ_SLOTS];
	uint32		count[NGX_PGQ_SLOTS];	/* number of messages */
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
			ngx_pgq_shmem_slot_enqueued(&database->slots[i], pending.count[i]);
	}
	if (pending.sweep_wanted)
		pg_atomic_write_u32(&database->sweep_wanted, 1);
	if (pg_atomic_exchange_u32(&database->wake, 1) == 0)
		ngx_pgq_wake(database, false);
}

/*
 * Guess the blocks that plain INSERTs of this transaction have written.  A
 * session continues at its last block: this is exact for a single row, and
 * with some blocks before it a good guess for more.  A sweep finds the others.
 */
static void
wake_guess_blocks(void)
{
	for (int i = 0; i < NGX_PGQ_SLOTS; i++)
	{
		BlockNumber block;
		NgxPgqSpan	span;
		Relation	leaf;
		Oid			relid;

		if (pending.count[i] == 0)
			continue;
		relid = ngx_pgq_leaf_relid("queue", i);
		if (!OidIsValid(relid) ||
			(leaf = try_relation_open(relid, AccessShareLock)) == NULL)
			continue;
		block = RelationGetTargetBlock(leaf);
		relation_close(leaf, AccessShareLock);
		if (!BlockNumberIsValid(block))
			continue;
		span.high = block;
		span.low = block - Min(block, pending.count[i] / ROWS_PER_BLOCK + 1);
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
			if (pending.sweep_wanted)
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

/* Report rows in these blocks when this transaction commits. */
void
ngx_pgq_wake_at_commit(int slot, NgxPgqSpan span, int count)
{
	wake_expect_commit();
	pending.count[slot] += count;
	pending.span[slot] = (pending.slots & (1 << slot)) ?
		ngx_pgq_shmem_span_union(pending.span[slot], span) : span;
	pending.slots |= 1 << slot;
}

/* Report rows in unknown blocks when this transaction commits. */
void
ngx_pgq_wake_at_commit_anywhere(void)
{
	wake_expect_commit();
	pending.sweep_wanted = true;
}

/*
 * Wake an idle mover.  Without another, do nothing if a mover is working: it
 * checks the wake flag before it sleeps, and wakes another one when its batch
 * is full.
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
 * Wait for the latch, with a timeout.  *wait_event, initially 0, caches the
 * wait event of this name.
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

/* The current slot; 0 if no movers serve this database. */
int
ngx_pgq_wake_slot_current(void)
{
	NgxPgqDatabase *database = ngx_pgq_shmem_database_of_backend();

	return database ? pg_atomic_read_u32(&database->slot) : 0;
}

/* The default of queue.slot.  The commit of the INSERT wakes a mover. */
Datum
ngx_pgq_slot(PG_FUNCTION_ARGS)
{
	int			slot = ngx_pgq_wake_slot_current();

	ngx_pgq_wake_at_commit_anywhere();
	pending.count[slot]++;
	PG_RETURN_INT16(slot);
}
