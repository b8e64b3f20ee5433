/* SPDX-License-Identifier: PostgreSQL */
/*
 * mover_retention.c
 *	  Removing old posts, if the settings say so: by count, by age, by either.
 *
 * Called by the first mover of a database, between batches, a step at a time:
 * wait() says when the next one is due, step() does it in a transaction of its
 * own, failed() hears why one did not commit.
 *
 * A round is: look again at the posts that were passed over; count down from
 * the newest post to the oldest that stays; walk up from where the last round
 * ended, and remove.  Everything is plain SQL, as posts are people's own: they
 * may be partitioned, have triggers, and be referred to.
 *
 * - A step looks at a bounded number of posts, and is followed by a pause that
 *	 is a multiple of what it took.  So retention gets at most a fifth of the
 *	 mover's time, and much less while messages wait behind full batches.
 * - The cursor is kept from round to round: what was removed, and cannot be
 *	 vacuumed yet, is not walked over again.
 * - The walk starts anew every ten minutes, as rows may have been copied in
 *	 below the cursor, and when the newest id is smaller than it was, as after
 *	 TRUNCATE ... RESTART IDENTITY.
 * - A post that somebody has locked is passed over and looked at again; so is
 *	 one amid older ones that is too young itself.  One that somebody's trigger
 *	 or foreign key refuses to let go is found by halving, passed over, and
 *	 looked at again when the walk starts anew.
 * - Nobody is waited for longer than LOCK_TIMEOUT, whatever is locked.
 * - Counting is exact: a post is removed for being one too many only after
 *	 keep_posts newer ones were seen, in the last count.
 * - A commit of ours is not flushed (see mover.c): what a crash brings back goes
 *	 again.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "bulk_insert.h"
#include "ngx_pgq.h"

#define STEP_REMOVE		1000	/* posts looked at in a step, to remove them */
#define STEP_COUNT		5000	/* and to count them */
#define SHARE			4		/* pause after a step, in times of its own */
#define SHARE_BUSY		20		/* while messages wait behind full batches */
#define SHARE_COUNT		20		/* from round to round, in times of counting */
#define ROUND_US		INT64CONST(1000000)
#define QUIET_US		INT64CONST(60000000)	/* a round at least so often */
#define AGAIN_US		INT64CONST(2000000)	/* to those passed over */
#define ANEW_US			INT64CONST(600000000)	/* to start the walk anew */
#define FAILED_MIN_US	INT64CONST(1000000)
#define FAILED_MAX_US	INT64CONST(60000000)
#define LOCK_TIMEOUT	"100ms"
#define PASSED			1000	/* posts passed over that are remembered */

typedef enum Phase
{
	RESTING,					/* between rounds */
	AGAIN,						/* looking at those passed over */
	COUNTING,
	WALKING
} Phase;

typedef struct Post
{
	int64		id;
	TimestampTz at;
} Post;

typedef struct Posts
{
	int			count;
	Post	   *post;			/* by id */
} Posts;

/* All times are those of ngx_pgq_clock(). */
typedef struct Progress
{
	Phase		phase;
	int64		newest;			/* the largest id that the round has seen */
	int64		cursor;			/* posts up to this id were dealt with */
	int64		surplus;		/* posts up to this id are too many */
	bool		counting;		/* in this round */
	int64		counted_to;		/* down to this id */
	int			counted;
	int64		count_cost;		/* of the last count */
	int64		count_after;	/* not before, if nothing was posted */
	int			limit;			/* posts in the next step of the walk */
	uint64		posted;			/* when the round began */
	int64		round_after;	/* none before this time */
	int64		quiet_until;	/* one by then, if nothing is posted */
	int64		again_after;
	int64		anew_after;		/* start the walk anew then */
	int			passed;
	int64		passed_id[PASSED];
} Progress;

static int	keep_posts = 0;		/* the settings the progress was made under */
static int	keep_posts_for = 0;
static Progress progress;
static Progress before;			/* the step, to which a failed one returns */
static int64 tried_id;			/* the last post the step tried to remove */
static int64 step_ended = 0;
static int64 step_cost = 0;
static int64 failed_until = 0;
static int64 failed_pause = FAILED_MIN_US;

/* Start the walk anew, and count before a post is one too many. */
static void
mover_retention_start_anew(void)
{
	progress.cursor = PG_INT64_MIN;
	progress.surplus = PG_INT64_MIN;
	progress.count_after = 0;
	progress.passed = 0;
	progress.anew_after = ngx_pgq_clock() + ANEW_US;
}

/* Begin at the bottom, if the settings are not what they were. */
static void
mover_retention_heed_settings(void)
{
	if (keep_posts == ngx_pgq_keep_posts &&
		keep_posts_for == ngx_pgq_keep_posts_for)
		return;
	keep_posts = ngx_pgq_keep_posts;
	keep_posts_for = ngx_pgq_keep_posts_for;
	memset(&progress, 0, sizeof(progress));
	progress.newest = PG_INT64_MIN;
	progress.limit = STEP_REMOVE;
	mover_retention_start_anew();
	failed_until = 0;
	failed_pause = FAILED_MIN_US;
}

/*
 * Milliseconds until a step is due; 0: now.  Busy: the last batch was full, so
 * messages are waiting.
 */
long
ngx_pgq_mover_retention_wait(NgxPgqDatabase *database, bool busy)
{
	int64		now = ngx_pgq_clock();
	int64		due;

	mover_retention_heed_settings();
	if (keep_posts == 0 && keep_posts_for == 0)
		return QUIET_US / 1000;

	due = Max(failed_until,
			  step_ended + step_cost * (busy ? SHARE_BUSY : SHARE));
	if (progress.phase == RESTING)
	{
		if (keep_posts > 0 &&
			ngx_pgq_shmem_database_posted(database) != progress.posted)
			due = Max(due, progress.round_after);
		else
			due = Max(due, Max(progress.round_after, progress.quiet_until));
	}
	return due <= now ? 0 : (due - now + 999) / 1000;
}

/* Posts that came in before this time are too old. */
static TimestampTz
mover_retention_oldest_kept(void)
{
	return keep_posts_for == 0 ? DT_NOBEGIN :
		GetCurrentTransactionStartTimestamp() - keep_posts_for * USECS_PER_SEC;
}

static bool
mover_retention_is_due(const Post *post)
{
	return post->id <= progress.surplus ||
		post->at < mover_retention_oldest_kept();
}

/* What SPI returned: an id in each row, and the time if there is one. */
static Posts
mover_retention_fetch_posts(void)
{
	Posts		posts = {SPI_processed, NULL};

	posts.post = palloc_array(Post, Max(posts.count, 1));
	for (int i = 0; i < posts.count; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		posts.post[i].id = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
		posts.post[i].at = 0;
		if (desc->natts > 1)
		{
			Datum		at = SPI_getbinval(row, desc, 2, &isnull);

			/* of no known age: it is not removed for that */
			posts.post[i].at = isnull ? DT_NOEND : DatumGetTimestampTz(at);
		}
	}
	return posts;
}

static Datum
mover_retention_array_of_ids(const int64 *ids, int count)
{
	Datum	   *elements = palloc_array(Datum, Max(count, 1));

	for (int i = 0; i < count; i++)
		elements[i] = Int64GetDatum(ids[i]);
	return ngx_pgq_bulk_insert_array(elements, count, INT8OID);
}

static void
mover_retention_pass_over(int64 id)
{
	if (progress.passed < PASSED)
		progress.passed_id[progress.passed++] = id;
}

static int
mover_retention_compare_posts(const void *a, const void *b)
{
	int64		left = ((const Post *) a)->id;
	int64		right = ((const Post *) b)->id;

	return left < right ? -1 : left > right;
}

/*
 * How to name a row: by its place, which is cheaper, where all posts lie in one
 * table.
 */
static const char *
mover_retention_row_name(void)
{
	Oid			relid = ngx_pgq_tables_posts();
	Relation	posts = OidIsValid(relid) ? try_table_open(relid, AccessShareLock) : NULL;
	bool		plain;

	if (posts == NULL)
		return "id";
	plain = posts->rd_rel->relkind == RELKIND_RELATION &&
		!posts->rd_rel->relhassubclass;
	table_close(posts, NoLock);
	return plain ? "ctid" : "id";
}

/*
 * Remove those of these posts that are due; the others, and those that somebody
 * has locked or keeps, are passed over.  They are all posts there are between
 * the first and the last one's id, unless there are gaps: then by id.
 */
static void
mover_retention_remove_posts(const Posts *posts, bool gaps)
{
	Oid			types[] = {INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, INT8ARRAYOID};
	Datum		values[5];
	const char *row = mover_retention_row_name();
	int64	   *ids = palloc_array(int64, Max(posts->count, 1));
	char	   *sql;
	Posts		removed;

	if (posts->count == 0)
		return;
	for (int i = 0; i < posts->count; i++)
		ids[i] = posts->post[i].id;
	tried_id = posts->post[posts->count - 1].id;
	values[0] = Int64GetDatum(posts->post[0].id);
	values[1] = Int64GetDatum(tried_id);
	values[2] = Int64GetDatum(progress.surplus);
	values[3] = TimestampTzGetDatum(mover_retention_oldest_kept());
	values[4] = mover_retention_array_of_ids(ids, gaps ? posts->count : 0);
	sql = psprintf("delete from public.posts where %s = any (array("
				   "select %s from public.posts "
				   "where id >= $1 and id <= $2 and (id <= $3 or at < $4) %s"
				   "for update skip locked)) returning id::bigint",
				   row, row, gaps ? "and id = any ($5) " : "");
	SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 0);
	removed = mover_retention_fetch_posts();
	qsort(removed.post, removed.count, sizeof(Post),
		  mover_retention_compare_posts);
	for (int i = 0; i < posts->count; i++)
	{
		if (!bsearch(&posts->post[i], removed.post, removed.count,
					 sizeof(Post), mover_retention_compare_posts))
			mover_retention_pass_over(posts->post[i].id);
	}
}

static int64
mover_retention_newest_id(void)
{
	Datum		id;
	bool		isnull;

	SPI_execute("select max(id)::bigint from public.posts", true, 0);
	id = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return isnull ? PG_INT64_MIN : DatumGetInt64(id);
}

/* Posts come in between the steps of a round, too. */
static void
mover_retention_saw(int64 id)
{
	progress.newest = Max(progress.newest, id);
}

/* The phases' steps: each moves on to the next phase when it is done. */

static void
mover_retention_start_round(NgxPgqDatabase *database)
{
	int64		now = ngx_pgq_clock();
	int64		newest = mover_retention_newest_id();

	progress.phase = AGAIN;
	if (newest < progress.newest || now >= progress.anew_after)
		mover_retention_start_anew();
	progress.newest = newest;
	if (keep_posts > 0 &&
		(ngx_pgq_shmem_database_posted(database) != progress.posted ||
		 now >= progress.count_after))
	{
		progress.counting = true;
		progress.counted_to = PG_INT64_MAX;
		progress.counted = 0;
		progress.count_cost = 0;
		progress.count_after = now + QUIET_US;
	}
	progress.posted = ngx_pgq_shmem_database_posted(database);
}

static void
mover_retention_look_again(void)
{
	Oid			types[] = {INT8ARRAYOID};
	Datum		values[] = {mover_retention_array_of_ids(progress.passed_id,
														 progress.passed)};
	Posts		posts;

	progress.phase = progress.counting ? COUNTING : WALKING;
	if (progress.passed == 0 || ngx_pgq_clock() < progress.again_after)
		return;
	SPI_execute_with_args("select id::bigint, at::timestamptz from public.posts "
						  "where id = any ($1) order by id",
						  lengthof(types), types, values, NULL, true, 0);
	posts = mover_retention_fetch_posts();
	progress.passed = 0;
	progress.again_after = ngx_pgq_clock() + AGAIN_US;
	mover_retention_remove_posts(&posts, true);
}

static void
mover_retention_count_posts(void)
{
	int			limit = Min(STEP_COUNT, keep_posts - progress.counted);
	Oid			types[] = {INT8OID, INT4OID};
	Datum		values[] = {Int64GetDatum(progress.counted_to),
	Int32GetDatum(limit)};
	int64		started = ngx_pgq_clock();
	int64		count;
	bool		isnull;

	SPI_execute_with_args("select count(*), min(id)::bigint, max(id)::bigint from (select id "
						  "from public.posts where id < $1 "
						  "order by id desc limit $2) as newest",
						  lengthof(types), types, values, NULL, true, 0);
	count = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
										SPI_tuptable->tupdesc, 1, &isnull));
	if (count > 0)
	{
		progress.counted_to = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
														SPI_tuptable->tupdesc,
														2, &isnull));
		mover_retention_saw(DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
														SPI_tuptable->tupdesc,
														3, &isnull)));
	}
	progress.counted += count;
	progress.count_cost += ngx_pgq_clock() - started;

	if (progress.counted == keep_posts || count < limit)
	{
		progress.surplus = progress.counted == keep_posts ?
			progress.counted_to - 1 : PG_INT64_MIN;
		progress.counting = false;
		progress.phase = WALKING;
	}
}

/* The next post that stays is of this time: there is no more to do till then. */
static void
mover_retention_end_round(TimestampTz next)
{
	int64		now = ngx_pgq_clock();
	int64		quiet = QUIET_US;

	if (keep_posts_for > 0)
		quiet = Min(quiet, next + keep_posts_for * USECS_PER_SEC -
					GetCurrentTransactionStartTimestamp());
	progress.phase = RESTING;
	progress.round_after = now + Max(ROUND_US, progress.count_cost * SHARE_COUNT);
	progress.quiet_until = now + Max(quiet, 0);
	if (progress.passed > 0)
		progress.quiet_until = Min(progress.quiet_until, progress.again_after);
}

static void
mover_retention_walk(void)
{
	int			limit = progress.limit;
	Oid			types[] = {INT8OID, INT8OID, INT4OID};
	Datum		values[3];
	Posts		posts;
	Posts		old;
	TimestampTz next;

	values[0] = Int64GetDatum(progress.cursor);
	values[1] = Int64GetDatum(keep_posts_for > 0 ? PG_INT64_MAX : progress.surplus);
	values[2] = Int32GetDatum(limit);
	SPI_execute_with_args("select id::bigint, at::timestamptz from public.posts "
						  "where id > $1 and id <= $2 order by id limit $3",
						  lengthof(types), types, values, NULL, true, 0);
	posts = mover_retention_fetch_posts();
	if (posts.count > 0)
		mover_retention_saw(posts.post[posts.count - 1].id);
	old = posts;
	while (old.count > 0 &&
		   !mover_retention_is_due(&posts.post[old.count - 1]))
		old.count--;
	if (old.count > 0)
	{
		progress.cursor = posts.post[old.count - 1].id;
		mover_retention_remove_posts(&old, false);
	}
	progress.limit = Min(limit * 2, STEP_REMOVE);

	next = old.count < posts.count ? posts.post[old.count].at :
		GetCurrentTransactionStartTimestamp();
	if (old.count < limit)
		mover_retention_end_round(next);
}

static void
mover_retention_set_for_step(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

/* Do what is due.  Called in a transaction, which is to be committed at once. */
void
ngx_pgq_mover_retention_step(NgxPgqDatabase *database)
{
	int64		started = ngx_pgq_clock();

	pgstat_report_activity(STATE_RUNNING, "removing old posts");
	XactIsoLevel = XACT_READ_COMMITTED; /* others' locks are no errors */
	mover_retention_set_for_step("lock_timeout", LOCK_TIMEOUT);
	/* statistics may be old, */
	mover_retention_set_for_step("enable_seqscan", "off");
	/* and this makes plans look expensive */
	mover_retention_set_for_step("jit", "off");
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();

	before = progress;
	tried_id = 0;
	if (progress.phase == RESTING)
		mover_retention_start_round(database);
	if (progress.phase == AGAIN)
		mover_retention_look_again();
	else if (progress.phase == COUNTING)
		mover_retention_count_posts();
	else
		mover_retention_walk();

	if (tried_id != 0)
		SPI_execute("set constraints all immediate", false, 0);
	SPI_finish();
	PopActiveSnapshot();
	step_ended = ngx_pgq_clock();
	step_cost = step_ended - started;
}

/* The step's transaction has committed. */
void
ngx_pgq_mover_retention_done(void)
{
	failed_pause = FAILED_MIN_US;
}

/*
 * The step's transaction has not: nothing of it has happened.  If a post is to
 * blame it is looked for, and left alone once found.
 */
void
ngx_pgq_mover_retention_failed(int sqlerrcode)
{
	int64		now = ngx_pgq_clock();
	bool		again = before.phase == RESTING || before.phase == AGAIN;

	progress = before;
	if (tried_id == 0 || !ngx_pgq_sqlstate_is_about_data(sqlerrcode))
	{
		failed_until = now + failed_pause;
		failed_pause = Min(failed_pause * 2, FAILED_MAX_US);
		return;
	}
	step_ended = now;
	if (!again && progress.limit > 1)
	{
		progress.limit /= 2;
		return;
	}
	if (again)
		progress.passed = 0;
	else
		progress.cursor = tried_id;
}
