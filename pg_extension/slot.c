/* SPDX-License-Identifier: PostgreSQL */
/*
 * slot.c
 *	  Rotating slots: new messages go to the next leaf, drained leaves are
 *	  truncated.
 *
 * Done by the first mover of a database between batches.  When the current
 * slot has grown to ngx_pgq.rotate_size, an empty slot becomes the current
 * one.  The full slot is truncated when all its messages are moved, so its
 * dead rows need no vacuum.
 *
 * - Changing the current slot is one write to shared memory.  A transaction
 *	 that has read the old number still writes to the old leaf.  Movers look at
 *	 all leaves, and a leaf is locked by a transaction that writes to it until
 *	 it ends.
 * - So a leaf may be truncated if we hold its AccessExclusiveLock and a
 *	 snapshot taken since then sees no row: all transactions that wrote to it
 *	 have ended.
 * - We never wait for that lock, as sessions that request a lock after us
 *	 would wait too.  A leaf that is in use (by a dump, a prepared transaction,
 *	 a reader) is skipped.  This costs space, but no time: movers read spans.
 * - TRUNCATE removes rows that older snapshots still see.  A session whose
 *	 snapshot is older than the last move could miss a message both here and in
 *	 posts, for example pg_dump before it has locked the tables.  So we wait
 *	 for older snapshots, but only for ngx_pgq.snapshot_grace: a session that
 *	 has not locked the leaf by then is not going to read it.
 * - The commit does not wait for a standby (see mover.c), as the lock would be
 *	 held during that time.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "storage/bufmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "fault.h"
#include "ngx_pgq.h"

#define CHECK_US		INT64CONST(200000)	/* time between checks of leaves */
#define SCAN_SHARE		20		/* scans take 1/SCAN_SHARE of the time */

/* State of a sealed slot; times are ngx_pgq_clock(). */
typedef struct Drained
{
	int64		scan_after;		/* no scan until then: the last found a row */
	int64		noted_at;		/* when it was found drained; 0: it is not */
	uint64		moved;			/* NgxPgqSlot.moved at that time */
	int			count;			/* number of holders */
	VirtualTransactionId *holders;	/* transactions that had a snapshot then */
} Drained;

static Drained drained_slots[NGX_PGQ_SLOTS];
static int64 next_check_at = 0;	/* no check before this ngx_pgq_clock() */
static NgxPgqSlot *truncated = NULL;	/* truncated by this transaction */
static uint64 checked_traffic = PG_UINT64_MAX;	/* traffic at the last check */

static BlockNumber
slot_blocks_of(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	BlockNumber blocks;

	if (rel == NULL)
		return 0;
	blocks = RelationGetNumberOfBlocks(rel);
	if (OidIsValid(rel->rd_rel->reltoastrelid))
		blocks += slot_blocks_of(rel->rd_rel->reltoastrelid);
	relation_close(rel, AccessShareLock);
	return blocks;
}

/* Record the transactions that have a snapshot when a slot is drained. */
static void
slot_record_snapshots(Drained *drained, uint64 moved)
{
	MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);

	if (drained->holders)
		pfree(drained->holders);
	drained->holders = GetCurrentVirtualXIDs(InvalidTransactionId, true, false,
											 PROC_IN_VACUUM, &drained->count);
	MemoryContextSwitchTo(caller);
	drained->noted_at = ngx_pgq_clock();
	drained->moved = moved;
}

/*
 * May a snapshot that is older than the slot's last move still be used?  As
 * CREATE INDEX CONCURRENTLY does, we record the transactions that had a
 * snapshot when the slot was found drained, and wait until they have ended.
 */
static bool
slot_snapshot_needs(NgxPgqDatabase *database, int number)
{
	Drained    *drained = &drained_slots[number];
	uint64		moved = pg_atomic_read_u64(&database->slots[number].moved);
	int			left = 0;

	if (drained->noted_at == 0 || drained->moved != moved)
		slot_record_snapshots(drained, moved);
	for (int i = 0; i < drained->count; i++)
	{
		if (!VirtualXactLock(drained->holders[i], false))
			drained->holders[left++] = drained->holders[i];
	}
	drained->count = left;
	return left > 0 && ngx_pgq_clock() <
		drained->noted_at + ngx_pgq_snapshot_grace * INT64CONST(1000);
}

/* Is a locked leaf empty?  If not, its span is set to all blocks. */
static bool
slot_is_drained(NgxPgqDatabase *database, int number, Relation leaf)
{
	NgxPgqSpan	all = {0, InvalidBlockNumber - 1};
	int64		started = ngx_pgq_clock();
	int64		now;

	if (!ngx_pgq_leaf_has_rows(leaf, NULL))
		return true;
	ngx_pgq_shmem_span_give(database, number, all);
	now = ngx_pgq_clock();
	drained_slots[number].scan_after = now + (now - started) * SCAN_SHARE;
	drained_slots[number].noted_at = 0;
	return false;
}

/* Truncate a sealed slot, or return the reason why not. */
static NgxPgqSkip
slot_truncate(NgxPgqDatabase *database, int number, Oid relid)
{
	NgxPgqSlot *slot = &database->slots[number];
	Relation	leaf;
	NgxPgqSkip	skip = NGX_PGQ_NOT_SKIPPED;

	if (ngx_pgq_shmem_slot_depth(slot) > 0 ||
		ngx_pgq_clock() < drained_slots[number].scan_after)
		return NGX_PGQ_SKIP_UNMOVED;
	if (!ngx_pgq_leaf_lock_to_truncate(relid))
		return NGX_PGQ_SKIP_LOCKED;
	leaf = try_table_open(relid, NoLock);
	if (leaf == NULL)
		return NGX_PGQ_SKIP_LOCKED;
	if (slot_snapshot_needs(database, number))
		skip = NGX_PGQ_SKIP_SNAPSHOT;
	else if (!slot_is_drained(database, number, leaf))
		skip = NGX_PGQ_SKIP_UNMOVED;
	table_close(leaf, NoLock);

	if (skip == NGX_PGQ_NOT_SKIPPED)
	{
		NGX_PGQ_FAULT("slot-locked");
		ngx_pgq_leaf_truncate("queue", number);
		NGX_PGQ_FAULT("slot-truncated");
		drained_slots[number].noted_at = 0;
		ngx_pgq_shmem_slot_empty(slot);
		truncated = slot;
	}
	return skip;
}

/* If the current slot is full, make an empty one the current slot. */
static void
slot_advance(NgxPgqDatabase *database)
{
	uint32		current = pg_atomic_read_u32(&database->slot);
	NgxPgqSlot *full = &database->slots[current];

	pg_atomic_write_u32(&full->skip, NGX_PGQ_NOT_SKIPPED);
	if (pg_atomic_read_u32(&full->blocks) <
		(uint32) ngx_pgq_rotate_size / (BLCKSZ / 1024))
		return;
	for (uint32 i = 1; i < NGX_PGQ_SLOTS; i++)
	{
		uint32		next = (current + i) % NGX_PGQ_SLOTS;

		if (pg_atomic_read_u32(&database->slots[next].blocks) == 0)
		{
			pg_atomic_write_u32(&database->slots[next].skip,
								NGX_PGQ_NOT_SKIPPED);
			pg_atomic_write_u64(&full->sealed_at, ngx_pgq_clock());
			pg_atomic_write_u32(&database->slot, next);
			NGX_PGQ_FAULT("slot-advanced");
			return;
		}
	}
	pg_atomic_write_u32(&full->skip, NGX_PGQ_SKIP_NEXT);
}

/* A number that changes when messages are enqueued or moved. */
static uint64
slot_traffic(NgxPgqDatabase *database)
{
	uint64		sum = 0;

	for (int i = 0; i < NGX_PGQ_SLOTS; i++)
		sum += pg_atomic_read_u64(&database->slots[i].enqueued) +
			pg_atomic_read_u64(&database->slots[i].moved);
	return sum;
}

bool
ngx_pgq_slot_rotate_due(NgxPgqDatabase *database)
{
	uint32		current = pg_atomic_read_u32(&database->slot);

	if (ngx_pgq_clock() < next_check_at)
		return false;
	for (uint32 i = 0; i < NGX_PGQ_SLOTS; i++)
	{
		if (i != current && pg_atomic_read_u32(&database->slots[i].blocks) > 0)
			return true;
	}
	return slot_traffic(database) != checked_traffic;
}

/*
 * Truncate at most one drained slot, and change the current slot if it is
 * full.  The caller begins a transaction for it when it is due, and calls
 * ngx_pgq_slot_rotate_committed() after the commit.
 */
void
ngx_pgq_slot_rotate(NgxPgqDatabase *database)
{
	uint32		current = pg_atomic_read_u32(&database->slot);
	NgxPgqTables tables;

	truncated = NULL;
	next_check_at = ngx_pgq_clock() + CHECK_US;
	checked_traffic = slot_traffic(database);
	ngx_pgq_tables_find(&tables, AccessShareLock);
	if (tables.missing)
		return;
	for (uint32 i = 0; i < NGX_PGQ_SLOTS; i++)
		pg_atomic_write_u32(&database->slots[i].blocks,
							slot_blocks_of(tables.queue[i]));
	slot_advance(database);
	for (uint32 i = 0; i < NGX_PGQ_SLOTS && truncated == NULL; i++)
	{
		NgxPgqSlot *slot = &database->slots[i];

		if (i == current || pg_atomic_read_u32(&slot->blocks) == 0)
			continue;
		pg_atomic_write_u32(&slot->skip,
							slot_truncate(database, i, tables.queue[i]));
	}
}

void
ngx_pgq_slot_rotate_committed(void)
{
	if (truncated == NULL)
		return;
	NGX_PGQ_FAULT("slot-committed");
	pg_atomic_write_u32(&truncated->blocks, 0);
	pg_atomic_fetch_add_u64(&truncated->rotations, 1);
}
