/* SPDX-License-Identifier: PostgreSQL */
/*
 * enqueue.h
 *	  What the files of the way into the queue, enqueue*.c, have in common.
 */
#ifndef NGX_PGQ_ENQUEUE_H
#define NGX_PGQ_ENQUEUE_H

#include "ngx_pgq.h"

#define NGX_PGQ_MESSAGES	65536	/* most messages of a batch */

/* Good messages on their way into the queue. */
typedef struct NgxPgqBatch
{
	int			count;
	Datum	   *ids;
	Datum	   *messages;
} NgxPgqBatch;

/* One call's way into the queue, see enqueue_insert.c. */
typedef struct NgxPgqIntake
{
	Relation	queue;
	int			slot;
	TimestampTz at;
	Oid			user;			/* who called, in what context, */
	int			context;
	int			settings;		/* and with what settings */
	bool		deferred;		/* triggers may be left for the commit */
} NgxPgqIntake;

/* enqueue_check.c */
extern bool ngx_pgq_verdict(Datum message, const char **sqlstate,
							char **problem);

/* enqueue_insert.c */
extern void ngx_pgq_intake_begin(NgxPgqIntake *intake);
extern NgxPgqEntry ngx_pgq_intake_enter(const pg_uuid_t *batch_id);
extern void ngx_pgq_intake_write(NgxPgqIntake *intake, NgxPgqBatch *batch);
extern void ngx_pgq_intake_end(NgxPgqIntake *intake);

#endif							/* NGX_PGQ_ENQUEUE_H */
