/* SPDX-License-Identifier: PostgreSQL */
/*
 * mover_trial.c
 *	  Trying messages one by one, to distinguish a message that posts refuses
 *	  from a server or a table that refuses all messages.
 *
 * A trial is due when a batch that keeps failing has been halved down to one
 * message.  Each message of the trial is moved in a subtransaction, including
 * deferred constraints; all are in the transaction of the batch.
 *
 * Each class of SQLSTATEs has errors of both kinds.  So the messages are
 * compared:
 *
 * - If a message fails and another one passes, in the trial or in another
 *	 mover since the trials began, the failed one becomes a dead letter.  If
 *	 its error is not certainly about data, only after ROUNDS trials.
 * - If all fail with errors that are certainly about data, they become dead
 *	 letters too, but at most REFUSED messages since one passed, and then one
 *	 every REFUSED_US: a table that refuses all messages must not turn the
 *	 queue into dead letters, and many bad messages in a row must not block it.
 * - If all fail with another error, the transaction fails and all messages
 *	 stay in the queue.  The mover backs off, and the next trial has twice as
 *	 many messages.
 * - A message whose dead letter is refused too, by a trigger or constraint on
 *	 ngx_pgq.dead_letter, is set aside in the queue.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/resowner.h"

#include "compat.h"
#include "fault.h"
#include "ngx_pgq.h"

#define ROUNDS			3
#define REFUSED			20
#define REFUSED_US		INT64CONST(10000000)
#define TRIAL_SIZE_MIN	2
#define TRIAL_SIZE_MAX	1000

static int	trial_size = TRIAL_SIZE_MIN;	/* messages of the next trial */
static int	rounds = 0;			/* number of trials since a batch was moved */
static uint64 posted_before;	/* all movers' posts at the first trial */
static int	refused = 0;		/* dead letters since a message passed */
static int64 refused_at = 0;	/* ngx_pgq_clock() of the last of them */

/* Results of this trial. */
static int	passed_now;
static int	refused_now;

/* Is this the primary key of posts?  A mover generates its values. */
static bool
mover_trial_is_key_of_posts(const char *constraint)
{
	Relation	posts = try_table_open(ngx_pgq_tables_posts(),
									   AccessShareLock);
	Oid			key = InvalidOid;

	if (posts != NULL)
	{
		key = ngx_pgq_primary_key(posts);
		table_close(posts, NoLock);
	}
	return OidIsValid(key) && strcmp(get_rel_name(key), constraint) == 0;
}

/* Is an error certainly about data?  Also considers the constraint. */
static bool
mover_trial_is_about_data(const ErrorData *error)
{
	switch (error->sqlerrcode)
	{
		case ERRCODE_CHECK_VIOLATION:	/* without a name: no partition */
			return error->constraint_name != NULL;
		case ERRCODE_UNIQUE_VIOLATION:
			return error->constraint_name == NULL ||
				!mover_trial_is_key_of_posts(error->constraint_name);
		case ERRCODE_NOT_NULL_VIOLATION:	/* our values are not null */
			return false;
		default:
			return ngx_pgq_sqlstate_is_about_data(error->sqlerrcode);
	}
}

/*
 * Write the post of a message, or its dead letter if posts has refused it.  If
 * this fails, it is rolled back and the error is returned.
 */
static ErrorData *
mover_trial_try_write(NgxPgqTables *tables, NgxPgqClaim *claim,
					  ErrorData *refusal, int64 *id)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		int64		posted = 0;

		if (refusal)
			ngx_pgq_mover_post_write_dead_letter(claim, refusal);
		else
			posted = ngx_pgq_mover_post_write(tables, claim);
		SPI_execute("set constraints all immediate", false, 0);
		ReleaseCurrentSubTransaction();
		*id = Max(*id, posted);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

/* The number of messages that all movers have posted. */
static uint64
mover_trial_posted(void)
{
	NgxPgqDatabase *database = ngx_pgq_shmem_database_of_backend();

	return database ? ngx_pgq_shmem_database_posted(database) : 0;
}

/* Does a message with this error become a dead letter? */
static bool
mover_trial_refuses(const ErrorData *error)
{
	bool		data = mover_trial_is_about_data(error);

	if (passed_now > 0 || mover_trial_posted() != posted_before)
		return data || rounds >= ROUNDS;
	return data && (refused + refused_now < REFUSED ||
					(refused_now == 0 &&
					 ngx_pgq_clock() - refused_at >= REFUSED_US));
}

int
ngx_pgq_mover_trial_size(void)
{
	return trial_size;
}

/*
 * Try each message of a claim.  Returns how many became dead letters; *id is
 * the id of the last post, 0 if there is none.  Raises if the claim fails as a
 * whole.  Needs an SPI connection and the posting lock.
 */
int
ngx_pgq_mover_trial(NgxPgqTables *tables, NgxPgqClaim *claim, int64 *id)
{
	ErrorData **errors = palloc0_array(ErrorData *, claim->count);
	ErrorData  *failed = NULL;

	*id = 0;
	passed_now = 0;
	refused_now = 0;
	if (rounds++ == 0)
		posted_before = mover_trial_posted();
	for (int i = 0; i < claim->count; i++)
	{
		NgxPgqClaim one = {claim->slot, 1, &claim->messages[i]};

		errors[i] = mover_trial_try_write(tables, &one, NULL, id);
		passed_now += errors[i] == NULL;
	}
	for (int i = 0; i < claim->count; i++)
	{
		NgxPgqClaim one = {claim->slot, 1, &claim->messages[i]};
		ErrorData  *error;

		if (errors[i] == NULL)
			continue;
		if (!mover_trial_refuses(errors[i]))
		{
			trial_size = Min(trial_size * 2, TRIAL_SIZE_MAX);
			ReThrowError(errors[i]);
		}
		error = mover_trial_try_write(tables, &one, errors[i], id);
		if (error && ngx_pgq_sqlstate_error_text(error))
			ReThrowError(error);
		if (error)
		{
			failed = error;
			ngx_pgq_mover_claim_set_aside(&one);
			continue;
		}
		refused_now++;
		NGX_PGQ_FAULT("letter-written");
	}
	if (failed)
	{
		/* the next transaction is without the messages that were set aside */
		trial_size = Min(trial_size * 2, TRIAL_SIZE_MAX);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("ngx_pgq.dead_letter refuses a message that posts refuses, and it stays in the queue (%s)",
						ngx_pgq_sqlstate_describe(failed))));
	}
	return refused_now;
}

/* The transaction of a batch, or of a trial, has committed. */
void
ngx_pgq_mover_trial_committed(bool trial)
{
	refused = trial && passed_now == 0 ? refused + refused_now : 0;
	if (trial && refused_now > 0)
		refused_at = ngx_pgq_clock();
	rounds = 0;
	trial_size = TRIAL_SIZE_MIN;
}
