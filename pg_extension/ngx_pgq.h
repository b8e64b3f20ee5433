/* SPDX-License-Identifier: PostgreSQL */
/*
 * ngx_pgq.h
 *	  The words and the shared structs of ngx_pgq, and what each file offers.
 *
 *	  enqueue ---> queue leaf ---> claim ---> post ---> posts
 *	     |  (verdict, ledger)        ^  (move: one batch, one transaction)
 *	     '---> wake, at commit ------'  (mover: the rhythm; launcher: who runs)
 *
 * message		what a client sends
 * batch		messages that travel and commit together
 * queue		the table of messages not yet moved; slot: one of its leaves
 * span			the blocks of a slot that may hold messages nobody has claimed
 * mover		the background worker that turns messages into posts
 * post			a row of public.posts
 * dead letter	a message that posts refuses
 * ledger		the table of batches already taken
 */
#ifndef NGX_PGQ_H
#define NGX_PGQ_H

#include "datatype/timestamp.h"
#include "nodes/execnodes.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "storage/block.h"
#include "storage/itemptr.h"
#include "storage/lwlock.h"
#include "utils/elog.h"
#include "utils/relcache.h"
#include "utils/uuid.h"

#define NGX_PGQ_SCHEMA		"ngx_pgq"
#define NGX_PGQ_CHANNEL		"ngx_pgq_posts"

#define NGX_PGQ_DATABASES	16	/* databases with movers */
#define NGX_PGQ_MOVERS		16	/* movers of one database */
#define NGX_PGQ_SLOTS		4	/* leaves of the queue */
#define NGX_PGQ_LEDGER_SLOTS 3	/* leaves of the ledger */
#define NGX_PGQ_ERROR_LEN	256 /* an error kept for the status view */

typedef enum NgxPgqMoverState
{
	NGX_PGQ_STOPPED,			/* no process */
	NGX_PGQ_STARTING,			/* connecting to its database */
	NGX_PGQ_MOVING,				/* working, or woken and about to */
	NGX_PGQ_IDLE,				/* asleep; a commit wakes it */
	NGX_PGQ_BACKING_OFF,		/* asleep after an error */
	NGX_PGQ_MISSING				/* asleep: extension or tables are not there */
} NgxPgqMoverState;

/* Written by the mover itself, except state: a waker turns IDLE to MOVING. */
typedef struct NgxPgqMover
{
	pg_atomic_uint32 pid;		/* atomic; 0: no process */
	pg_atomic_uint32 proc;		/* atomic; proc number, read while IDLE */
	pg_atomic_uint32 state;		/* atomic; NgxPgqMoverState */
	pg_atomic_uint64 batches;	/* atomic; since server start, as below */
	pg_atomic_uint64 messages;
	pg_atomic_uint64 dead_letters;
	pg_atomic_uint64 errors;
	pg_atomic_uint64 moved_at;	/* atomic; TimestampTz, 0: never */
	pg_atomic_uint64 started_at;	/* atomic; TimestampTz, 0: never */
	char		last_error[NGX_PGQ_ERROR_LEN];	/* shared->lock */
} NgxPgqMover;

typedef struct NgxPgqDatabase
{
	pg_atomic_uint32 oid;		/* atomic; 0: no such database; by launcher */
	char		name[NAMEDATALEN];	/* shared->lock; "": entry free; by launcher */
	pg_atomic_uint32 slot;		/* atomic; the slot new messages go to */
	pg_atomic_uint32 wake;		/* atomic; 1: committed since last look */
	pg_atomic_uint32 blind;		/* atomic; 1: committed to unknown blocks */
	pg_atomic_uint64 swept_at;	/* atomic; ngx_pgq_clock() of the last sweep */
	pg_atomic_uint64 sweep_after;	/* atomic; ngx_pgq_clock(), none before it */
	pg_atomic_uint64 span[NGX_PGQ_SLOTS];	/* atomic; see shared.c */
	NgxPgqMover mover[NGX_PGQ_MOVERS];	/* see there */
} NgxPgqDatabase;

typedef struct NgxPgqShared
{
	LWLock	   *lock;			/* constant; guards names and error texts */
	NgxPgqDatabase database[NGX_PGQ_DATABASES]; /* see there */
} NgxPgqShared;

/* A range of blocks; empty when low > high. */
typedef struct NgxPgqSpan
{
	BlockNumber low;
	BlockNumber high;
} NgxPgqSpan;

/* Microseconds since some moment: a clock that nobody sets back. */
static inline int64
ngx_pgq_clock(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return INSTR_TIME_GET_MICROSEC(now);
}

/* The relations of one database, looked up by name in each transaction. */
typedef struct NgxPgqTables
{
	Oid			queue[NGX_PGQ_SLOTS];
	Oid			posts;
	const char *missing;		/* what is not there; NULL: all are */
} NgxPgqTables;

/* One message in a mover's hands: locked, not yet moved. */
typedef struct NgxPgqMessage
{
	ItemPointerData tid;
	Datum		at;
	Datum		message_id;
	Datum		data;
} NgxPgqMessage;

typedef struct NgxPgqClaim
{
	int			slot;
	int			count;
	NgxPgqMessage *messages;	/* as they came in; lives as long as SPI does */
} NgxPgqClaim;

/* Rows on their way into one plain table, see bulk.c. */
#define NGX_PGQ_BULK_ROWS		64
#define NGX_PGQ_BULK_COLUMNS	4

typedef struct NgxPgqColumn
{
	const char *name;
	Oid			type;
} NgxPgqColumn;

typedef struct NgxPgqBulk
{
	Relation	rel;
	AttrNumber	places[NGX_PGQ_BULK_COLUMNS];	/* of our columns, from 0 */
	EState	   *estate;
	MemoryContext scratch;		/* emptied with each load of rows */
	ResultRelInfo *target;
	TupleTableSlot *rows[NGX_PGQ_BULK_ROWS];
	int			used;
	bool		fits;			/* partition bound was checked */
	NgxPgqSpan	span;			/* blocks written to */
} NgxPgqBulk;

/* ngx_pgq.c: settings */
extern char *ngx_pgq_databases;
extern char *ngx_pgq_role;
extern int	ngx_pgq_movers;
extern int	ngx_pgq_batch_size;
extern int	ngx_pgq_idle_interval;
extern List *ngx_pgq_database_names(char *raw);

/* shared.c */
extern NgxPgqShared *ngx_pgq_shared;
extern void ngx_pgq_shared_request(void);
extern void ngx_pgq_shared_startup(void);
extern void ngx_pgq_database_assign(NgxPgqDatabase *database,
									const char *name);
extern NgxPgqDatabase *ngx_pgq_database_of_backend(void);
extern NgxPgqSpan ngx_pgq_span_take(NgxPgqDatabase *database, int slot);
extern void ngx_pgq_span_give(NgxPgqDatabase *database, int slot,
							  NgxPgqSpan span);
extern bool ngx_pgq_span_any(NgxPgqDatabase *database);
extern NgxPgqSpan ngx_pgq_span_union(NgxPgqSpan a, NgxPgqSpan b);

/* launcher.c, mover.c: entry points of the background workers */
extern PGDLLEXPORT void ngx_pgq_launcher_main(Datum arg);
extern PGDLLEXPORT void ngx_pgq_mover_main(Datum arg);
extern void ngx_pgq_launcher_register(void);

/* move.c */
extern int	ngx_pgq_move_batch(NgxPgqDatabase *database, NgxPgqMover *mover,
							   int limit, const char **missing);

/* claim.c */
extern void ngx_pgq_claim_take(NgxPgqDatabase *database, int limit,
							   NgxPgqClaim *claim);
extern void ngx_pgq_claim_delete(NgxPgqClaim *claim, Relation leaf);
extern void ngx_pgq_claim_keep(void);
extern int	ngx_pgq_claim_give_back(NgxPgqDatabase *database);
extern long ngx_pgq_sweep_wait(NgxPgqDatabase *database);
extern void ngx_pgq_sweep_start(NgxPgqDatabase *database,
								NgxPgqTables *tables);

/* post.c */
extern int64 ngx_pgq_post_write(NgxPgqTables *tables, NgxPgqClaim *claim);
extern void ngx_pgq_dead_letter_write(NgxPgqClaim *claim, ErrorData *error);
extern bool ngx_pgq_error_is_poison(int sqlerrcode);

/* bulk.c */
extern bool ngx_pgq_is_plain(Relation rel);
extern bool ngx_pgq_bulk_begin(NgxPgqBulk *bulk, Relation rel,
							   const NgxPgqColumn *columns);
extern void ngx_pgq_bulk_add(NgxPgqBulk *bulk, const Datum *values);
extern void ngx_pgq_bulk_end(NgxPgqBulk *bulk);

/* verdict.c */
extern bool ngx_pgq_verdict(Datum message, const char **sqlstate,
							char **problem);

/* ledger.c */
extern bool ngx_pgq_ledger_enter(const pg_uuid_t *batch_id);
extern bool ngx_pgq_ledger_due(void);
extern void ngx_pgq_ledger_tidy(void);
extern void ngx_pgq_ledger_keep(void);

/* wake.c */
extern int	ngx_pgq_slot_current(void);
extern void ngx_pgq_wake_at_commit(int slot, NgxPgqSpan span);
extern void ngx_pgq_wake_at_commit_anywhere(void);
extern void ngx_pgq_wake(NgxPgqDatabase *database, bool another);

#endif							/* NGX_PGQ_H */
