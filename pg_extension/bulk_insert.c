/* SPDX-License-Identifier: PostgreSQL */
/*
 * bulk_insert.c
 *	  Bulk inserts into a plain table, as COPY does.
 *
 * The executor would insert the rows one by one.  Here a page of rows costs
 * one WAL record and one buffer lock.
 *
 * - The table must have exactly the caller's columns.  The executor must be
 *	 used if it has triggers, rules, row security, other columns or partitions.
 * - The caller has checked privileges and holds RowExclusiveLock.
 * - CHECK and NOT NULL constraints, the partition constraint and unique
 *	 indexes are checked for each row, with the errors that the executor would
 *	 raise, unless the caller has checked them and says so.
 * - Memory is allocated in the current context of ngx_pgq_bulk_insert_begin(),
 *	 which must exist until ngx_pgq_bulk_insert_end().
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "bulk_insert.h"
#include "compat.h"
#include "ngx_pgq.h"

/* Can rows be inserted without the executor? */
bool
ngx_pgq_bulk_insert_is_plain(Relation rel)
{
	TupleConstr *constraints = RelationGetDescr(rel)->constr;

	return rel->rd_rel->relkind == RELKIND_RELATION &&
		rel->trigdesc == NULL &&
		rel->rd_rules == NULL &&
		!rel->rd_rel->relrowsecurity &&
		!(constraints && constraints->has_generated_stored);
}

/*
 * Returns the name of the first listed column that is missing, nullable or of
 * another type; else NULL.  Other columns are ignored.  The owner may have
 * altered a table, so this must be checked before rows are read.
 */
const char *
ngx_pgq_bulk_insert_wrong_column(TupleDesc desc, const NgxPgqColumn *columns,
								 int count)
{
	for (int i = 0; i < count; i++)
	{
		bool		found = false;

		for (int attribute = 0; attribute < desc->natts && !found; attribute++)
		{
			Form_pg_attribute column = TupleDescAttr(desc, attribute);

			found = !column->attisdropped && column->attnotnull &&
				column->atttypid == columns[i].type &&
				namestrcmp(&column->attname, columns[i].name) == 0;
		}
		if (!found)
			return columns[i].name;
	}
	return NULL;
}

/* Raise unless a table has these columns; the client may try again. */
void
ngx_pgq_bulk_insert_check_columns(Relation rel, const NgxPgqColumn *columns,
								  int count)
{
	const char *wrong = ngx_pgq_bulk_insert_wrong_column(RelationGetDescr(rel),
														 columns, count);

	if (wrong)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of relation \"%s.%s\" is missing, nullable or of another type",
						wrong, NGX_PGQ_SCHEMA, RelationGetRelationName(rel)),
				 errhint("See sql/queue.sql.")));
}

/* Find the columns of a table; false if it has others. */
static bool
bulk_insert_map_columns(TupleDesc desc, const NgxPgqColumn *columns, int count,
						AttrNumber *attributes)
{
	int			found = 0;

	for (AttrNumber attribute = 0; attribute < desc->natts; attribute++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, attribute);
		int			i = 0;

		if (column->attisdropped)
			continue;
		while (i < count &&
			   (namestrcmp(&column->attname, columns[i].name) != 0 ||
				column->atttypid != columns[i].type ||
				column->atttypmod != -1 || column->attgenerated))
			i++;
		if (i == count)
			return false;
		attributes[i] = attribute;
		found++;
	}
	return found == count;
}

/*
 * Prepare to insert rows of these columns, at most NGX_PGQ_BULK_COLUMNS.
 * Returns false if the table has other columns, triggers or rules: then the
 * executor must insert the rows.
 */
bool
ngx_pgq_bulk_insert_begin(NgxPgqBulk *bulk, Relation rel,
						  const NgxPgqColumn *columns, int count)
{
	if (!ngx_pgq_bulk_insert_is_plain(rel) ||
		!bulk_insert_map_columns(RelationGetDescr(rel), columns, count,
								 bulk->attributes))
		return false;

	bulk->rel = rel;
	bulk->columns = count;
	bulk->estate = CreateExecutorState();
	bulk->scratch = AllocSetContextCreate(bulk->estate->es_query_cxt,
										  "ngx_pgq bulk",
										  ALLOCSET_DEFAULT_SIZES);
	bulk->target = makeNode(ResultRelInfo);
	InitResultRelInfo(bulk->target, rel, 0, NULL, 0);
	ExecOpenIndices(bulk->target, false);
	for (int i = 0; i < NGX_PGQ_BULK_ROWS; i++)
		bulk->rows[i] = NULL;
	bulk->used = 0;
	bulk->check_constraints = RelationGetDescr(rel)->constr &&
		RelationGetDescr(rel)->constr->num_check > 0;
	bulk->check_partition = rel->rd_rel->relispartition;
	bulk->options = 0;
	bulk->span.low = InvalidBlockNumber;
	bulk->span.high = 0;
	return true;
}

static void
bulk_insert_flush(NgxPgqBulk *bulk)
{
	MemoryContext caller;

	if (bulk->used == 0)
		return;
	caller = MemoryContextSwitchTo(bulk->scratch);
	table_multi_insert(bulk->rel, bulk->rows, bulk->used,
					   GetCurrentCommandId(true), bulk->options, NULL);
	for (int i = 0; i < bulk->used; i++)
	{
		BlockNumber block = ItemPointerGetBlockNumber(&bulk->rows[i]->tts_tid);

		bulk->span.low = Min(bulk->span.low, block);
		bulk->span.high = Max(bulk->span.high, block);
		if (bulk->target->ri_NumIndices > 0)
			ngx_pgq_insert_index_tuples(bulk->target, bulk->rows[i],
										bulk->estate);
		ResetPerTupleExprContext(bulk->estate);
		ExecClearTuple(bulk->rows[i]);
	}
	bulk->used = 0;
	MemoryContextSwitchTo(caller);
	MemoryContextReset(bulk->scratch);
}

/*
 * Add a row.  The values are in the order of the columns, are not null, and
 * must stay valid until ngx_pgq_bulk_insert_end().
 */
void
ngx_pgq_bulk_insert_add(NgxPgqBulk *bulk, const Datum *values)
{
	TupleDesc	desc = RelationGetDescr(bulk->rel);
	TupleTableSlot *row = bulk->rows[bulk->used];

	if (row == NULL)
	{
		row = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
		bulk->rows[bulk->used] = row;
	}
	memset(row->tts_isnull, true, desc->natts * sizeof(bool));
	for (int i = 0; i < bulk->columns; i++)
	{
		row->tts_values[bulk->attributes[i]] = values[i];
		row->tts_isnull[bulk->attributes[i]] = false;
	}
	ExecStoreVirtualTuple(row);
	row->tts_tableOid = RelationGetRelid(bulk->rel);

	if (bulk->check_constraints)
		ExecConstraints(bulk->target, row, bulk->estate);
	if (bulk->check_partition)
		(void) ExecPartitionCheck(bulk->target, row, bulk->estate, true);

	if (++bulk->used == NGX_PGQ_BULK_ROWS)
		bulk_insert_flush(bulk);
}

/* Insert the remaining rows.  Then bulk->span has the blocks written to. */
void
ngx_pgq_bulk_insert_end(NgxPgqBulk *bulk)
{
	bulk_insert_flush(bulk);
	for (int i = 0; i < NGX_PGQ_BULK_ROWS && bulk->rows[i]; i++)
		ExecDropSingleTupleTableSlot(bulk->rows[i]);
	ExecCloseIndices(bulk->target);
	FreeExecutorState(bulk->estate);
}

/* Make an array of values. */
Datum
ngx_pgq_bulk_insert_array(Datum *elements, int count, Oid type)
{
	int16		length;
	bool		byval;
	char		align;

	get_typlenbyvalalign(type, &length, &byval, &align);
	return PointerGetDatum(construct_array(elements, count, type, length, byval,
										   align));
}
