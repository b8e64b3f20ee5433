/* SPDX-License-Identifier: PostgreSQL */
/*
 * mover_trial.c
 *	  Whose fault is an error?  Messages tried one by one, to tell a message that
 *	  posts refuses from a server, or a table, that refuses all.
 *
 * A trial is due when a batch that keeps failing has been halved down to one
 * message.  Each message of the trial is moved inside a subtransaction,
 * deferred constraints included, all in the one transaction of the batch.
 *
 * An SQLSTATE alone does not answer the question: each class has errors of both
 * sorts.  So the messages bear witness for each other:
 *
 * - A message that fails while another one passes, in the trial or by another
 *	 mover since the trials began, is to blame, and becomes a dead letter.  An
 *	 error that is not plainly about data has to last for ROUNDS trials first.
 * - If all fail, an error that is plainly about data makes dead letters as well,
 *	 but only of REFUSED messages since one has passed, and then of one every
 *	 REFUSED_US: a table that refuses everything must not turn the queue into
 *	 dead letters, and a long row of bad messages must not stop it.
 * - A message whose dead letter is refused, too, by what somebody has added to
 *	 ngx_pgq.dead_letter, is set aside in the queue.
 * - If all fail with another error, nobody is blamed.  The transaction fails,
 *	 all stay in the queue, the mover waits, and the next trial has twice as many
 *	 witnesses.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"

#include "fault.h"
#include "ngx_pgq.h"

#define ROUNDS			3
#define REFUSED			20
#define REFUSED_US		INT64CONST(10000000)

#define WITNESSES_MIN	2
#define WITNESSES_MAX	1000

static int	witnesses = WITNESSES_MIN;	/* messages of the next trial */
static int	rounds = 0;			/* trials since this mover has moved a batch */
static uint64 posted_before;	/* by all movers, when the first of them began */
static int	refused = 0;		/* dead letters since something has passed */
static int64 refused_at = 0;	/* ngx_pgq_clock() of the last one */

/* What this trial has come to, if its transaction commits. */
static int	passed_now;
static int	refused_now;

/* Is this the key that we have chosen ourselves? */
static bool
mover_trial_is_key_of_posts(const char *constraint)
{
	Relation	posts = try_table_open(ngx_pgq_tables_posts(),
									   AccessShareLock);
	Oid			key = InvalidOid;

	if (posts != NULL)
	{
		key = RelationGetPrimaryKeyIndex(posts);
		table_close(posts, NoLock);
	}
	return OidIsValid(key) && strcmp(get_rel_name(key), constraint) == 0;
}

/* Is an error about data?  Its constraint is known here. */
static bool
mover_trial_is_about_data(const ErrorData *error)
{
	switch (error->sqlerrcode)
	{
		case ERRCODE_CHECK_VIOLATION:	/* without a name: no such partition */
			return error->constraint_name != NULL;
		case ERRCODE_UNIQUE_VIOLATION:
			return error->constraint_name == NULL ||
				!mover_trial_is_key_of_posts(error->constraint_name);
		case ERRCODE_NOT_NULL_VIOLATION:	/* ours never are null */
			return false;
		default:
			return ngx_pgq_sqlstate_is_about_data(error->sqlerrcode);
	}
}

/*
 * Make a post of a message, or a dead letter when posts has refused it, or learn
 * why it fails: then the error is returned and nothing of the attempt is left.
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

/* How many messages have become posts, by all movers. */
static uint64
mover_trial_posted(void)
{
	NgxPgqDatabase *database = ngx_pgq_shmem_database_of_backend();

	return database ? ngx_pgq_shmem_database_posted(database) : 0;
}

/* Is the message to blame for this error? */
static bool
mover_trial_is_to_blame(const ErrorData *error)
{
	bool		data = mover_trial_is_about_data(error);

	if (passed_now > 0 || mover_trial_posted() != posted_before)
		return data || rounds >= ROUNDS;
	return data && (refused + refused_now < REFUSED ||
					(refused_now == 0 &&
					 ngx_pgq_clock() - refused_at >= REFUSED_US));
}

/*
 * Raise, as posts and the dead letters refuse some messages: the transaction
 * fails, and the next one is without them.
 */
static void
mover_trial_raise_aside(const ErrorData *error)
{
	witnesses = Min(witnesses * 2, WITNESSES_MAX);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("ngx_pgq.dead_letter refuses a message that posts refuses, and it stays in the queue (%s)",
					ngx_pgq_sqlstate_describe(error))));
}

/* How many messages a trial is of. */
int
ngx_pgq_mover_trial_size(void)
{
	return witnesses;
}

/*
 * Try each message of a claim: it becomes a post or a dead letter, or all of it
 * fails.  Returns how many became dead letters; *id is the last post's, 0 if
 * there is none.  Needs an SPI connection and the posting lock.
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
		if (!mover_trial_is_to_blame(errors[i]))
		{
			witnesses = Min(witnesses * 2, WITNESSES_MAX);
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
		mover_trial_raise_aside(failed);
	return refused_now;
}

/* The transaction of a batch has committed: a trial, or one that passed whole. */
void
ngx_pgq_mover_trial_done(bool trial)
{
	refused = trial && passed_now == 0 ? refused + refused_now : 0;
	if (trial && refused_now > 0)
		refused_at = ngx_pgq_clock();
	rounds = 0;
	witnesses = WITNESSES_MIN;
}
