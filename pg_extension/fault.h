/* SPDX-License-Identifier: PostgreSQL */
/*
 * fault.h
 *	  Points at which a test can make a process fail.
 *
 * Not part of a normal build.  With -DNGX_PGQ_FAULTS, the setting "fault" of
 * ngx_pgq holds a list of point:action[:count].  A process that reaches the
 * point does one of these:
 *
 * error		raises an error; a SQLSTATE raises an error with that code
 * fatal		exits
 * panic		makes the server restart
 * kill			sends itself SIGKILL
 * wait			waits until the setting changes or the wait is cancelled
 * force		NGX_PGQ_FAULT_FORCED() returns true
 *
 * It does so count times for this data directory, or always.  The n-th time it
 * creates the file ngx_pgq.fault.<point>.<n> there; n begins at 0.
 */
#ifndef NGX_PGQ_FAULT_H
#define NGX_PGQ_FAULT_H

#define NGX_PGQ_FAULT_SETTING	"ngx_pgq.fault"	/* in test builds only */

/* All points.  A process has just done what the name says. */
#define NGX_PGQ_FAULT_POINTS \
	/* a batch: mover_claim.c, mover_batch.c, mover_post.c */ \
	"sweep-started",			/* sweep_wanted is reset */ \
	"sweep-noted",				/* the sizes of the leaves are recorded */ \
	"span-taken", \
	"rows-taken",				/* no part of the span is given back yet */ \
	"claimed", \
	"posting-locked", \
	"id-taken",					/* its post is not yet written */ \
	"posts-written", \
	"letter-written", \
	"batch-finished",			/* the commit follows */ \
	"batch-committed",			/* the claim is still held */ \
	"batch-aborted",			/* the claim is still held */ \
	"notified",					/* readers were notified of the batch */ \
	/* batch_table.c, mover.c */ \
	"batch-table-due",			/* force: leaves are kept for 3 s only */ \
	"batch-table-locked", \
	"batch-table-truncated", \
	"batch-table-finished",		/* the commit follows */ \
	"batch-table-committed", \
	/* keys: key_leaf.c */ \
	"key-leaf-locked", \
	"key-leaf-truncated", \
	"keys-finished",			/* the commit follows */ \
	"keys-committed", \
	/* rotation: slot.c */ \
	"slot-advanced", \
	"slot-locked", \
	"slot-truncated", \
	"slot-committed",			/* shared memory is not yet updated */ \
	/* a producer: enqueue.c, key_table.c, enqueue_insert.c, wake.c */ \
	"batch-entered",			/* the batch table has the batch */ \
	"batch-fenced", \
	"keys-locked",				/* the keys are not yet looked up */ \
	"keys-written", \
	"queue-written", \
	"producer-committed",		/* no mover was woken; an error is a PANIC */ \
	/* processes: launcher.c, mover.c */ \
	"mover-wanted",				/* the mover is not yet registered */ \
	"mover-entered",			/* the mover is not yet connected */ \
	"mover-connected"

#ifdef NGX_PGQ_FAULTS

extern void ngx_pgq_fault_define(void);
extern void ngx_pgq_fault(const char *point);
extern bool ngx_pgq_fault_forced(const char *point);

#define NGX_PGQ_FAULT_DEFINE()			ngx_pgq_fault_define()
#define NGX_PGQ_FAULT(point)			ngx_pgq_fault(point)
#define NGX_PGQ_FAULT_FORCED(point)		ngx_pgq_fault_forced(point)

#else

#define NGX_PGQ_FAULT_DEFINE()			((void) 0)
#define NGX_PGQ_FAULT(point)			((void) 0)
#define NGX_PGQ_FAULT_FORCED(point)		false

#endif

#endif							/* NGX_PGQ_FAULT_H */
