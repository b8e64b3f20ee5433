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
typedef struct NgxPgqInsert
{
	Relation	queue;
	int			slot;
	TimestampTz at;
	Oid			user;			/* who called, in what context, */
	int			context;
	int			settings;		/* and with what settings */
	bool		deferred;		/* triggers may be left for the commit */
} NgxPgqInsert;

/* enqueue_check.c */
extern bool ngx_pgq_enqueue_check(Datum message, const char **sqlstate,
								  char **problem);

/* enqueue_insert.c */
extern void ngx_pgq_enqueue_insert_begin(NgxPgqInsert *insert);
extern NgxPgqEntry ngx_pgq_enqueue_insert_enter(const pg_uuid_t *batch_id);
extern void ngx_pgq_enqueue_insert_write(NgxPgqInsert *insert,
										 NgxPgqBatch *batch);
extern void ngx_pgq_enqueue_insert_end(NgxPgqInsert *insert);

#endif							/* NGX_PGQ_ENQUEUE_H */
