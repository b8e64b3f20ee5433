/* SPDX-License-Identifier: PostgreSQL */
/*
 * ngx_pgq.h
 *	  The terms and shared structs of ngx_pgq, and the functions of each file.
 *
 *	  enqueue
 *	  '-> enqueue_insert -> queue leaf -> mover_claim -> mover_post -> posts
 *	      |  (enqueue_check,              ^  (mover_batch: one transaction;
 *	      |   batch_table, key_table)     |   mover: main loop;
 *	      '-> wake, at commit ------------'   launcher: starts movers)
 *
 * message		what a client sends
 * batch		messages that are sent and committed together
 * queue		the table of messages not yet moved; slot: one of its leaves
 * span			the blocks of a slot that may hold unclaimed messages
 * current slot	the slot for new messages; the others are sealed, that is,
 *				drained and then truncated
 * depth		messages of a slot that are not yet moved
 * mover		the background worker that turns messages into posts
 * post			a row of public.posts
 * topic		a path-like name that a message may carry; '' if it has none
 * dead letter	a message that posts refuses
 * batch table	batches that were enqueued, or fenced: never to be enqueued
 * key			an idempotency key: a client's name for a message that it may
 *				send again
 */
#ifndef NGX_PGQ_H
#define NGX_PGQ_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "storage/block.h"
#include "storage/itemptr.h"
#include "storage/lockdefs.h"
#include "storage/lwlock.h"
#include "utils/elog.h"
#include "utils/relcache.h"
#include "utils/uuid.h"

#define NGX_PGQ_SCHEMA		"ngx_pgq"
#define NGX_PGQ_CHANNEL		"ngx_pgq_posts"

#define NGX_PGQ_DATABASES	16	/* maximum number of databases with movers */
#define NGX_PGQ_MOVERS		16	/* maximum number of movers of one database */
#define NGX_PGQ_SLOTS		4	/* number of leaves of the queue */
#define NGX_PGQ_BATCH_LEAVES 3	/* number of leaves of the batch table */
/* A batch stays in the batch table for at least this time. */
#define NGX_PGQ_BATCH_KEEP_US	INT64CONST(600000000)
#define NGX_PGQ_ERROR_LEN	256 /* size of last_error, in bytes */
#define NGX_PGQ_RATE_SEC	10	/* time constant of a mover's average rate */

/* Classes of our advisory locks; those of the SQL functions are 1 and 2. */
#define NGX_PGQ_LOCK_POSTING	0x7067	/* one mover at a time takes ids */
#define NGX_PGQ_LOCK_BATCH	0x7068	/* locks the hash of a batch id */
#define NGX_PGQ_LOCK_KEY	0x7069	/* locks the digest of a key */

typedef enum NgxPgqMoverState
{
	NGX_PGQ_STOPPED,			/* no process */
	NGX_PGQ_STARTING,			/* connecting to its database */
	NGX_PGQ_FAILED,				/* no process; last_error says why */
	NGX_PGQ_MOVING,				/* working, or just woken */
	NGX_PGQ_IDLE,				/* asleep; a commit wakes it */
	NGX_PGQ_BACKING_OFF,		/* asleep after an error */
	NGX_PGQ_MISSING,			/* asleep: extension or table is missing */
	NGX_PGQ_PAUSED				/* asleep: ngx_pgq.pause() was called */
} NgxPgqMoverState;

/* Why a slot was not truncated, or is full but still the current one. */
typedef enum NgxPgqSkip
{
	NGX_PGQ_NOT_SKIPPED,
	NGX_PGQ_SKIP_UNMOVED,		/* the slot has messages that are not moved */
	NGX_PGQ_SKIP_LOCKED,		/* another session has locked the slot */
	NGX_PGQ_SKIP_SNAPSHOT,		/* an older snapshot may need its rows */
	NGX_PGQ_SKIP_NEXT			/* the slot is full, and no other is empty */
} NgxPgqSkip;

/* A queue leaf.  Any process may write it.  Counts start at server start. */
typedef struct NgxPgqSlot
{
	pg_atomic_uint64 span;		/* NgxPgqSpan as one word, see shmem.c */
	pg_atomic_uint64 enqueued;	/* messages that commits have reported */
	pg_atomic_uint64 moved;		/* messages that were claimed */
	pg_atomic_uint64 oldest_at;	/* TimestampTz of the oldest message */
	pg_atomic_uint32 blocks;	/* size with TOAST at the last check */
	pg_atomic_uint32 skip;		/* NgxPgqSkip of the last check */
	pg_atomic_uint64 sealed_at;	/* ngx_pgq_clock() when it was sealed */
	pg_atomic_uint64 rotations;	/* number of times it was truncated */
} NgxPgqSlot;

/* Written by the mover itself, except state: a waker turns IDLE to MOVING. */
typedef struct NgxPgqMover
{
	pg_atomic_uint32 pid;		/* 0: no process */
	pg_atomic_uint32 proc;		/* proc number; wakers read it while IDLE */
	pg_atomic_uint32 state;		/* NgxPgqMoverState */
	pg_atomic_uint64 batches;	/* since server start, as are the next three */
	pg_atomic_uint64 messages;
	pg_atomic_uint64 dead_letters;
	pg_atomic_uint64 errors;
	pg_atomic_uint64 rate;		/* messages per 1000 seconds */
	pg_atomic_uint64 moved_at;	/* TimestampTz when rate was set; 0: never */
	pg_atomic_uint64 started_at;	/* TimestampTz of its start; 0: never */
	pg_atomic_uint64 error_at;	/* TimestampTz of last_error; 0: none */
	char		last_error[NGX_PGQ_ERROR_LEN];	/* guarded by shmem->lock */
} NgxPgqMover;

typedef struct NgxPgqDatabase
{
	pg_atomic_uint32 oid;		/* 0: none; set by the launcher */
	char		name[NAMEDATALEN];	/* guarded by shmem->lock; "": free */
	pg_atomic_uint32 holds;		/* number of transactions that hold it */
	pg_atomic_uint32 slot;		/* the current slot */
	pg_atomic_uint32 wake;		/* 1: a commit since a mover last checked */
	pg_atomic_uint32 sweep_wanted;	/* 1: messages are in unknown blocks */
	pg_atomic_uint64 swept_at;	/* ngx_pgq_clock() of the last sweep */
	pg_atomic_uint64 sweep_after;	/* no sweep before this ngx_pgq_clock() */
	pg_atomic_uint32 paused;	/* pid that called pause(), or 0 */
	pg_atomic_uint32 counted;	/* 1: messages at server start are counted */
	pg_atomic_uint32 batch_leaf;	/* number of the leaf for new batches */
	/* ngx_pgq_clock() when batch_leaf was set; 0: never */
	pg_atomic_uint64 batch_leaf_since;
	/* ngx_pgq_clock() at which a leaf became unused, or 0 */
	pg_atomic_uint64 batch_unused_since[NGX_PGQ_BATCH_LEAVES];
	/* service time less ngx_pgq_clock(); 0: not yet computed */
	pg_atomic_uint64 service_offset;
	NgxPgqSlot	slots[NGX_PGQ_SLOTS];	/* see NgxPgqSlot */
	NgxPgqMover mover[NGX_PGQ_MOVERS];	/* see NgxPgqMover */
} NgxPgqDatabase;

typedef struct NgxPgqShared
{
	LWLock	   *lock;			/* constant; it guards names and error texts */
	pg_atomic_uint32 launcher;	/* its proc number + 1; 0: none */
	pg_atomic_uint32 databases_changed; /* 1: the launcher must check them */
	NgxPgqDatabase database[NGX_PGQ_DATABASES]; /* see NgxPgqDatabase */
} NgxPgqShared;

/* A range of blocks; empty when low > high. */
typedef struct NgxPgqSpan
{
	BlockNumber low;
	BlockNumber high;
} NgxPgqSpan;

/* Microseconds of a monotonic clock. */
static inline int64
ngx_pgq_clock(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return INSTR_TIME_GET_MICROSEC(now);
}

/* The tables of one database. */
typedef struct NgxPgqTables
{
	Oid			queue[NGX_PGQ_SLOTS];
	Oid			posts;
	const char *missing;		/* name of a missing table; NULL: none */
} NgxPgqTables;

/* A claimed message: deleted from the queue, not yet a post. */
typedef struct NgxPgqMessage
{
	ItemPointerData tid;
	Datum		at;
	Datum		message_id;
	Datum		data;
	Datum		topic;
} NgxPgqMessage;

typedef struct NgxPgqClaim
{
	int			slot;
	int			count;
	NgxPgqMessage *messages;	/* sorted by time; freed at transaction end */
} NgxPgqClaim;

/* A column that a table must have. */
typedef struct NgxPgqColumn
{
	const char *name;
	Oid			type;
} NgxPgqColumn;

/* What the batch table had for a batch. */
typedef enum NgxPgqEntry
{
	NGX_PGQ_ENTRY_NEW,			/* no row */
	NGX_PGQ_ENTRY_RETRY,		/* no row; an attempt it waited for failed */
	NGX_PGQ_ENTRY_ENQUEUED,
	NGX_PGQ_ENTRY_FENCED
} NgxPgqEntry;

/* settings.c */
extern char *ngx_pgq_databases;
extern char *ngx_pgq_role;
extern int	ngx_pgq_movers;
extern int	ngx_pgq_batch_size;
extern int	ngx_pgq_idle_interval;
extern int	ngx_pgq_rotate_size;
extern int	ngx_pgq_snapshot_grace;
extern int	ngx_pgq_keep_posts;
extern int	ngx_pgq_keep_posts_for;
extern int	ngx_pgq_keep_unacknowledged_for;
extern int	ngx_pgq_keep_keys;
extern int	ngx_pgq_max_keys;
extern bool ngx_pgq_synchronous;
extern int	ngx_pgq_min_free_space;
extern void ngx_pgq_settings_define(void);
extern List *ngx_pgq_settings_database_names(char *raw);

/* shmem.c */
extern NgxPgqShared *ngx_pgq_shmem;
extern void ngx_pgq_shmem_install(void);
extern void ngx_pgq_shmem_database_assign(NgxPgqDatabase *database,
										  const char *name);
extern NgxPgqDatabase *ngx_pgq_shmem_database_of_backend(void);
extern NgxPgqSpan ngx_pgq_shmem_span_take(NgxPgqDatabase *database, int slot);
extern void ngx_pgq_shmem_span_give(NgxPgqDatabase *database, int slot,
									NgxPgqSpan span);
extern bool ngx_pgq_shmem_span_any(NgxPgqDatabase *database);
extern uint64 ngx_pgq_shmem_database_posted(NgxPgqDatabase *database);
extern NgxPgqSpan ngx_pgq_shmem_span_union(NgxPgqSpan a, NgxPgqSpan b);
extern void ngx_pgq_shmem_slot_enqueued(NgxPgqSlot *slot, uint64 count);
extern void ngx_pgq_shmem_slot_empty(NgxPgqSlot *slot);
extern uint64 ngx_pgq_shmem_slot_depth(NgxPgqSlot *slot);
extern void ngx_pgq_shmem_mover_error(NgxPgqMover *mover, const char *text);
extern double ngx_pgq_shmem_rate(NgxPgqMover *mover, TimestampTz now);

/* sqlstate.c */
extern bool ngx_pgq_sqlstate_is_about_data(int sqlerrcode);
extern bool ngx_pgq_sqlstate_error_in_function(const ErrorData *error);
extern const char *ngx_pgq_sqlstate_error_text(const ErrorData *error);
extern const char *ngx_pgq_sqlstate_describe(const ErrorData *error);

/* leaf.c */
extern Relation ngx_pgq_leaf_open_table(const char *name, LOCKMODE mode);
extern Relation ngx_pgq_leaf_open(const char *table, int number,
								  LOCKMODE mode);
extern Oid	ngx_pgq_leaf_relid(const char *table, int number);
extern AttrNumber ngx_pgq_leaf_column(Relation rel, const char *name, Oid type);
extern int64 ngx_pgq_leaf_pages(Oid relid);
extern bool ngx_pgq_leaf_has_rows(Relation leaf, uint64 *count);
extern bool ngx_pgq_leaf_lock_to_truncate(Oid relid);
extern void ngx_pgq_leaf_truncate(const char *table, int number);

/* slot.c */
extern bool ngx_pgq_slot_rotate_due(NgxPgqDatabase *database);
extern void ngx_pgq_slot_rotate(NgxPgqDatabase *database);
extern void ngx_pgq_slot_rotate_committed(void);

/* batch_table.c */
extern NgxPgqEntry ngx_pgq_batch_table_enter(const pg_uuid_t *batch_id,
											 bool fence);
extern bool ngx_pgq_batch_table_due(void);
extern void ngx_pgq_batch_table_tidy(NgxPgqDatabase *database);
extern void ngx_pgq_batch_table_committed(void);

/* service_time.c */
extern TimestampTz ngx_pgq_service_time(void);
extern void ngx_pgq_service_time_save(void);

/* synchronous.c */
extern void ngx_pgq_synchronous_expect(void);

/* disk.c */
extern void ngx_pgq_disk_expect(void);

/* wake.c */
extern int	ngx_pgq_wake_slot_current(void);
extern void ngx_pgq_wake_at_commit(int slot, NgxPgqSpan span, int count);
extern void ngx_pgq_wake_at_commit_anywhere(void);
extern void ngx_pgq_wake(NgxPgqDatabase *database, bool another);
extern void ngx_pgq_wake_all(NgxPgqDatabase *database);
extern void ngx_pgq_wake_wait(long ms, uint32 *wait_event, const char *name);

/* launcher.c, mover.c: the background workers */
extern PGDLLEXPORT void ngx_pgq_launcher_main(Datum arg);
extern PGDLLEXPORT void ngx_pgq_mover_main(Datum arg);
extern void ngx_pgq_launcher_register(void);
extern void ngx_pgq_launcher_recheck(void);

/* tables.c */
#define NGX_PGQ_MESSAGE_COLUMNS	4
extern const NgxPgqColumn ngx_pgq_tables_columns[NGX_PGQ_MESSAGE_COLUMNS];
extern bool ngx_pgq_tables_has_topic(Oid relid);
extern int	ngx_pgq_tables_count_columns(Oid relid);
extern void ngx_pgq_tables_find(NgxPgqTables *tables, LOCKMODE mode);
extern Oid	ngx_pgq_tables_posts(void);

/* mover_batch.c */
extern void ngx_pgq_mover_batch_refuse_superuser(NgxPgqMover *mover);
extern int	ngx_pgq_mover_batch_move(NgxPgqDatabase *database,
									 NgxPgqMover *mover, int limit,
									 bool trial, const char **missing);
extern bool ngx_pgq_mover_batch_announce_due(void);
extern void ngx_pgq_mover_batch_announce(NgxPgqDatabase *database);
extern void ngx_pgq_mover_batch_announce_committed(void);

/* mover_claim.c */
extern void ngx_pgq_mover_claim_take(NgxPgqDatabase *database,
									 NgxPgqTables *tables, int limit,
									 NgxPgqClaim *claim);
extern void ngx_pgq_mover_claim_set_aside(const NgxPgqClaim *claim);
extern void ngx_pgq_mover_claim_committed(void);
extern int	ngx_pgq_mover_claim_give_back(NgxPgqDatabase *database);

/* mover_sweep.c */
extern long ngx_pgq_mover_sweep_wait(NgxPgqDatabase *database);
extern void ngx_pgq_mover_sweep_start(NgxPgqDatabase *database,
									  NgxPgqTables *tables);
extern bool ngx_pgq_mover_sweep_step(void);
extern bool ngx_pgq_mover_sweep_chunk(NgxPgqDatabase *database,
									  int *chunk_slot, NgxPgqSpan *chunk);
extern void ngx_pgq_mover_sweep_account(NgxPgqDatabase *database, int64 us,
									 bool found);
extern void ngx_pgq_mover_sweep_failed(NgxPgqDatabase *database, bool exiting);

/* mover_post.c */
extern int64 ngx_pgq_mover_post_write(NgxPgqTables *tables,
									  NgxPgqClaim *claim);
extern void ngx_pgq_mover_post_write_dead_letter(NgxPgqClaim *claim,
												 ErrorData *error);

/* mover_trial.c */
extern int	ngx_pgq_mover_trial_size(void);
extern int	ngx_pgq_mover_trial(NgxPgqTables *tables, NgxPgqClaim *claim,
								int64 *id);
extern void ngx_pgq_mover_trial_committed(bool trial);

/* mover_retention.c */
extern long ngx_pgq_mover_retention_wait(NgxPgqDatabase *database, bool busy);
extern void ngx_pgq_mover_retention_step(NgxPgqDatabase *database);
extern void ngx_pgq_mover_retention_committed(void);
extern void ngx_pgq_mover_retention_failed(int sqlerrcode);

/* utility_hook.c */
extern void ngx_pgq_utility_hook_install(void);

#endif							/* NGX_PGQ_H */
