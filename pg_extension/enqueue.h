/* SPDX-License-Identifier: PostgreSQL */
/*
 * enqueue.h
 *	  Declarations for enqueue*.c.
 */
#ifndef NGX_PGQ_ENQUEUE_H
#define NGX_PGQ_ENQUEUE_H

#include "ngx_pgq.h"

#define NGX_PGQ_MESSAGES	65536	/* maximum number of messages in a batch */
#define NGX_PGQ_TOPIC_LEN	255 /* maximum length of a topic, in bytes */

/* Messages to be inserted into the queue. */
typedef struct NgxPgqBatch
{
	int			count;
	Datum	   *ids;
	Datum	   *messages;
	Datum	   *topics;			/* '' if a message has none */
} NgxPgqBatch;

/* State of one call, see enqueue_insert.c. */
typedef struct NgxPgqInsert
{
	Relation	queue;
	int			columns;		/* of queue_columns; topic may be missing */
	int			slot;
	TimestampTz at;
	Oid			user;			/* the caller; restored when the call ends */
	int			context;		/* the caller's security context */
	int			settings;		/* GUC nest level of the call */
	bool		deferred;		/* true if there may be deferred triggers */
} NgxPgqInsert;

/* enqueue_check.c */
extern bool ngx_pgq_enqueue_check(Datum message, const char **sqlstate,
								  char **problem);
extern bool ngx_pgq_enqueue_check_topic(Datum topic);

/* enqueue_insert.c */
extern void ngx_pgq_enqueue_insert_begin(NgxPgqInsert *insert);
extern void ngx_pgq_enqueue_insert_write(NgxPgqInsert *insert,
										 NgxPgqBatch *batch);
extern void ngx_pgq_enqueue_insert_end(NgxPgqInsert *insert);

#endif							/* NGX_PGQ_ENQUEUE_H */
