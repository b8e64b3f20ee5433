/* SPDX-License-Identifier: PostgreSQL */
/*
 * mover_retention.c
 *	  Deleting old posts by count and age, as the settings say.  Posts that
 *	  subscriptions have not acknowledged may be kept for longer.
 *
 * Done by the first mover of a database between batches, in steps.  Each has
 * its own transaction.
 *
 * A round has these phases: retry posts that were passed over; count down from
 * the newest post to the oldest one that is kept; walk up from where the last
 * round ended, and delete.  All is plain SQL, as users may partition posts,
 * add triggers and refer to it.
 *
 * - A step looks at a limited number of posts.  The pause after it is a
 *	 multiple of its time, so retention takes at most a fifth of the mover's
 *	 time, and much less while messages wait.
 * - The cursor is kept between rounds, so rows that were deleted but cannot be
 *	 vacuumed yet are not scanned again.
 * - The walk restarts from the lowest id every ten minutes, as rows may have
 *	 been inserted below the cursor, and when the newest id has become smaller,
 *	 as after TRUNCATE ... RESTART IDENTITY.
 * - A post that is locked, or too young among older ones, is passed over and
 *	 retried.  A post that a trigger or foreign key keeps is found by
 *	 bisection, passed over, and retried when the walk restarts.
 * - A step waits at most LOCK_TIMEOUT for a lock.
 * - Counting is exact: a post is deleted as surplus only if the last count has
 *	 seen keep_posts newer ones.
 * - A post that waits for an acknowledgement ends the walk: as long as it is
 *	 kept, no later post is deleted.  Consumers do not look for posts before
 *	 ngx_pgq.removed.
 * - The commit is not flushed (see mover.c): posts that a crash brings back
 *	 are deleted again.
 * - The sequence ngx_pgq.removed has the greatest id that was deleted.  It is
 *	 advanced before the commit, so that a snapshot that does not see a post
 *	 any more finds its id there.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "pgstat.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "bulk_insert.h"
#include "ngx_pgq.h"

#define STEP_REMOVE		1000	/* maximum posts of a step that deletes */
#define STEP_COUNT		5000	/* maximum posts of a step that counts */
#define PAUSE_PER_STEP	4		/* pause after a step / time of the step */
#define BUSY_PAUSE_PER_STEP	20	/* the same ratio while batches are full */
#define PAUSE_PER_COUNT		20		/* pause after a round / count_cost */
#define ROUND_US		INT64CONST(1000000) /* minimum time between rounds */
/* Maximum time between rounds. */
#define IDLE_US			INT64CONST(60000000)
/* Time between retries of posts, and of looking for acknowledgements. */
#define RETRY_US		INT64CONST(2000000)
#define RESTART_US		INT64CONST(600000000)	/* time between full walks */
#define FAILED_MIN_US	INT64CONST(1000000)
#define FAILED_MAX_US	INT64CONST(60000000)
#define LOCK_TIMEOUT	"100ms"
#define PASSED			1000	/* maximum number of posts passed over */

typedef enum Phase
{
	RESTING,					/* no round is in progress */
	RETRYING,					/* retrying posts that were passed over */
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
	Post	   *post;			/* ordered by id */
} Posts;

/* Times are ngx_pgq_clock(). */
typedef struct Progress
{
	Phase		phase;
	int64		newest;			/* largest id that this round has seen */
	int64		cursor;			/* posts up to this id are done */
	int64		surplus;		/* posts up to this id are surplus */
	bool		counting;		/* this round counts posts */
	bool		waiting;		/* a post waits for an acknowledgement */
	int64		counted_to;		/* posts from this id on are counted */
	int			counted;
	int64		count_cost;		/* time that the last count took */
	int64		count_after;	/* next count if nothing is posted */
	int			limit;			/* maximum posts in the next step */
	uint64		posted;			/* the movers' posts when the round began */
	int64		round_after;	/* no round before this time */
	int64		idle_until;		/* next round if nothing is posted */
	int64		retry_after;
	int64		restart_at;		/* time of the next full walk */
	int			passed;			/* number of posts that are passed over */
	int64		passed_id[PASSED];
} Progress;

/* The settings that progress belongs to. */
static int	keep_posts = 0;
static int	keep_posts_for = 0;
static int	keep_unacknowledged_for = 0;
static Progress progress;
static Progress before;			/* progress before the step, to undo it */
static int64 tried_id;			/* last post the step tried to delete */
static int64 removed_id;		/* last post the step has deleted; 0: none */
static int64 step_ended = 0;
static int64 step_cost = 0;
static int64 failed_until = 0;
static int64 failed_pause = FAILED_MIN_US;

/* Restart the walk from the lowest id, and count again. */
static void
mover_retention_restart_walk(void)
{
	progress.cursor = PG_INT64_MIN;
	progress.surplus = PG_INT64_MIN;
	progress.count_after = 0;
	progress.passed = 0;
	progress.restart_at = ngx_pgq_clock() + RESTART_US;
}

/* Reset the progress if the settings have changed. */
static void
mover_retention_apply_settings(void)
{
	if (keep_posts == ngx_pgq_keep_posts &&
		keep_posts_for == ngx_pgq_keep_posts_for &&
		keep_unacknowledged_for == ngx_pgq_keep_unacknowledged_for)
		return;
	keep_posts = ngx_pgq_keep_posts;
	keep_posts_for = ngx_pgq_keep_posts_for;
	keep_unacknowledged_for = ngx_pgq_keep_unacknowledged_for;
	memset(&progress, 0, sizeof(progress));
	progress.newest = PG_INT64_MIN;
	progress.limit = STEP_REMOVE;
	mover_retention_restart_walk();
	failed_until = 0;
	failed_pause = FAILED_MIN_US;
}

/* Milliseconds until a step is due.  busy: the last batch was full. */
long
ngx_pgq_mover_retention_wait(NgxPgqDatabase *database, bool busy)
{
	int64		now = ngx_pgq_clock();
	int64		due;

	mover_retention_apply_settings();
	if (keep_posts == 0 && keep_posts_for == 0)
		return IDLE_US / 1000;

	due = Max(failed_until,
			  step_ended +
			  step_cost * (busy ? BUSY_PAUSE_PER_STEP : PAUSE_PER_STEP));
	if (progress.phase == RESTING)
	{
		due = Max(due, progress.round_after);
		if (keep_posts == 0 ||
			ngx_pgq_shmem_database_posted(database) == progress.posted)
			due = Max(due, progress.idle_until);
	}
	return due <= now ? 0 : (due - now + 999) / 1000;
}

/* Posts that arrived before this time are too old. */
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

/* A value of a row that SPI has returned, a bigint or timestamptz. */
static int64
mover_retention_value(uint64 row, int column, int64 if_null)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row],
									  SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? if_null : DatumGetInt64(value);
}

/* The posts that SPI has returned: their ids and, if selected, their times. */
static Posts
mover_retention_fetch_posts(void)
{
	Posts		posts = {SPI_processed, NULL};

	posts.post = palloc0_array(Post, Max(posts.count, 1));
	for (int i = 0; i < posts.count; i++)
	{
		posts.post[i].id = mover_retention_value(i, 1, 0);
		/* a post without a time is not removed because of its age */
		if (SPI_tuptable->tupdesc->natts > 1)
			posts.post[i].at = mover_retention_value(i, 2, DT_NOEND);
	}
	return posts;
}

/*
 * Does a post wait for an acknowledgement?  Not if its time is as far in the
 * future: it could keep all later posts for any time.
 */
static bool
mover_retention_waits(const Post *post, int64 acknowledged)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	int64		keep = keep_unacknowledged_for * USECS_PER_SEC;

	return post->id > acknowledged && post->at >= now - keep &&
		post->at <= now + keep;
}

/* The posts up to the last one that is due. */
static Posts
mover_retention_until_due(Posts posts)
{
	while (posts.count > 0 &&
		   !mover_retention_is_due(&posts.post[posts.count - 1]))
		posts.count--;
	return posts;
}

/*
 * The posts up to the last one that is due, before the first one that waits.
 * The positions of subscriptions are read only if some post is due.
 */
static Posts
mover_retention_find_due(Posts posts)
{
	int64		acknowledged;
	int			count = 0;

	progress.waiting = false;
	posts = mover_retention_until_due(posts);
	if (posts.count == 0 || keep_unacknowledged_for == 0)
		return posts;

	SPI_execute("select ngx_pgq.acknowledged()", true, 0);
	acknowledged = mover_retention_value(0, 1, PG_INT64_MAX);
	while (count < posts.count &&
		   !mover_retention_waits(&posts.post[count], acknowledged))
		count++;
	progress.waiting = count < posts.count;
	posts.count = count;
	return mover_retention_until_due(posts);
}

static void
mover_retention_pass_over(const Post *post)
{
	if (progress.passed < PASSED)
		progress.passed_id[progress.passed++] = post->id;
}

static int
mover_retention_compare_posts(const void *a, const void *b)
{
	int64		left = ((const Post *) a)->id;
	int64		right = ((const Post *) b)->id;

	return left < right ? -1 : left > right;
}

/* What identifies a row: ctid, which is cheaper, if posts is one table. */
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
 * Delete the posts of this list that are due.  The others, and those that are
 * locked or kept, are passed over.  gaps: posts between the first and the last
 * id are missing in the list.
 */
static void
mover_retention_remove_posts(const Posts *posts, bool gaps)
{
	Oid			types[] = {INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, INT8ARRAYOID};
	Datum		values[5];
	const char *row = mover_retention_row_name();
	Datum	   *ids = palloc_array(Datum, Max(posts->count, 1));
	char	   *sql;
	Posts		removed;

	if (posts->count == 0)
		return;
	for (int i = 0; i < posts->count; i++)
		ids[i] = Int64GetDatum(posts->post[i].id);
	tried_id = posts->post[posts->count - 1].id;
	values[0] = Int64GetDatum(posts->post[0].id);
	values[1] = Int64GetDatum(tried_id);
	values[2] = Int64GetDatum(progress.surplus);
	values[3] = TimestampTzGetDatum(mover_retention_oldest_kept());
	values[4] = ngx_pgq_bulk_insert_array(ids, gaps ? posts->count : 0,
										  INT8OID);
	sql = psprintf("delete from public.posts where %s = any (array("
				   "select %s from public.posts "
				   "where id >= $1 and id <= $2 and (id <= $3 or at < $4) %s"
				   "for update skip locked)) returning id::bigint",
				   row, row, gaps ? "and id = any ($5) " : "");
	SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 0);
	removed = mover_retention_fetch_posts();
	qsort(removed.post, removed.count, sizeof(Post),
		  mover_retention_compare_posts);
	if (removed.count > 0)
		removed_id = removed.post[removed.count - 1].id;
	for (int i = 0; i < posts->count; i++)
	{
		if (!bsearch(&posts->post[i], removed.post, removed.count,
					 sizeof(Post), mover_retention_compare_posts))
			mover_retention_pass_over(&posts->post[i]);
	}
}

/* Advance ngx_pgq.removed, if it exists.  It does not go back. */
static void
mover_retention_record_removed(void)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(removed_id)};
	Oid			schema = get_namespace_oid(NGX_PGQ_SCHEMA, true);

	if (!OidIsValid(get_relname_relid("removed", schema)))
		return;
	SPI_execute_with_args("select setval('ngx_pgq.removed', $1) "
						  "from ngx_pgq.removed where last_value < $1",
						  lengthof(types), types, values, NULL, false, 0);
}

static void
mover_retention_start_round(NgxPgqDatabase *database)
{
	int64		now = ngx_pgq_clock();
	int64		newest;

	SPI_execute("select max(id)::bigint from public.posts", true, 0);
	newest = mover_retention_value(0, 1, PG_INT64_MIN);
	progress.phase = RETRYING;
	if (newest < progress.newest || now >= progress.restart_at)
		mover_retention_restart_walk();
	progress.newest = newest;
	if (keep_posts > 0 &&
		(ngx_pgq_shmem_database_posted(database) != progress.posted ||
		 now >= progress.count_after))
	{
		progress.counting = true;
		progress.counted_to = PG_INT64_MAX;
		progress.counted = 0;
		progress.count_cost = 0;
		progress.count_after = now + IDLE_US;
	}
	progress.posted = ngx_pgq_shmem_database_posted(database);
}

static void
mover_retention_retry_passed(void)
{
	Oid			types[] = {INT8ARRAYOID};
	Datum		values[1];
	Datum		ids[PASSED];
	Posts		posts;
	Posts		due;

	progress.phase = progress.counting ? COUNTING : WALKING;
	if (progress.passed == 0 || ngx_pgq_clock() < progress.retry_after)
		return;
	for (int i = 0; i < progress.passed; i++)
		ids[i] = Int64GetDatum(progress.passed_id[i]);
	values[0] = ngx_pgq_bulk_insert_array(ids, progress.passed, INT8OID);
	SPI_execute_with_args("select id::bigint, at::timestamptz from public.posts "
						  "where id = any ($1) order by id",
						  lengthof(types), types, values, NULL, true, 0);
	posts = mover_retention_fetch_posts();
	progress.passed = 0;
	progress.retry_after = ngx_pgq_clock() + RETRY_US;
	due = mover_retention_find_due(posts);
	mover_retention_remove_posts(&due, true);
	for (int i = due.count; i < posts.count; i++)
		mover_retention_pass_over(&posts.post[i]);
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

	SPI_execute_with_args("select count(*), min(id)::bigint, max(id)::bigint from (select id "
						  "from public.posts where id < $1 "
						  "order by id desc limit $2) as newest",
						  lengthof(types), types, values, NULL, true, 0);
	count = mover_retention_value(0, 1, 0);
	progress.counted_to = mover_retention_value(0, 2, progress.counted_to);
	/* posts are added between the steps of a round */
	progress.newest = Max(progress.newest,
						  mover_retention_value(0, 3, PG_INT64_MIN));
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

/* End a round.  next is the time of the oldest post that is kept. */
static void
mover_retention_end_round(TimestampTz next)
{
	int64		now = ngx_pgq_clock();
	int64		wait = progress.waiting ? RETRY_US : IDLE_US;

	if (keep_posts_for > 0 && !progress.waiting)
		wait = Min(wait, next + keep_posts_for * USECS_PER_SEC -
				   GetCurrentTransactionStartTimestamp());
	progress.phase = RESTING;
	progress.round_after = now +
		Max(ROUND_US, progress.count_cost * PAUSE_PER_COUNT);
	progress.idle_until = now + Max(wait, 0);
	if (progress.passed > 0)
		progress.idle_until = Min(progress.idle_until, progress.retry_after);
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
		progress.newest = Max(progress.newest, posts.post[posts.count - 1].id);
	old = mover_retention_find_due(posts);
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

/* Do a step.  The caller must commit the transaction at once. */
void
ngx_pgq_mover_retention_step(NgxPgqDatabase *database)
{
	int64		started = ngx_pgq_clock();

	pgstat_report_activity(STATE_RUNNING, "deleting old posts");
	XactIsoLevel = XACT_READ_COMMITTED; /* concurrent updates are no errors */
	mover_retention_set_for_step("lock_timeout", LOCK_TIMEOUT);
	/* statistics may be old; this raises costs, which would start jit */
	mover_retention_set_for_step("enable_seqscan", "off");
	mover_retention_set_for_step("jit", "off");
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();

	before = progress;
	tried_id = 0;
	removed_id = 0;
	if (progress.phase == RESTING)
		mover_retention_start_round(database);
	if (progress.phase == RETRYING)
		mover_retention_retry_passed();
	else if (progress.phase == COUNTING)
		mover_retention_count_posts();
	else
		mover_retention_walk();

	if (tried_id != 0)
		SPI_execute("set constraints all immediate", false, 0);
	if (removed_id > 0)
		mover_retention_record_removed();
	SPI_finish();
	PopActiveSnapshot();
	step_ended = ngx_pgq_clock();
	step_cost = step_ended - started;
}

void
ngx_pgq_mover_retention_committed(void)
{
	failed_pause = FAILED_MIN_US;
}

/*
 * The transaction of a step was rolled back.  If a post caused the error, it
 * is found by bisection and then passed over.
 */
void
ngx_pgq_mover_retention_failed(int sqlerrcode)
{
	int64		now = ngx_pgq_clock();
	bool		retrying = before.phase == RESTING || before.phase == RETRYING;

	progress = before;
	if (tried_id == 0 || !ngx_pgq_sqlstate_is_about_data(sqlerrcode))
	{
		failed_until = now + failed_pause;
		failed_pause = Min(failed_pause * 2, FAILED_MAX_US);
		return;
	}
	step_ended = now;
	if (!retrying && progress.limit > 1)
	{
		progress.limit /= 2;
		return;
	}
	if (retrying)
		progress.passed = 0;
	else
		progress.cursor = tried_id;
}
