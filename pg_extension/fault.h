/* SPDX-License-Identifier: PostgreSQL */
/*
 * fault.h
 *	  Places where a test can have a process fail.
 *
 * Nothing of this is in a normal build.  Compiled with -DNGX_PGQ_FAULTS, the
 * setting "fault" of ngx_pgq holds a list of point:action[:count], and a
 * process that comes to the point
 *
 * error		raises an error; so does a SQLSTATE, with that code
 * fatal		ends itself
 * panic		ends the server
 * kill			kills itself by SIGKILL
 * wait			waits until the setting is another one, or it is cancelled
 * force		takes the condition that NGX_PGQ_FAULT_FORCED() asks for as true
 *
 * count times on this data directory, or always.  The n-th time leaves a file
 * ngx_pgq.fault.<point>.<n> there, from 0 on.
 */
#ifndef NGX_PGQ_FAULT_H
#define NGX_PGQ_FAULT_H

#define NGX_PGQ_FAULT_SETTING	"ngx_pgq.fault"	/* in test builds only */

/* Each point there is: a process has just done what its name says. */
#define NGX_PGQ_FAULT_POINTS \
	/* a batch: mover_claim.c, mover_batch.c, mover_post.c */ \
	"sweep-started",			/* no commit asks for a sweep any more */ \
	"sweep-noted",				/* which blocks the leaves have */ \
	"span-taken", \
	"rows-taken",				/* nothing of the span was given back */ \
	"claimed", \
	"posting-locked", \
	"id-taken",					/* before its post is written */ \
	"posts-written", \
	"letter-written", \
	"batch-finished",			/* and the commit comes next */ \
	"batch-committed",			/* and the claim is still in hand */ \
	"batch-aborted",			/* and the claim is still in hand */ \
	"notified",					/* after the batch's commit */ \
	/* the ledger: batch_table.c, mover.c */ \
	"ledger-due",				/* force: all times of the ledger are 3 s */ \
	"ledger-locked", \
	"ledger-truncated", \
	"ledger-finished",			/* and the commit comes next */ \
	"ledger-committed", \
	/* keys: key_leaf.c */ \
	"key-leaf-locked", \
	"key-leaf-truncated", \
	"keys-finished",			/* and the commit comes next */ \
	"keys-committed", \
	/* rotation: slot.c */ \
	"slot-advanced", \
	"slot-locked", \
	"slot-truncated", \
	"slot-committed",			/* and nobody was told */ \
	/* a producer: enqueue.c, key_table.c, enqueue_insert.c, wake.c */ \
	"batch-entered",			/* into the ledger */ \
	"batch-fenced", \
	"keys-locked",				/* and not looked up */ \
	"keys-written", \
	"queue-written", \
	"producer-committed",		/* and no mover was told; an error panics */ \
	/* processes: launcher.c, mover.c */ \
	"mover-wanted",				/* and registering it comes next */ \
	"mover-entered",			/* and is not connected */ \
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
