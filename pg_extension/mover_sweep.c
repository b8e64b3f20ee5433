/* SPDX-License-Identifier: PostgreSQL */
/*
 * mover_sweep.c
 *	  Sweeps: scans of the whole queue for messages that are in no span.
 *
 * Owns the progress of this process's sweep.  Shared memory has the time at
 * which any mover may begin the next one.
 *
 * - Only a sweep finds rows that plain INSERTs wrote to blocks that they did
 *	 not report, rows that another session had locked, rows of prepared
 *	 transactions and restored dumps, and rows that exist at server start.
 * - There is a sweep when a commit has asked for one (sweep_wanted), and every
 *	 ngx_pgq.idle_interval.  But sweeps take at most 1/SWEEP_SHARE of the time,
 *	 and a tenth of that if no commit has asked.  There is one at least every
 *	 SWEEP_PAUSE_MAX_US.
 * - A leaf may be huge and full of dead rows if it could not be truncated for
 *	 hours.  So a sweep is divided into chunks, and other messages are moved in
 *	 between: no message waits for a whole sweep.
 * - A sweep that is interrupted by the exit of its process, or by an error
 *	 before it has recorded the sizes of the leaves, is asked for again.
 */
#include "postgres.h"

#include "access/table.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "fault.h"
#include "ngx_pgq.h"

#define SWEEP_SHARE			20
#define SWEEP_PAUSE_MIN_US	1000	/* minimum time between two sweeps */
#define SWEEP_PAUSE_MAX_US	30000000	/* maximum time between two sweeps */
#define LEASE_US			1000000 /* time until another mover may sweep */
#define CHUNK_BLOCKS		256
/* maximum time of a step that finds nothing */
#define STEP_US				4000
#define STEP_SHARE			4	/* pause / time of a step, if messages wait */

/* Times are ngx_pgq_clock(). */
static bool begun = false;		/* sizes of leaves are being recorded */
static bool active = false;
static int	slot;				/* slot of the next chunk */
static BlockNumber next_block;	/* first block of the next chunk */
static BlockNumber end_block[NGX_PGQ_SLOTS];
static int64 cost;				/* time of steps that found nothing */
static int64 step_after;		/* no step before this time */
static int64 step_until;		/* end of the current step */

/* Milliseconds until a sweep, or its next step, is due. */
long
ngx_pgq_mover_sweep_wait(NgxPgqDatabase *database)
{
	int64		now = ngx_pgq_clock();
	int64		due = pg_atomic_read_u64(&database->sweep_after);

	if (active)
		due = step_after;
	else if (!pg_atomic_read_u32(&database->sweep_wanted))
	{
		int64		swept_at = pg_atomic_read_u64(&database->swept_at);

		/* no commit has asked: use a tenth of the time */
		due = swept_at + Min((due - swept_at) * 10, SWEEP_PAUSE_MAX_US);
		due = Max(due, swept_at + ngx_pgq_idle_interval * INT64CONST(1000));
	}
	return due <= now ? 0 : (due - now + 999) / 1000;
}

/*
 * Begin a sweep if one is due.  The first one counts the messages that were in
 * the queue at server start.  The transaction must claim afterwards.
 */
void
ngx_pgq_mover_sweep_start(NgxPgqDatabase *database, NgxPgqTables *tables)
{
	bool		counted;
	uint64		count;

	if (active || ngx_pgq_mover_sweep_wait(database) > 0)
		return;
	counted = pg_atomic_exchange_u32(&database->counted, 1) == 1;
	pg_atomic_write_u64(&database->swept_at, ngx_pgq_clock());
	begun = true;
	pg_atomic_exchange_u32(&database->sweep_wanted, 0);
	NGX_PGQ_FAULT("sweep-started");
	for (int i = 0; i < NGX_PGQ_SLOTS; i++)
	{
		Relation	leaf = table_open(tables->queue[i], AccessShareLock);

		end_block[i] = RelationGetNumberOfBlocks(leaf);
		if (!counted && end_block[i] > 0 &&
			ngx_pgq_leaf_has_rows(leaf, &count))
			pg_atomic_fetch_add_u64(&database->slots[i].enqueued, count);
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

/* Is the next step of an active sweep due? */
bool
ngx_pgq_mover_sweep_step(void)
{
	int64		now = ngx_pgq_clock();

	step_until = now + STEP_US;
	return active && now >= step_after;
}

/* The next chunk; false at the end of the step or of the sweep. */
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
							Max(cost * SWEEP_SHARE, SWEEP_PAUSE_MIN_US));
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
 * Account for the time of a step.  If it found nothing, its time is a cost of
 * sweeping, and messages in spans are moved before the next step.
 */
void
ngx_pgq_mover_sweep_account(NgxPgqDatabase *database, int64 us, bool found)
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

/* Request another sweep after a failed or interrupted one. */
void
ngx_pgq_mover_sweep_failed(NgxPgqDatabase *database, bool exiting)
{
	if (begun || (exiting && active))
	{
		pg_atomic_write_u64(&database->sweep_after, ngx_pgq_clock());
		pg_atomic_write_u32(&database->sweep_wanted, 1);
	}
	begun = false;
}
