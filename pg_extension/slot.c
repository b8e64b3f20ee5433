/* SPDX-License-Identifier: PostgreSQL */
/*
 * slot.c
 *	  Rotating slots: new messages go to the next leaf, an old one is emptied.
 *
 * Called by the first mover of a database, between batches, in a transaction
 * of its own.  Dead rows are never vacuumed one by one: when the current slot
 * has grown to ngx_pgq.rotate_size, an empty one takes over, and when nothing
 * is left in the sealed one, it is truncated.
 *
 * - Publishing the next slot is one write to shared memory.  Who has read the
 *	 old number still writes to the old leaf: movers look at all leaves, and a
 *	 leaf somebody writes to is locked by him until his transaction ends.
 * - Hence the proof that a leaf may be truncated: we hold its AccessExclusive
 *	 lock, so every transaction that wrote to it has ended, and a snapshot taken
 *	 since sees no row in it.
 * - The lock is never waited for, as all who came after us would wait, too.
 *	 A leaf that cannot be had (a dump, a prepared transaction, a reader) is
 *	 left as it is and costs space; spans keep it from costing time.
 * - TRUNCATE takes rows away from snapshots that still see them.  Somebody who
 *	 took one before the last message was moved could miss that message here
 *	 and in posts, as pg_dump would which has a snapshot and no locks yet.  So a
 *	 leaf waits for older snapshots, but not for ever: who has not locked it by
 *	 then is not going to read it.
 * - The commit does not wait for a standby (see mover.c): the lock would last as
 *	 long.
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

#define LOOK_US			INT64CONST(200000)	/* between two looks at the leaves */
#define SCAN_SHARE		20		/* reading through leaves: one part of the time */

/* A sealed slot as the one who empties it sees it; times are ngx_pgq_clock(). */
typedef struct Drained
{
	int64		scan_after;		/* when it was read and was not empty */
	int64		noted_at;		/* when it was found drained; 0: it is not */
	uint64		gone;			/* its count then; with another, it was not yet */
	int			count;			/* who had a snapshot then and has it still */
	VirtualTransactionId *holders;
} Drained;

static Drained drained_slots[NGX_PGQ_SLOTS];
static int64 look_after = 0;	/* ngx_pgq_clock() */
static NgxPgqSlot *emptied = NULL;	/* by this transaction */
static uint64 looked_at = PG_UINT64_MAX;	/* slot_traffic() of the last look */

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

/* Note who has a snapshot now that nothing of a slot is left to be moved. */
static void
slot_note_holders(Drained *drained, uint64 gone)
{
	MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);

	if (drained->holders)
		pfree(drained->holders);
	drained->holders = GetCurrentVirtualXIDs(InvalidTransactionId, true, false,
											 PROC_IN_VACUUM, &drained->count);
	MemoryContextSwitchTo(caller);
	drained->noted_at = ngx_pgq_clock();
	drained->gone = gone;
}

/*
 * Might a snapshot that is older than the slot's last move still be used?  We
 * remember which transactions had one when the slot was first found drained,
 * as CREATE INDEX CONCURRENTLY does, and wait until each of them has ended.
 */
static bool
slot_snapshot_may_want(NgxPgqDatabase *database, int number)
{
	Drained    *drained = &drained_slots[number];
	uint64		gone = pg_atomic_read_u64(&database->slots[number].gone);
	int			left = 0;

	if (drained->noted_at == 0 || drained->gone != gone)
		slot_note_holders(drained, gone);
	for (int i = 0; i < drained->count; i++)
	{
		if (!VirtualXactLock(drained->holders[i], false))
			drained->holders[left++] = drained->holders[i];
	}
	drained->count = left;
	return left > 0 && ngx_pgq_clock() <
		drained->noted_at + ngx_pgq_snapshot_grace * INT64CONST(1000);
}

/* Is nothing left in a leaf that we have locked?  What is, is looked for. */
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

/* Empty a sealed slot, or say what is against it. */
static NgxPgqSkip
slot_empty(NgxPgqDatabase *database, int number, Oid relid)
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
	if (slot_snapshot_may_want(database, number))
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
		emptied = slot;
	}
	return skip;
}

/* Let an empty slot take over from a full one. */
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

/* A number that changes when messages come or go. */
static uint64
slot_traffic(NgxPgqDatabase *database)
{
	uint64		sum = 0;

	for (int i = 0; i < NGX_PGQ_SLOTS; i++)
		sum += pg_atomic_read_u64(&database->slots[i].came) +
			pg_atomic_read_u64(&database->slots[i].gone);
	return sum;
}

/* Is it time to look at the leaves? */
bool
ngx_pgq_slot_rotate_due(NgxPgqDatabase *database)
{
	uint32		current = pg_atomic_read_u32(&database->slot);

	if (ngx_pgq_clock() < look_after)
		return false;
	for (uint32 i = 0; i < NGX_PGQ_SLOTS; i++)
	{
		if (i != current && pg_atomic_read_u32(&database->slots[i].blocks) > 0)
			return true;
	}
	return slot_traffic(database) != looked_at;
}

/*
 * Look at the leaves: empty one that is drained, and let one take over from the
 * current one if that is full.  When due, in a transaction of its own; its
 * commit is told by ngx_pgq_slot_rotate_keep().
 */
void
ngx_pgq_slot_rotate(NgxPgqDatabase *database)
{
	uint32		current = pg_atomic_read_u32(&database->slot);
	NgxPgqTables tables;

	emptied = NULL;
	look_after = ngx_pgq_clock() + LOOK_US;
	looked_at = slot_traffic(database);
	ngx_pgq_tables_find(&tables, AccessShareLock);
	if (tables.missing)
		return;
	for (uint32 i = 0; i < NGX_PGQ_SLOTS; i++)
		pg_atomic_write_u32(&database->slots[i].blocks,
							slot_blocks_of(tables.queue[i]));
	slot_advance(database);
	for (uint32 i = 0; i < NGX_PGQ_SLOTS && emptied == NULL; i++)
	{
		NgxPgqSlot *slot = &database->slots[i];

		if (i == current || pg_atomic_read_u32(&slot->blocks) == 0)
			continue;
		pg_atomic_write_u32(&slot->skip,
							slot_empty(database, i, tables.queue[i]));
	}
}

/* The transaction has committed. */
void
ngx_pgq_slot_rotate_keep(void)
{
	if (emptied == NULL)
		return;
	NGX_PGQ_FAULT("slot-committed");
	pg_atomic_write_u32(&emptied->blocks, 0);
	pg_atomic_fetch_add_u64(&emptied->rotations, 1);
}
