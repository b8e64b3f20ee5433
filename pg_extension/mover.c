/* SPDX-License-Identifier: PostgreSQL */
/*
 * mover.c
 *	  The rhythm of one mover process: look, move, sleep; and start over.
 *
 * Entry point of the dynamic background workers the launcher starts.  Owns its
 * own entry in shared memory from start to exit.
 *
 * - Sleeps on its latch when there is nothing to do, with no transaction open.
 * - An error ends a batch, not the process.  It is waited out, 100 ms at first,
 *	 10 s at most.  One that lasts over a few tries halves the next batch, one
 *	 that is plainly about data at once and without waiting, until a message
 *	 stands alone: then mover_trial.c finds out whose fault it is.
 * - SIGTERM ends it wherever it waits, SIGHUP has it read its settings, SIGINT
 *	 cancels the batch it is at.
 * - Nothing a message holds is logged: of an error that may quote a value only
 *	 the code and the name of the constraint, see
 *	 ngx_pgq_sqlstate_error_text().  Before messages were claimed no error can.
 */
#include "postgres.h"

#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "fault.h"
#include "key_table.h"
#include "ngx_pgq.h"

#define BACKOFF_MIN_MS	100
#define BACKOFF_MAX_MS	10000
#define BACKOFF_HALVING_MS	400 /* at most, while batches get smaller */
#define FAILURES		3		/* of a batch, before it is halved */
#define STATISTICS_MS	1000	/* between reports, at least */
#define MISSING_MS		2000	/* between looks for a missing table */
#define PAUSED_MS		60000	/* resume() sets the latch */
#define PACE_US			1000	/* from batch to batch, unless they are full, */
#define PACE_MESSAGE_US	20		/* more for each message of the last one, */
#define PACE_MAX_US		5000	/* but not more than this */
#define WAIT_EVENT		"NgxPgqMoverMain"
#define LOG_PAUSE_US	10000000	/* between log lines about errors */

static NgxPgqDatabase *database;
static NgxPgqMover *me;
static int	my_number;			/* in my database, from 1 */
static char my_role[NAMEDATALEN];	/* the setting when we connected */

static uint32 wait_event = 0;
static int	batch_limit;		/* of the next batch */
static int	last_moved;			/* messages of the last batch */
static bool last_was_full;		/* it met its limit */
static int	backoff_ms;			/* after the next error */
static int	failures = 0;		/* since a batch was moved */
static const char *reported_missing = NULL;
static int64 log_after = 0;		/* ngx_pgq_clock() */
static int	not_logged = 0;

static void
mover_set_state(NgxPgqMoverState state)
{
	pg_atomic_exchange_u32(&me->state, state);
}

/*
 * The server does not let a process know what it has died of: its log does.
 * What is said already, in this life, is better.
 */
static void
mover_say_not_started(void)
{
	if (pg_atomic_read_u64(&me->error_at) < pg_atomic_read_u64(&me->started_at))
		ngx_pgq_shmem_mover_error(me,
								   "could not connect to the database as ngx_pgq.role, see the server's log");
	mover_set_state(NGX_PGQ_FAILED);
}

/* On exit, however it comes about: what we claimed is for others again. */
static void
mover_leave(int code, Datum arg)
{
	ngx_pgq_mover_claim_give_back(database);
	ngx_pgq_mover_sweep_failed(database, true);
	if (code != 0 && !ProcDiePending &&
		pg_atomic_read_u32(&me->state) == NGX_PGQ_STARTING)
		mover_say_not_started();
	else
		mover_set_state(NGX_PGQ_STOPPED);
	pg_atomic_write_u32(&me->pid, 0);
	if (ngx_pgq_shmem_span_any(database) ||
		pg_atomic_read_u32(&database->wake))
		ngx_pgq_wake(database, true);
}

static void
mover_enter(int index)
{
	database = &ngx_pgq_shmem->database[index / NGX_PGQ_MOVERS];
	my_number = index % NGX_PGQ_MOVERS + 1;
	me = &database->mover[my_number - 1];

	before_shmem_exit(mover_leave, (Datum) 0);
	pg_atomic_write_u32(&me->proc, ngx_pgq_my_proc_number());
	pg_atomic_write_u64(&me->started_at, GetCurrentTimestamp());
	mover_set_state(NGX_PGQ_STARTING);
	pg_atomic_write_u32(&me->pid, MyProcPid);
}

static void
mover_connect_to_database(void)
{
	char		name[NAMEDATALEN];

	LWLockAcquire(ngx_pgq_shmem->lock, LW_SHARED);
	strlcpy(name, database->name, sizeof(name));
	LWLockRelease(ngx_pgq_shmem->lock);

	strlcpy(my_role, ngx_pgq_role, sizeof(my_role));
	BackgroundWorkerInitializeConnection(name, my_role, 0);
	SetConfigOption("application_name", MyBgworkerEntry->bgw_name,
					PGC_USERSET, PGC_S_SESSION);
	/* for what users have added to posts; our own SQL names schemas */
	SetConfigOption("search_path", "pg_catalog, public", PGC_USERSET,
					PGC_S_OVERRIDE);
}

static void
mover_remember_error(const char *text)
{
	pg_atomic_fetch_add_u64(&me->errors, 1);
	ngx_pgq_shmem_mover_error(me, text);
}

/* One log line about errors, and then for a while none. */
static void
mover_log_error(const char *text)
{
	int64		now = ngx_pgq_clock();

	if (now < log_after)
	{
		not_logged++;
		return;
	}
	if (not_logged > 0)
		ereport(LOG,
				(errmsg("%s: %s (%d more errors were not logged)",
						MyBgworkerEntry->bgw_name, text, not_logged)));
	else
		ereport(LOG,
				(errmsg("%s: %s", MyBgworkerEntry->bgw_name, text)));
	log_after = now + LOG_PAUSE_US;
	not_logged = 0;
}

/*
 * Deal with an error that ended a batch of so many messages.  True if a smaller
 * one is to be tried at once.
 */
static bool
mover_handle_error(ErrorData *error, int count)
{
	bool		data = batch_limit > 1 &&
	ngx_pgq_sqlstate_is_about_data(error->sqlerrcode);
	const char *words = count > 0 ? ngx_pgq_sqlstate_error_text(error) :
	error->message;
	char	   *text;

	failures++;
	text = psprintf("%s, %s", words ? words : "posts refuses a message",
					ngx_pgq_sqlstate_describe(error));
	if (!data)
		text = psprintf("%s; retry in %d ms", text, backoff_ms);
	mover_remember_error(text);
	mover_log_error(text);

	if (batch_limit > 1 && (data || failures >= FAILURES))
	{
		batch_limit = Max(Min(batch_limit, Max(count, 2)) / 2, 1);
		backoff_ms = Min(backoff_ms, BACKOFF_HALVING_MS);
	}
	return data;
}

/* Say once what is missing, and once that it is there again. */
static void
mover_report_missing(const char *missing)
{
	if (missing == reported_missing)
		return;
	if (missing)
		ereport(LOG,
				(errmsg("%s: %s is missing",
						MyBgworkerEntry->bgw_name, missing),
				 errhint("Run sql/install.sql in this database.")));
	else
		ereport(LOG,
				(errmsg("%s: nothing is missing any more",
						MyBgworkerEntry->bgw_name)));
	reported_missing = missing;
}

/*
 * For use between batches, where there is nothing that a cancel could be meant
 * for: it would end the process.  Who is terminated here need not complain.
 */
static void
mover_answer_signals(void)
{
	if (ProcDiePending)
		proc_exit(0);
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
}

static void
mover_nap(NgxPgqMoverState state, long ms)
{
	pgstat_report_activity(STATE_IDLE, NULL);

	mover_set_state(state);
	if (state != NGX_PGQ_IDLE || !pg_atomic_read_u32(&database->wake))
		ngx_pgq_wake_wait(ms, &wait_event, WAIT_EVENT);
	ResetLatch(MyLatch);
	mover_set_state(NGX_PGQ_MOVING);
}

/*
 * Sleep for as long as an error asks for, whoever sets the latch; but a reload
 * may have changed what the error was about.
 */
static void
mover_back_off(void)
{
	int64		until = ngx_pgq_clock() + backoff_ms * INT64CONST(1000);
	int64		now;

	while (!ConfigReloadPending && (now = ngx_pgq_clock()) < until)
	{
		mover_nap(NGX_PGQ_BACKING_OFF, (until - now + 999) / 1000);
		mover_answer_signals();
	}
	backoff_ms = ConfigReloadPending ? BACKOFF_MIN_MS :
		Min(backoff_ms * 2, BACKOFF_MAX_MS);
}

/*
 * Under load, let a batch gather: each costs a flush of the WAL that those who
 * enqueue want as well.  A message that comes when all was quiet, and one that
 * waits behind a full batch, is moved at once.
 */
static void
mover_pace(void)
{
	static int64 next = 0;
	int64		wait = next - ngx_pgq_clock();

	if (wait > 0 && !last_was_full)
	{
		ngx_pgq_wake_wait((wait + 999) / 1000, &wait_event, WAIT_EVENT);
		mover_answer_signals();
	}
	next = ngx_pgq_clock() +
		Min(PACE_US + last_moved * PACE_MESSAGE_US, PACE_MAX_US);
}

/* Catch the current error: its transaction is rolled back. */
static ErrorData *
mover_catch_error(MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(context);
	return error;
}

/*
 * Housekeeping between batches: a transaction of its own.  Returns 0, or the
 * code of the error it failed with; then it waits for its next time.
 *
 * - Its commit waits for no standby, as it may hold locks that everybody waits
 *	 for, and need not be flushed: what a crash undoes is done again.
 * - What triggers set ends with the chore, as it does with a batch.
 */
static int
mover_tidy(MemoryContext context, const char *activity,
		   void (*chore) (NgxPgqDatabase *database), void (*committed) (void))
{
	volatile int sqlerrcode = 0;

	PG_TRY();
	{
		int			settings;

		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		ngx_pgq_mover_batch_refuse_superuser(me);
		pgstat_report_activity(STATE_RUNNING, activity);
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0,
								 false);
		settings = NewGUCNestLevel();
		chore(database);
		AtEOXact_GUC(false, settings);
		CommitTransactionCommand();
		committed();
	}
	PG_CATCH();
	{
		ErrorData  *error = mover_catch_error(context);
		const char *words = ngx_pgq_sqlstate_error_text(error);
		char	   *text;

		sqlerrcode = error->sqlerrcode;
		if (words == NULL)
			words = chore == ngx_pgq_mover_retention_step ?
				"a post is not let go" : psprintf("failed at %s", activity);
		text = psprintf("housekeeping: %s, SQLSTATE %s", words,
						unpack_sql_state(sqlerrcode));
		mover_remember_error(text);
		mover_log_error(text);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return sqlerrcode;
}

/* Tell readers of what was committed. */
static void
mover_announce(MemoryContext context)
{
	if (ngx_pgq_mover_batch_announce_due())
		(void) mover_tidy(context, "telling readers of new posts",
						  ngx_pgq_mover_batch_announce,
						  ngx_pgq_mover_batch_announce_done);
}

/*
 * One batch, its errors caught.  Returns the number of messages moved, or -1
 * if it is to be tried again at once.
 */
static int
mover_cycle(MemoryContext context)
{
	const char *missing = NULL;
	volatile int moved = 0;
	volatile int failed = 0;
	bool		trial = batch_limit == 1 && failures > 0;
	int			limit = trial ? ngx_pgq_mover_trial_size() : batch_limit;
	ErrorData  *volatile error = NULL;

	mover_pace();
	PG_TRY();
	{
		moved = ngx_pgq_mover_batch_move(database, me, limit, trial, &missing);
		mover_report_missing(missing);
	}
	PG_CATCH();
	{
		error = mover_catch_error(context);
		NGX_PGQ_FAULT("batch-aborted");
		failed = ngx_pgq_mover_claim_give_back(database);
		ngx_pgq_mover_sweep_failed(database, false);
	}
	PG_END_TRY();

	if (error == NULL)
	{
		last_moved = moved;
		last_was_full = moved == limit;
		backoff_ms = BACKOFF_MIN_MS;
		if (moved > 0)
			failures = 0;
		batch_limit = Min(batch_limit * 2, ngx_pgq_batch_size);
		mover_announce(context);
		return moved;
	}
	if (!mover_handle_error(error, failed))
		mover_back_off();
	return -1;
}

static void
mover_tidy_retention(MemoryContext context)
{
	int			sqlerrcode = mover_tidy(context,
										"removing posts that are no longer to be kept",
										ngx_pgq_mover_retention_step,
										ngx_pgq_mover_retention_done);

	if (sqlerrcode != 0)
		ngx_pgq_mover_retention_failed(sqlerrcode);
}

/* Milliseconds until this mover has something to do that nobody wakes it for. */
static long
mover_next_duty(void)
{
	long		wait = ngx_pgq_mover_sweep_wait(database);

	if (my_number == 1)
		wait = Min(wait, ngx_pgq_mover_retention_wait(database, false));
	return Max(1, wait);
}

/* What the first mover of a database does for all of them. */
static void
mover_keep_house(MemoryContext context)
{
	if (ngx_pgq_batch_table_due())
		(void) mover_tidy(context, "forgetting batches of long ago",
						  ngx_pgq_batch_table_tidy, ngx_pgq_batch_table_keep);
	if (ngx_pgq_key_leaf_due())
		(void) mover_tidy(context, "forgetting keys of long ago",
						  ngx_pgq_key_leaf_tidy, ngx_pgq_key_leaf_keep);
	if (ngx_pgq_slot_rotate_due(database))
		(void) mover_tidy(context, "looking for a slot to rotate or to empty",
						  ngx_pgq_slot_rotate, ngx_pgq_slot_rotate_keep);
	if (ngx_pgq_mover_retention_wait(database, last_was_full) == 0)
		mover_tidy_retention(context);
}

/*
 * The server takes statistics once a second, by the time of the last
 * transaction: before a long sleep the rest of them has to be forced.  Returns
 * more than 0 if there are some that had to wait.
 */
static long
mover_report_statistics(void)
{
	static int64 force_at = 0;
	int64		now = ngx_pgq_clock();
	long		waiting = pgstat_report_stat(force_at > 0 && now >= force_at);

	if (waiting == 0)
		force_at = 0;
	else if (force_at == 0)
		force_at = now + STATISTICS_MS * INT64CONST(1000);
	return waiting;
}

/* Nothing is left to move: sleep until a commit, a sweep or a fault is due. */
static void
mover_rest(void)
{
	long		ms = mover_next_duty();

	if (mover_report_statistics() > 0)
		ms = Min(ms, STATISTICS_MS);
	if (reported_missing)
	{
		mover_nap(NGX_PGQ_MISSING, MISSING_MS);
		return;
	}
	for (int i = 0; i < NGX_PGQ_SLOTS && !pg_atomic_read_u32(&database->blind); i++)
		ngx_pgq_shmem_slot_empty(&database->slots[i]);
	mover_nap(NGX_PGQ_IDLE, ms);
}

static bool
mover_work_to_do(void)
{
	bool		woken = pg_atomic_exchange_u32(&database->wake, 0) != 0;

	return woken || reported_missing || ngx_pgq_shmem_span_any(database) ||
		ngx_pgq_mover_sweep_wait(database) == 0;
}

/*
 * A process cannot change its role, nor read again what is set for its role or
 * its database: with another role, or if they may be why it is read-only, end
 * and be started.
 */
static void
mover_reload(void)
{
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	batch_limit = Min(batch_limit, ngx_pgq_batch_size);
	if (strcmp(my_role, ngx_pgq_role) != 0)
	{
		ereport(LOG,
				(errmsg("%s: ngx_pgq.role has changed, starting over",
						MyBgworkerEntry->bgw_name)));
		proc_exit(0);
	}
	if (DefaultXactReadOnly)
		proc_exit(0);
}

void
ngx_pgq_mover_main(Datum arg)
{
	MemoryContext context;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	mover_enter(DatumGetInt32(arg));
	NGX_PGQ_FAULT("mover-entered");
	mover_connect_to_database();
	StartTransactionCommand();
	ngx_pgq_mover_batch_refuse_superuser(me);
	CommitTransactionCommand();
	NGX_PGQ_FAULT("mover-connected");

	context = AllocSetContextCreate(TopMemoryContext, "ngx_pgq mover",
									ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	batch_limit = ngx_pgq_batch_size;
	backoff_ms = BACKOFF_MIN_MS;
	mover_set_state(NGX_PGQ_MOVING);

	for (;;)
	{
		mover_answer_signals();
		MemoryContextReset(context);
		if (ConfigReloadPending)
			mover_reload();
		if (pg_atomic_read_u32(&database->paused))
		{
			pgstat_report_stat(false);
			mover_nap(NGX_PGQ_PAUSED, PAUSED_MS);
			continue;
		}
		if (my_number == 1 && !reported_missing)
			mover_keep_house(context);
		if (!mover_work_to_do() || mover_cycle(context) == 0)
		{
			mover_announce(context);
			mover_rest();
		}
		else
			pgstat_report_stat(false);
	}
}
