/* SPDX-License-Identifier: PostgreSQL */
/*
 * mover_batch.c
 *	  Moving one batch: one transaction from the queue to posts.
 *
 * The caller is outside a transaction.  An error is raised when the batch
 * fails: the caller then aborts and has the claim given back.
 *
 * - Exactly once: a message's row leaves the queue in the transaction that
 *	 makes its post or its dead letter.
 * - Ids in commit order: between taking the posting lock and the end of the
 *	 transaction only this process gives out ids, and the server releases the
 *	 lock after the commit has become visible.  Claims are made before it, so
 *	 several movers claim at the same time.
 * - What keeps a batch from being moved is found by mover_trial.c, when the mover
 *	 asks for a trial.
 * - What triggers on posts set does not outlive them: the settings are those of
 *	 the mover again before the transaction commits, synchronous_commit among
 *	 them.  Deferred triggers have run by then.
 * - Readers are told after the commit, in a transaction of its own that waits
 *	 for no standby: NOTIFY may fail, and holds a lock of the whole server until
 *	 its commit.  Neither may keep a post from being committed.
 * - The queue is locked before its leaves, as everybody else does who needs
 *	 both, and as strongly as the leaves: so no command that changes them meets
 *	 us in a deadlock.
 * - No transaction is open while the process sleeps.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "commands/async.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/lock.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "bulk_insert.h"
#include "fault.h"
#include "ngx_pgq.h"

/* Sets our lock apart from those users take with pg_advisory_lock(). */
#define POSTING_LOCK	0x7067

#define ANNOUNCE_US		INT64CONST(1000000) /* between tries to tell readers */

/* Wait for the right to give out ids; held until the commit is visible. */
static void
mover_batch_lock_posting(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, POSTING_LOCK);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* Have deferred triggers on posts run now, where there are triggers. */
static void
mover_batch_run_deferred(NgxPgqTables *tables)
{
	Relation	posts = table_open(tables->posts, NoLock);
	bool		triggers = !ngx_pgq_bulk_insert_is_plain(posts);

	table_close(posts, NoLock);
	if (triggers)
		SPI_execute("set constraints all immediate", false, 0);
}

static int64 last_id;			/* of this batch; 0: no posts */
static int64 unannounced = 0;	/* readers are to be told of this id; 0: none */
static int64 announce_after = 0;	/* ngx_pgq_clock() */

/* Are readers to be told of posts that were committed? */
bool
ngx_pgq_mover_batch_announce_due(void)
{
	return unannounced > 0 && ngx_pgq_clock() >= announce_after;
}

/*
 * Tell readers the id of the last post that was committed.  Called in a
 * transaction of its own, when due; the commit is told by
 * ngx_pgq_mover_batch_announce_done().  After a failure it is tried again, at
 * intervals.
 */
void
ngx_pgq_mover_batch_announce(NgxPgqDatabase *database)
{
	char		payload[32];

	/* a full queue: whoever asks how full has the server drop its tail */
	if (announce_after > 0)
		(void) OidFunctionCall0(F_PG_NOTIFICATION_QUEUE_USAGE);
	announce_after = ngx_pgq_clock() + ANNOUNCE_US;
	snprintf(payload, sizeof(payload), INT64_FORMAT, unannounced);
	Async_Notify(NGX_PGQ_CHANNEL, payload);
	NGX_PGQ_FAULT("notified");
}

void
ngx_pgq_mover_batch_announce_done(void)
{
	unannounced = 0;
	announce_after = 0;
}

/* Move what was claimed.  Returns how many messages became dead letters. */
static int
mover_batch_move_claim(NgxPgqTables *tables, NgxPgqClaim *claim, bool trial)
{
	int			dead = 0;

	NGX_PGQ_FAULT("claimed");
	mover_batch_lock_posting();
	NGX_PGQ_FAULT("posting-locked");
	if (trial)
		dead = ngx_pgq_mover_trial(tables, claim, &last_id);
	else
	{
		last_id = ngx_pgq_mover_post_write(tables, claim);
		mover_batch_run_deferred(tables);
	}
	NGX_PGQ_FAULT("posts-written");
	return dead;
}

static void
mover_batch_count(NgxPgqMover *mover, int messages, int dead)
{
	TimestampTz now = GetCurrentTimestamp();

	pg_atomic_write_u64(&mover->rate,
						(uint64) (ngx_pgq_shmem_rate(mover, now) * 1000) +
						messages * UINT64CONST(1000) / NGX_PGQ_RATE_SEC);
	pg_atomic_write_u64(&mover->moved_at, now);
	pg_atomic_fetch_add_u64(&mover->batches, 1);
	pg_atomic_fetch_add_u64(&mover->dead_letters, dead);
	pg_atomic_fetch_add_u64(&mover->messages, messages - dead);
}

/*
 * What people have added to posts runs with the rights of our role, which may
 * become a superuser at any time: called at the start of each transaction.  Say
 * so where the status is read, and end: the launcher tries again, at intervals.
 */
void
ngx_pgq_mover_batch_refuse_superuser(NgxPgqMover *mover)
{
	char	   *role;

	if (!superuser())
		return;
	role = GetUserNameFromId(GetUserId(), false);
	pg_atomic_fetch_add_u64(&mover->errors, 1);
	ngx_pgq_shmem_mover_error(mover,
							  psprintf("role \"%s\" (setting ngx_pgq.role) is a superuser",
									   role));
	ereport(FATAL,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("%s: role \"%s\" is a superuser, and must not be",
					MyBgworkerEntry->bgw_name, role),
			 errhint("Change ngx_pgq.role.")));
}

static void
mover_batch_begin(NgxPgqMover *mover)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	ngx_pgq_mover_batch_refuse_superuser(mover);
	XactIsoLevel = XACT_READ_COMMITTED; /* a claim needs a snapshot of its own */
	pgstat_report_activity(STATE_RUNNING, "moving messages to posts");
}

/*
 * Move up to limit messages, or have each of a few tried.  Returns how many there
 * were; 0 means that none are left, or that *missing is not there.
 */
int
ngx_pgq_mover_batch_move(NgxPgqDatabase *database, NgxPgqMover *mover,
						 int limit, bool trial, const char **missing)
{
	NgxPgqTables tables;
	NgxPgqClaim claim = {0, 0, NULL};
	int			dead = 0;
	int			settings;

	*missing = NULL;
	last_id = 0;
	mover_batch_begin(mover);
	settings = NewGUCNestLevel();
	ngx_pgq_tables_find(&tables, RowExclusiveLock);
	*missing = tables.missing;
	if (tables.missing == NULL)
	{
		ngx_pgq_mover_sweep_start(database, &tables);
		PushActiveSnapshot(GetTransactionSnapshot());
		SPI_connect();
		ngx_pgq_mover_claim_take(database, &tables, limit, &claim);
		if (claim.count > 0)
			dead = mover_batch_move_claim(&tables, &claim, trial);
		SPI_finish();
		PopActiveSnapshot();
	}
	AtEOXact_GUC(false, settings);
	if (claim.count > 0)
		NGX_PGQ_FAULT("batch-finished");
	CommitTransactionCommand();
	if (claim.count > 0)
		NGX_PGQ_FAULT("batch-committed");
	ngx_pgq_mover_claim_keep();

	unannounced = Max(unannounced, last_id);
	if (claim.count > 0)
	{
		ngx_pgq_mover_trial_done(trial);
		mover_batch_count(mover, claim.count, dead);
	}
	return claim.count;
}
