/* SPDX-License-Identifier: PostgreSQL */
/*
 * mover_sweep.c
 *	  Sweeping: looking through all leaves of the queue for messages that no
 *	  span names.
 *
 * Owns how far this process's sweep has come; when the next one may begin is
 * in shared memory, as any mover may do it.
 *
 * - Found only this way: what plain INSERTs wrote beside the blocks they named,
 *	 rows another session had locked, what was prepared, restored, or there at
 *	 the start of the server.
 * - There is a sweep whenever a commit says "somewhere" and one every
 *	 ngx_pgq.idle_interval, but never so many that sweeping takes more than one
 *	 part in SWEEP_SHARE of the time, or, if no commit asked, a tenth of that,
 *	 but one in RARELY_US.
 * - A leaf may be huge and full of dead rows, where somebody has kept it from
 *	 being emptied for hours.  So a sweep goes by chunks, and other messages are
 *	 moved in between: no message waits for a whole sweep.
 * - A sweep that ends before its time, with its process or by an error before
 *	 it has taken note of the leaves, is asked for again.
 */
#include "postgres.h"

#include "access/table.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "fault.h"
#include "ngx_pgq.h"

#define SWEEP_SHARE			20
#define SWEEP_PAUSE_US		1000	/* between two sweeps, at least */
#define RARELY_US			30000000	/* from one to the next, at most */
#define LEASE_US			1000000 /* others leave a sweep alone for so long */
#define CHUNK_BLOCKS		256
#define STEP_US				4000	/* chunks of one transaction, if all are empty */
#define STEP_SHARE			4		/* pause after a step, if others wait */

/* All times are those of ngx_pgq_clock(). */
static bool begun = false;		/* but the leaves are not noted yet */
static bool active = false;
static int	slot;				/* the next chunk is there */
static BlockNumber next_block;	/* and begins here */
static BlockNumber end_block[NGX_PGQ_SLOTS];
static int64 cost;				/* of this sweep so far */
static int64 step_after;
static int64 step_until;

/* Milliseconds until all leaves should be looked through, or on; 0: now. */
long
ngx_pgq_mover_sweep_wait(NgxPgqDatabase *database)
{
	int64		now = ngx_pgq_clock();
	int64		due = pg_atomic_read_u64(&database->sweep_after);

	if (active)
		due = step_after;
	else if (!pg_atomic_read_u32(&database->blind))
	{
		int64		swept_at = pg_atomic_read_u64(&database->swept_at);

		/* nobody is known to wait: let sweeping take ten times less */
		due = swept_at + Min((due - swept_at) * 10, RARELY_US);
		due = Max(due, swept_at + ngx_pgq_idle_interval * INT64CONST(1000));
	}
	return due <= now ? 0 : (due - now + 999) / 1000;
}

/* What waits at the start of the server, no commit has told anybody. */
static void
mover_sweep_count_waiting(NgxPgqSlot *leaf_slot, Relation leaf)
{
	uint64		count;

	if (ngx_pgq_leaf_has_rows(leaf, &count))
		pg_atomic_fetch_add_u64(&leaf_slot->came, count);
}

/* Begin a sweep if one is due; in a transaction that goes on to claim. */
void
ngx_pgq_mover_sweep_start(NgxPgqDatabase *database, NgxPgqTables *tables)
{
	bool		counted;

	if (active || ngx_pgq_mover_sweep_wait(database) > 0)
		return;
	counted = pg_atomic_exchange_u32(&database->counted, 1) == 1;
	pg_atomic_write_u64(&database->swept_at, ngx_pgq_clock());
	begun = true;
	pg_atomic_exchange_u32(&database->blind, 0);
	NGX_PGQ_FAULT("sweep-started");
	for (int i = 0; i < NGX_PGQ_SLOTS; i++)
	{
		Relation	leaf = table_open(tables->queue[i], AccessShareLock);

		end_block[i] = RelationGetNumberOfBlocks(leaf);
		if (!counted && end_block[i] > 0)
			mover_sweep_count_waiting(&database->slots[i], leaf);
		table_close(leaf, NoLock);
	}
	slot = 0;
	next_block = 0;
	cost = 0;
	step_after = 0;
	active = true;
	begun = false;
	NGX_PGQ_FAULT("sweep-noted");
}

/* A sweep is at work: may it take its next step? */
bool
ngx_pgq_mover_sweep_step(void)
{
	int64		now = ngx_pgq_clock();

	step_until = now + STEP_US;
	return active && now >= step_after;
}

/* The next chunk of this step; false if it, or the whole sweep, is at its end. */
bool
ngx_pgq_mover_sweep_chunk(NgxPgqDatabase *database, int *chunk_slot,
						  NgxPgqSpan *chunk)
{
	while (slot < NGX_PGQ_SLOTS && next_block >= end_block[slot])
	{
		slot++;
		next_block = 0;
	}
	if (slot == NGX_PGQ_SLOTS)
	{
		active = false;
		pg_atomic_write_u64(&database->sweep_after, ngx_pgq_clock() +
							Max(cost * SWEEP_SHARE, SWEEP_PAUSE_US));
		return false;
	}
	if (ngx_pgq_clock() >= step_until)
		return false;
	*chunk_slot = slot;
	chunk->low = next_block;
	chunk->high = Min(next_block + CHUNK_BLOCKS, end_block[slot]) - 1;
	next_block = chunk->high + 1;
	return true;
}

/*
 * What a step has taken.  If it has found nothing, that is what sweeping costs,
 * and the next one waits for messages that are known to be there.
 */
void
ngx_pgq_mover_sweep_paid(NgxPgqDatabase *database, int64 us, bool found)
{
	int64		now = ngx_pgq_clock();

	if (!found)
		cost += us;
	if (!active)
		return;
	step_after = now;
	if (!found && ngx_pgq_shmem_span_any(database))
		step_after += us * STEP_SHARE;
	pg_atomic_write_u64(&database->sweep_after, now + LEASE_US +
						cost * SWEEP_SHARE);
	pg_atomic_write_u64(&database->swept_at, now);
}

/* A transaction has failed, or the process ends and the sweep with it. */
void
ngx_pgq_mover_sweep_failed(NgxPgqDatabase *database, bool leaving)
{
	if (begun || (leaving && active))
	{
		pg_atomic_write_u64(&database->sweep_after, ngx_pgq_clock());
		pg_atomic_write_u32(&database->blind, 1);
	}
	begun = false;
}
