/* SPDX-License-Identifier: PostgreSQL */
/*
 * mover_batch.c
 *	  Moving one batch from the queue to posts, in one transaction.
 *
 * The caller has no transaction.  If an error is raised, it aborts the
 * transaction and gives the claim back.
 *
 * - Exactly once: the transaction that deletes a message from the queue
 *	 inserts its post or its dead letter.
 * - Ids in commit order: a process that holds the posting lock is the only one
 *	 that takes ids, and the server releases the lock after the commit is
 *	 visible.  Messages are claimed before, so movers claim concurrently.
 * - mover_trial.c finds a bad message if the caller asks for a trial.
 * - Settings that triggers on posts change, synchronous_commit among them, are
 *	 reset before the commit.  Deferred triggers have run by then.
 * - Readers are notified after the commit, in another transaction that does
 *	 not wait for a standby: NOTIFY may fail, and holds a lock of the whole
 *	 server until its commit.  Neither may delay the commit of posts.
 * - The queue is locked before its leaves and in the same mode.  All code of
 *	 ngx_pgq does so, which prevents deadlocks.
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
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "bulk_insert.h"
#include "fault.h"
#include "ngx_pgq.h"

#define ANNOUNCE_US		INT64CONST(1000000) /* time until NOTIFY is retried */

/* Wait for the posting lock, which is held until the commit is visible. */
static void
mover_batch_lock_posting(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, NGX_PGQ_LOCK_POSTING);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* Run deferred triggers on posts, if it has triggers. */
static void
mover_batch_run_deferred(NgxPgqTables *tables)
{
	Relation	posts = table_open(tables->posts, NoLock);
	bool		triggers = !ngx_pgq_bulk_insert_is_plain(posts);

	table_close(posts, NoLock);
	if (triggers)
		SPI_execute("set constraints all immediate", false, 0);
}

static int64 last_id;			/* largest id of the batch; 0: no posts */
static int64 unannounced = 0;	/* id to notify readers of; 0: none */
static int64 announce_after = 0;	/* ngx_pgq_clock() of the retry */

bool
ngx_pgq_mover_batch_announce_due(void)
{
	return unannounced > 0 && ngx_pgq_clock() >= announce_after;
}

/*
 * Notify readers of the last committed post.  The caller begins a transaction
 * for it when it is due, and calls ngx_pgq_mover_batch_announce_committed()
 * after the commit.
 */
void
ngx_pgq_mover_batch_announce(NgxPgqDatabase *database)
{
	char		payload[32];

	/* if the notification queue was full, this makes the server trim it */
	if (announce_after > 0)
		(void) OidFunctionCall0(F_PG_NOTIFICATION_QUEUE_USAGE);
	announce_after = ngx_pgq_clock() + ANNOUNCE_US;
	snprintf(payload, sizeof(payload), INT64_FORMAT, unannounced);
	Async_Notify(NGX_PGQ_CHANNEL, payload);
	NGX_PGQ_FAULT("notified");
}

void
ngx_pgq_mover_batch_announce_committed(void)
{
	unannounced = 0;
	announce_after = 0;
}

/* Move claimed messages.  Returns how many became dead letters. */
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
 * Exit if the role is a superuser, as triggers on posts run with its rights.
 * Called at the start of each transaction, as the role may become one at any
 * time.  The launcher starts the mover again after a back-off.
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
			 errmsg("%s: role \"%s\" must not be a superuser",
					MyBgworkerEntry->bgw_name, role),
			 errhint("Change ngx_pgq.role.")));
}

/*
 * Move up to limit messages, or try each of them.  Returns their number; 0 if
 * there are none, or if a table is missing: then *missing is its name.
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
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	ngx_pgq_mover_batch_refuse_superuser(mover);
	XactIsoLevel = XACT_READ_COMMITTED; /* a claim needs a new snapshot */
	pgstat_report_activity(STATE_RUNNING, "moving messages to posts");
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
	ngx_pgq_mover_claim_committed();

	unannounced = Max(unannounced, last_id);
	if (claim.count > 0)
	{
		ngx_pgq_mover_trial_committed(trial);
		mover_batch_count(mover, claim.count, dead);
	}
	return claim.count;
}
