/* SPDX-License-Identifier: PostgreSQL */
/*
 * bulk_insert.h
 *	  Inserting rows into a plain table, see bulk_insert.c.
 */
#ifndef NGX_PGQ_BULK_INSERT_H
#define NGX_PGQ_BULK_INSERT_H

#include "nodes/execnodes.h"

#include "ngx_pgq.h"

#define NGX_PGQ_BULK_ROWS		64	/* rows that are inserted at once */
#define NGX_PGQ_BULK_COLUMNS	5	/* maximum number of columns */

typedef struct NgxPgqBulk
{
	Relation	rel;
	int			columns;
	AttrNumber	attributes[NGX_PGQ_BULK_COLUMNS];	/* column numbers less 1 */
	EState	   *estate;
	MemoryContext scratch;		/* reset at each flush */
	ResultRelInfo *target;
	TupleTableSlot *rows[NGX_PGQ_BULK_ROWS];
	int			used;			/* number of rows not yet inserted */
	bool		check_constraints;	/* check CHECK and NOT NULL */
	bool		check_partition;	/* check the partition constraint */
	int			options;		/* options of table_multi_insert() */
	NgxPgqSpan	span;			/* the blocks that rows were written to */
} NgxPgqBulk;

extern bool ngx_pgq_bulk_insert_is_plain(Relation rel);
extern const char *ngx_pgq_bulk_insert_wrong_column(TupleDesc desc,
													const NgxPgqColumn *columns,
													int count);
extern void ngx_pgq_bulk_insert_check_columns(Relation rel,
											  const NgxPgqColumn *columns,
											  int count);
extern bool ngx_pgq_bulk_insert_begin(NgxPgqBulk *bulk, Relation rel,
									  const NgxPgqColumn *columns, int count);
extern void ngx_pgq_bulk_insert_add(NgxPgqBulk *bulk, const Datum *values);
extern void ngx_pgq_bulk_insert_end(NgxPgqBulk *bulk);
extern Datum ngx_pgq_bulk_insert_array(Datum *elements, int count, Oid type);

#endif							/* NGX_PGQ_BULK_INSERT_H */
