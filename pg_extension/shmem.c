/* SPDX-License-Identifier: PostgreSQL */
/*
 * shmem.c
 *	  The shared memory of ngx_pgq; spans and depths of slots.
 *
 * The postmaster creates it at start and again after a crash.  Most fields are
 * atomic; for each of the others ngx_pgq.h says what guards it.
 *
 * A span is one atomic 64-bit word: the low block in the upper half, the high
 * block in the lower.  It is a hint that must never be too small:
 * - A backend adds the blocks it wrote to after its commit is visible.
 * - A mover takes the whole span before it takes its snapshot.  So it sees all
 *	 rows in it; blocks that are added later stay for the next claim.
 * - A mover gives back the blocks it did not claim, and all of them if it
 *	 fails.
 *
 * The depth of a slot is the number of messages that commits have reported,
 * less those that were claimed.  It is not exact: messages that were inserted
 * without shared memory, by COMMIT PREPARED or with an explicit slot are not
 * counted, and those of a rolled back savepoint are.  It is corrected when no
 * message is found and when the slot is truncated.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "ngx_pgq.h"

#define TRANCHE		"ngx_pgq"

NgxPgqShared *ngx_pgq_shmem = NULL;

static shmem_request_hook_type prev_shmem_request_hook;
static shmem_startup_hook_type prev_shmem_startup_hook;

static inline uint64
shmem_span_pack(NgxPgqSpan span)
{
	return ((uint64) span.low << 32) | span.high;
}

static inline NgxPgqSpan
shmem_span_unpack(uint64 word)
{
	NgxPgqSpan	span;

	span.low = (BlockNumber) (word >> 32);
	span.high = (BlockNumber) word;
	return span;
}

static const NgxPgqSpan span_empty = {InvalidBlockNumber, 0};

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(NgxPgqShared)));
	RequestNamedLWLockTranche(TRANCHE, 1);
}

static void
shmem_mover_init(NgxPgqMover *mover)
{
	pg_atomic_init_u32(&mover->pid, 0);
	pg_atomic_init_u32(&mover->proc, 0);
	pg_atomic_init_u32(&mover->state, NGX_PGQ_STOPPED);
	pg_atomic_init_u64(&mover->batches, 0);
	pg_atomic_init_u64(&mover->messages, 0);
	pg_atomic_init_u64(&mover->dead_letters, 0);
	pg_atomic_init_u64(&mover->errors, 0);
	pg_atomic_init_u64(&mover->rate, 0);
	pg_atomic_init_u64(&mover->moved_at, 0);
	pg_atomic_init_u64(&mover->started_at, 0);
	pg_atomic_init_u64(&mover->error_at, 0);
	mover->last_error[0] = '\0';
}

static void
shmem_slot_init(NgxPgqSlot *slot)
{
	pg_atomic_init_u64(&slot->span, shmem_span_pack(span_empty));
	pg_atomic_init_u64(&slot->enqueued, 0);
	pg_atomic_init_u64(&slot->moved, 0);
	pg_atomic_init_u64(&slot->oldest_at, 0);
	pg_atomic_init_u32(&slot->blocks, 0);
	pg_atomic_init_u32(&slot->skip, NGX_PGQ_NOT_SKIPPED);
	pg_atomic_init_u64(&slot->sealed_at, 0);
	pg_atomic_init_u64(&slot->rotations, 0);
}

/*
 * Initialize an entry for the database of this name; "" frees it.  No mover
 * may use the entry and no transaction may hold it.  After server start the
 * caller holds shmem->lock.
 */
void
ngx_pgq_shmem_database_assign(NgxPgqDatabase *database, const char *name)
{
	pg_atomic_init_u32(&database->oid, InvalidOid);
	strlcpy(database->name, name, NAMEDATALEN);
	pg_atomic_init_u32(&database->holds, 0);
	pg_atomic_init_u32(&database->slot, 0);
	pg_atomic_init_u32(&database->wake, 0);
	pg_atomic_init_u32(&database->sweep_wanted, 0);
	pg_atomic_init_u64(&database->swept_at, 0);
	pg_atomic_init_u64(&database->sweep_after, 0);
	pg_atomic_init_u32(&database->paused, 0);
	pg_atomic_init_u32(&database->counted, 0);
	pg_atomic_init_u32(&database->batch_leaf, 0);
	pg_atomic_init_u64(&database->batch_leaf_since, 0);
	for (int i = 0; i < NGX_PGQ_BATCH_LEAVES; i++)
		pg_atomic_init_u64(&database->batch_unused_since[i], 0);
	pg_atomic_init_u64(&database->service_offset, 0);
	for (int i = 0; i < NGX_PGQ_SLOTS; i++)
		shmem_slot_init(&database->slots[i]);
	for (int i = 0; i < NGX_PGQ_MOVERS; i++)
		shmem_mover_init(&database->mover[i]);
}

static void
shmem_startup(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	ngx_pgq_shmem = ShmemInitStruct("ngx_pgq", sizeof(NgxPgqShared), &found);
	if (!found)
	{
		ngx_pgq_shmem->lock = &(GetNamedLWLockTranche(TRANCHE))->lock;
		pg_atomic_init_u32(&ngx_pgq_shmem->launcher, 0);
		pg_atomic_init_u32(&ngx_pgq_shmem->databases_changed, 0);
		for (int i = 0; i < NGX_PGQ_DATABASES; i++)
			ngx_pgq_shmem_database_assign(&ngx_pgq_shmem->database[i], "");
	}
	LWLockRelease(AddinShmemInitLock);
}

void
ngx_pgq_shmem_install(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

/*
 * The entry of this backend's database; NULL if no movers serve it.  Must not
 * raise an error, as it is called after commit too.
 */
NgxPgqDatabase *
ngx_pgq_shmem_database_of_backend(void)
{
	static NgxPgqDatabase *mine = NULL;

	if (ngx_pgq_shmem == NULL || !OidIsValid(MyDatabaseId))
		return NULL;
	if (mine && pg_atomic_read_u32(&mine->oid) == MyDatabaseId)
		return mine;

	mine = NULL;
	for (int i = 0; i < NGX_PGQ_DATABASES && mine == NULL; i++)
	{
		NgxPgqDatabase *database = &ngx_pgq_shmem->database[i];

		if (pg_atomic_read_u32(&database->oid) == MyDatabaseId)
			mine = database;
	}
	return mine;
}

/* The smallest span that includes both. */
NgxPgqSpan
ngx_pgq_shmem_span_union(NgxPgqSpan a, NgxPgqSpan b)
{
	NgxPgqSpan	both;

	if (a.low > a.high)
		return b;
	if (b.low > b.high)
		return a;
	both.low = Min(a.low, b.low);
	both.high = Max(a.high, b.high);
	return both;
}

/* Take the whole span of a slot, leaving it empty. */
NgxPgqSpan
ngx_pgq_shmem_span_take(NgxPgqDatabase *database, int slot)
{
	return shmem_span_unpack(pg_atomic_exchange_u64(&database->slots[slot].span,
													shmem_span_pack(span_empty)));
}

/* Add blocks to the span of a slot.  Called after commit: must not raise. */
void
ngx_pgq_shmem_span_give(NgxPgqDatabase *database, int slot, NgxPgqSpan span)
{
	uint64		old;
	uint64		new;

	if (span.low > span.high)
		return;
	old = pg_atomic_read_u64(&database->slots[slot].span);
	do
		new = shmem_span_pack(ngx_pgq_shmem_span_union(shmem_span_unpack(old),
													   span));
	while (!pg_atomic_compare_exchange_u64(&database->slots[slot].span, &old, new));
}

/* Does any slot have a span? */
bool
ngx_pgq_shmem_span_any(NgxPgqDatabase *database)
{
	for (int i = 0; i < NGX_PGQ_SLOTS; i++)
	{
		uint64		word = pg_atomic_read_u64(&database->slots[i].span);

		if (word != shmem_span_pack(span_empty))
			return true;
	}
	return false;
}

/* The number of messages that became posts since the server started. */
uint64
ngx_pgq_shmem_database_posted(NgxPgqDatabase *database)
{
	uint64		sum = 0;

	for (int i = 0; i < NGX_PGQ_MOVERS; i++)
		sum += pg_atomic_read_u64(&database->mover[i].messages);
	return sum;
}

/* Count committed messages.  Called after commit: must not raise. */
void
ngx_pgq_shmem_slot_enqueued(NgxPgqSlot *slot, uint64 count)
{
	if (ngx_pgq_shmem_slot_depth(slot) == 0)
		pg_atomic_write_u64(&slot->oldest_at,
							GetCurrentTransactionStopTimestamp());
	pg_atomic_fetch_add_u64(&slot->enqueued, count);
}

/* No message was found: set the depth to 0, unless one has just arrived. */
void
ngx_pgq_shmem_slot_empty(NgxPgqSlot *slot)
{
	uint64		enqueued = pg_atomic_read_u64(&slot->enqueued);
	uint64		moved = pg_atomic_read_u64(&slot->moved);

	if (enqueued != moved &&
		pg_atomic_read_u64(&slot->span) == shmem_span_pack(span_empty))
		pg_atomic_compare_exchange_u64(&slot->enqueued, &enqueued, moved);
}

uint64
ngx_pgq_shmem_slot_depth(NgxPgqSlot *slot)
{
	uint64		moved = pg_atomic_read_u64(&slot->moved);
	uint64		enqueued = pg_atomic_read_u64(&slot->enqueued);

	return enqueued > moved ? enqueued - moved : 0;
}

/* Messages per second, as an exponentially decaying average. */
double
ngx_pgq_shmem_rate(NgxPgqMover *mover, TimestampTz now)
{
	double		rate = pg_atomic_read_u64(&mover->rate) / 1000.0;
	TimestampTz then = pg_atomic_read_u64(&mover->moved_at);

	return rate * exp((double) Min(then - now, 0) /
					  (NGX_PGQ_RATE_SEC * USECS_PER_SEC));
}

/* Record why a batch failed, or why a mover does not run. */
void
ngx_pgq_shmem_mover_error(NgxPgqMover *mover, const char *text)
{
	LWLockAcquire(ngx_pgq_shmem->lock, LW_EXCLUSIVE);
	strlcpy(mover->last_error, text, sizeof(mover->last_error));
	pg_atomic_write_u64(&mover->error_at, *text ? GetCurrentTimestamp() : 0);
	LWLockRelease(ngx_pgq_shmem->lock);
}
