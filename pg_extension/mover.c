/* SPDX-License-Identifier: PostgreSQL */
/*
 * mover.c
 *	  The main loop of a mover process: move a batch, do housekeeping, sleep.
 *
 * A dynamic background worker that the launcher starts.  Owns its entry in
 * shared memory.
 *
 * - A mover sleeps on its latch, without a transaction, if there is nothing to
 *	 do.
 * - An error ends a batch, not the process.  The back-off is 100 ms at first
 *	 and 10 s at most.  An error that is repeated halves the next batch; one
 *	 that is certainly about data halves it at once, without a back-off.  When
 *	 a batch is down to one message, mover_trial.c finds the bad message.
 * - SIGTERM makes it exit wherever it waits, SIGHUP makes it reload the
 *	 settings, SIGINT cancels the current batch.
 * - No part of a message is logged.  If the text of an error may quote a
 *	 value, only the SQLSTATE and the name of the constraint are logged, see
 *	 ngx_pgq_sqlstate_error_text().
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
#define BACKOFF_HALVING_MS	400	/* maximum back-off while batches are halved */
#define FAILURES		3		/* failures of a batch before it is halved */
#define STATISTICS_MS	1000	/* minimum time between reports */
#define MISSING_MS		2000	/* time between checks for a missing table */
#define PAUSED_MS		60000	/* sleep while paused; resume() ends it */
#define PACE_US			1000	/* pause after a batch that was not full */
#define PACE_MESSAGE_US	20		/* added for each message of that batch */
#define PACE_MAX_US		5000	/* maximum of this pause */
#define WAIT_EVENT		"NgxPgqMoverMain"
#define LOG_PAUSE_US	10000000	/* time between log lines */

static NgxPgqDatabase *database;
static NgxPgqMover *me;
static int	my_number;			/* of this mover in its database, from 1 */
static char my_role[NAMEDATALEN];	/* ngx_pgq.role at connect time */

static uint32 wait_event = 0;
static int	batch_limit;		/* maximum messages of the next batch */
static int	last_moved;			/* number of messages of the last batch */
static bool last_was_full;		/* the last batch reached its limit */
static int	backoff_ms;			/* back-off after the next error */
static int	failures = 0;		/* failures since a batch was moved */
static const char *reported_missing = NULL;
static int64 log_after = 0;		/* ngx_pgq_clock() of the next log line */
static int	not_logged = 0;		/* errors since the last one that was logged */

static void
mover_set_state(NgxPgqMoverState state)
{
	pg_atomic_exchange_u32(&me->state, state);
}

/* Exit callback: gives the claim back. */
static void
mover_exit(int code, Datum arg)
{
	ngx_pgq_mover_claim_give_back(database);
	ngx_pgq_mover_sweep_failed(database, true);
	if (code != 0 && !ProcDiePending &&
		pg_atomic_read_u32(&me->state) == NGX_PGQ_STARTING)
	{
		/* an error that this process reported itself says more */
		if (pg_atomic_read_u64(&me->error_at) <
			pg_atomic_read_u64(&me->started_at))
			ngx_pgq_shmem_mover_error(me,
									  "could not connect to the database as ngx_pgq.role, see the server log");
		mover_set_state(NGX_PGQ_FAILED);
	}
	else
		mover_set_state(NGX_PGQ_STOPPED);
	pg_atomic_write_u32(&me->pid, 0);
	if (ngx_pgq_shmem_span_any(database) ||
		pg_atomic_read_u32(&database->wake))
		ngx_pgq_wake(database, true);
}

static void
mover_attach(int index)
{
	database = &ngx_pgq_shmem->database[index / NGX_PGQ_MOVERS];
	my_number = index % NGX_PGQ_MOVERS + 1;
	me = &database->mover[my_number - 1];

	before_shmem_exit(mover_exit, (Datum) 0);
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
	/* for users' triggers on posts; our own SQL has schema names */
	SetConfigOption("search_path", "pg_catalog, public", PGC_USERSET,
					PGC_S_OVERRIDE);
}

/* Keep an error for the status, and log it unless one was logged recently. */
static void
mover_report_error(const char *text)
{
	int64		now = ngx_pgq_clock();

	pg_atomic_fetch_add_u64(&me->errors, 1);
	ngx_pgq_shmem_mover_error(me, text);
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

/* Handle an error of a batch; true if there is no back-off. */
static bool
mover_handle_error(ErrorData *error, int count)
{
	bool		data = batch_limit > 1 &&
	ngx_pgq_sqlstate_is_about_data(error->sqlerrcode);
	const char *error_text = count > 0 ? ngx_pgq_sqlstate_error_text(error) :
	error->message;
	char	   *text;

	failures++;
	text = psprintf("%s, %s", error_text ? error_text : "posts refuses a message",
					ngx_pgq_sqlstate_describe(error));
	if (!data)
		text = psprintf("%s; retry in %d ms", text, backoff_ms);
	mover_report_error(text);

	if (batch_limit > 1 && (data || failures >= FAILURES))
	{
		batch_limit = Max(Min(batch_limit, Max(count, 2)) / 2, 1);
		backoff_ms = Min(backoff_ms, BACKOFF_HALVING_MS);
	}
	return data;
}

/* Log once what is missing, and once that it exists again. */
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
				(errmsg("%s: all tables exist now",
						MyBgworkerEntry->bgw_name)));
	reported_missing = missing;
}

/*
 * Handle signals between batches.  A cancel is ignored, as it would end the
 * process; SIGTERM exits without an error.
 */
static void
mover_handle_signals(void)
{
	if (ProcDiePending)
		proc_exit(0);
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
}

static void
mover_sleep(NgxPgqMoverState state, long ms)
{
	pgstat_report_activity(STATE_IDLE, NULL);

	mover_set_state(state);
	if (state != NGX_PGQ_IDLE || !pg_atomic_read_u32(&database->wake))
		ngx_pgq_wake_wait(ms, &wait_event, WAIT_EVENT);
	else
		ResetLatch(MyLatch);
	mover_set_state(NGX_PGQ_MOVING);
}

/*
 * Sleep for the back-off, even if the latch is set.  A reload ends it, as the
 * settings may have caused the error.
 */
static void
mover_back_off(void)
{
	int64		until = ngx_pgq_clock() + backoff_ms * INT64CONST(1000);
	int64		now;

	while (!ConfigReloadPending && (now = ngx_pgq_clock()) < until)
	{
		mover_sleep(NGX_PGQ_BACKING_OFF, (until - now + 999) / 1000);
		mover_handle_signals();
	}
	backoff_ms = ConfigReloadPending ? BACKOFF_MIN_MS :
		Min(backoff_ms * 2, BACKOFF_MAX_MS);
}

/*
 * Under load, wait for more messages before a batch, as each batch costs a
 * flush of WAL.  There is no wait if the mover was idle or the last batch was
 * full.
 */
static void
mover_pace(void)
{
	static int64 next = 0;
	int64		wait = next - ngx_pgq_clock();

	if (wait > 0 && !last_was_full)
	{
		ngx_pgq_wake_wait((wait + 999) / 1000, &wait_event, WAIT_EVENT);
		mover_handle_signals();
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
 * Run a housekeeping task in its own transaction.  Returns 0 or the code of an
 * error; a task that failed is repeated when it is due again.
 *
 * - The commit does not wait for a standby, as the transaction may hold locks
 *	 that block other sessions.  It need not be flushed: what a crash undoes is
 *	 done again.
 * - Settings that triggers change are reset.
 */
static int
mover_run_task(MemoryContext context, const char *activity,
			   void (*task) (NgxPgqDatabase *database), void (*committed) (void))
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
		task(database);
		AtEOXact_GUC(false, settings);
		CommitTransactionCommand();
		committed();
	}
	PG_CATCH();
	{
		ErrorData  *error = mover_catch_error(context);
		const char *error_text = ngx_pgq_sqlstate_error_text(error);
		char	   *text;

		sqlerrcode = error->sqlerrcode;
		if (error_text == NULL)
			error_text = task == ngx_pgq_mover_retention_step ?
				"a post cannot be deleted" : psprintf("failed while %s", activity);
		text = psprintf("housekeeping: %s, SQLSTATE %s", error_text,
						unpack_sql_state(sqlerrcode));
		mover_report_error(text);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return sqlerrcode;
}

/* Notify readers of new posts. */
static void
mover_announce(MemoryContext context)
{
	if (ngx_pgq_mover_batch_announce_due())
		(void) mover_run_task(context, "notifying readers of new posts",
							  ngx_pgq_mover_batch_announce,
							  ngx_pgq_mover_batch_announce_committed);
}

/* Move one batch.  Returns the number of messages; -1 after an error. */
static int
mover_cycle(MemoryContext context)
{
	const char *missing = NULL;
	volatile int moved = 0;
	volatile int failed = 0;
	volatile bool trial = batch_limit == 1 && failures > 0;
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

/* The tasks of the first mover of a database. */
static void
mover_housekeeping(MemoryContext context)
{
	if (ngx_pgq_batch_table_due())
		(void) mover_run_task(context, "truncating old batches",
							  ngx_pgq_batch_table_tidy,
							  ngx_pgq_batch_table_committed);
	if (ngx_pgq_key_leaf_due())
		(void) mover_run_task(context, "truncating old keys",
							  ngx_pgq_key_leaf_tidy, ngx_pgq_key_leaf_committed);
	if (ngx_pgq_slot_rotate_due(database))
		(void) mover_run_task(context, "rotating slots",
							  ngx_pgq_slot_rotate,
							  ngx_pgq_slot_rotate_committed);
	if (ngx_pgq_mover_retention_wait(database, last_was_full) == 0)
	{
		int			sqlerrcode = mover_run_task(context, "deleting old posts",
												ngx_pgq_mover_retention_step,
												ngx_pgq_mover_retention_committed);

		if (sqlerrcode != 0)
			ngx_pgq_mover_retention_failed(sqlerrcode);
	}
}

/*
 * The server accepts statistics once a second, by the time of the last
 * transaction, so they must be forced before a long sleep.  Returns more than
 * 0 if some are still to be reported.
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

/* Sleep until a commit, or until a sweep or a task is due. */
static void
mover_sleep_idle(void)
{
	long		ms = ngx_pgq_mover_sweep_wait(database);

	if (my_number == 1)
		ms = Min(ms, ngx_pgq_mover_retention_wait(database, false));
	ms = Max(ms, 1);
	if (mover_report_statistics() > 0)
		ms = Min(ms, STATISTICS_MS);
	if (reported_missing)
	{
		mover_sleep(NGX_PGQ_MISSING, MISSING_MS);
		return;
	}
	for (int i = 0; i < NGX_PGQ_SLOTS && !pg_atomic_read_u32(&database->sweep_wanted); i++)
		ngx_pgq_shmem_slot_empty(&database->slots[i]);
	mover_sleep(NGX_PGQ_IDLE, ms);
}

static bool
mover_work_to_do(void)
{
	bool		woken = pg_atomic_exchange_u32(&database->wake, 0) != 0;

	return woken || reported_missing || ngx_pgq_shmem_span_any(database) ||
		ngx_pgq_mover_sweep_wait(database) == 0;
}

/*
 * A process cannot change its role, or reload the settings of its role and its
 * database.  So if the role has changed, or the process is read-only, it
 * exits, and the launcher starts it again.
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
				(errmsg("%s: restarting because ngx_pgq.role has changed",
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

	mover_attach(DatumGetInt32(arg));
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
		mover_handle_signals();
		MemoryContextReset(context);
		if (ConfigReloadPending)
			mover_reload();
		if (pg_atomic_read_u32(&database->paused))
		{
			pgstat_report_stat(false);
			mover_sleep(NGX_PGQ_PAUSED, PAUSED_MS);
			continue;
		}
		if (my_number == 1 && !reported_missing)
			mover_housekeeping(context);
		if (!mover_work_to_do() || mover_cycle(context) == 0)
		{
			mover_announce(context);
			mover_sleep_idle();
		}
		else
			pgstat_report_stat(false);
	}
}
