/* SPDX-License-Identifier: PostgreSQL */
/*
 * enqueue.c
 *	  ngx_pgq.enqueue(): a batch of messages into the queue, once.
 *
 * Called by SQL, normally by nginx: one call, one transaction, one row in the
 * ledger.  Returns a row for each message it refuses; all others are in the
 * queue when the transaction commits.
 *
 * - A batch the ledger knows adds nothing; its verdicts, which depend on the
 *	 messages alone, are given again.
 * - Works with the rights of the owner of ngx_pgq.queue, so that callers need
 *	 EXECUTE on the function and nothing else.
 * - Locks the queue before its leaves, as the movers do.
 * - Accepted messages keep their order and carry one time.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "fault.h"
#include "ngx_pgq.h"

PG_FUNCTION_INFO_V1(ngx_pgq_enqueue);

#define MAX_MESSAGES	65536

/* What a caller handed us, the refused ones taken out. */
typedef struct Batch
{
	int			count;
	Datum	   *ids;
	Datum	   *messages;
} Batch;

static Datum *
array_elements(ArrayType *array, Oid type, bool **nulls, int *count)
{
	Datum	   *elements;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("a batch must be given as one-dimensional arrays")));
	if (type == UUIDOID)
		deconstruct_array(array, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR,
						  &elements, nulls, count);
	else
		deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT,
						  &elements, nulls, count);
	return elements;
}

static void
refuse(ReturnSetInfo *result, int ordinal, const char *sqlstate,
	   const char *problem)
{
	Datum		values[] = {Int32GetDatum(ordinal),
		CStringGetTextDatum(sqlstate), CStringGetTextDatum(problem)};
	bool		nulls[] = {false, false, false};

	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* Take refused messages, and report them, out of a batch of so many. */
static void
judge(ReturnSetInfo *result, Batch *batch, int count,
	  const bool *id_nulls, const bool *message_nulls)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "ngx_pgq verdict",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);

	for (int i = 0; i < count; i++)
	{
		const char *sqlstate = "22004";
		char	   *problem = "Message or message id is null.";

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(scratch);
		if (id_nulls[i] || message_nulls[i] ||
			!ngx_pgq_verdict(batch->messages[i], &sqlstate, &problem))
		{
			refuse(result, i + 1, sqlstate, problem);
			continue;
		}
		batch->ids[batch->count] = batch->ids[i];
		batch->messages[batch->count] = batch->messages[i];
		batch->count++;
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
}

/* The messages of a batch that are good. */
static Batch
accept_messages(ReturnSetInfo *result, ArrayType *ids, ArrayType *messages)
{
	Batch		batch;
	bool	   *id_nulls;
	bool	   *message_nulls;
	int			given;
	int			count;

	batch.ids = array_elements(ids, UUIDOID, &id_nulls, &given);
	batch.messages = array_elements(messages, TEXTOID, &message_nulls, &count);
	if (given != count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch has %d message ids but %d messages",
						given, count)));
	if (count > MAX_MESSAGES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("batch has %d messages, the limit is %d",
						count, MAX_MESSAGES)));

	batch.count = 0;
	judge(result, &batch, count, id_nulls, message_nulls);
	return batch;
}

static const NgxPgqColumn queue_columns[NGX_PGQ_BULK_COLUMNS] = {
	{"at", TIMESTAMPTZOID},
	{"message_id", UUIDOID},
	{"slot", INT2OID},
	{"data", JSONOID}
};

/* False if this is for the executor to do. */
static bool
insert_bulk(Relation queue, Relation leaf, Batch *batch, int slot,
			TimestampTz at)
{
	NgxPgqBulk	bulk;

	if (queue->trigdesc || queue->rd_rules || queue->rd_rel->relrowsecurity ||
		!ngx_pgq_bulk_begin(&bulk, leaf, queue_columns))
		return false;
	bulk.fits = true;			/* the slot chose the leaf */
	for (int i = 0; i < batch->count; i++)
	{
		Datum		values[] = {TimestampTzGetDatum(at), batch->ids[i],
		Int16GetDatum(slot), batch->messages[i]};

		ngx_pgq_bulk_add(&bulk, values);
	}
	ngx_pgq_bulk_end(&bulk);
	ngx_pgq_wake_at_commit(slot, bulk.span, batch->count);
	return true;
}

/* The same by the executor, for a queue somebody has added something to. */
static void
insert_by_executor(Batch *batch, int slot, TimestampTz at)
{
	Oid			types[] = {TIMESTAMPTZOID, INT2OID, UUIDARRAYOID, JSONARRAYOID};
	Datum		values[4];
	NgxPgqSpan	nowhere = {InvalidBlockNumber, 0};

	values[0] = TimestampTzGetDatum(at);
	values[1] = Int16GetDatum(slot);
	values[2] = PointerGetDatum(construct_array(batch->ids, batch->count,
												UUIDOID, UUID_LEN, false,
												TYPALIGN_CHAR));
	values[3] = PointerGetDatum(construct_array(batch->messages, batch->count,
												JSONOID, -1, false,
												TYPALIGN_INT));
	SPI_execute_with_args("insert into ngx_pgq.queue (at, message_id, slot, data) "
						  "select $1, m.id, $2, m.data "
						  "from unnest($3, $4) as m (id, data)",
						  lengthof(types), types, values, NULL, false, 0);
	ngx_pgq_wake_at_commit(slot, nowhere, batch->count);
	ngx_pgq_wake_at_commit_anywhere();
}

static Relation
open_in_schema(const char *name)
{
	Oid			schema = get_namespace_oid(NGX_PGQ_SCHEMA, false);
	Oid			relid = get_relname_relid(name, schema);
	Relation	rel = NULL;

	if (OidIsValid(relid))
		rel = try_table_open(relid, RowExclusiveLock);
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist",
						NGX_PGQ_SCHEMA, name),
				 errhint("Run sql/install.sql in this database.")));
	return rel;
}

/* Enter the batch and, unless it is known, put its messages into the queue. */
static void
take(const pg_uuid_t *batch_id, Batch *batch)
{
	Relation	queue = open_in_schema("queue");
	int			slot = ngx_pgq_slot_current();
	TimestampTz at = GetCurrentTimestamp();
	Oid			user;
	int			context;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(queue->rd_rel->relowner,
						   context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	if (ngx_pgq_ledger_enter(batch_id) && batch->count > 0)
	{
		Relation	leaf = open_in_schema(psprintf("queue_%d", slot));

		NGX_PGQ_FAULT("batch-entered");
		if (!insert_bulk(queue, leaf, batch, slot, at))
			insert_by_executor(batch, slot, at);
		table_close(leaf, NoLock);
		NGX_PGQ_FAULT("queue-written");
	}
	SPI_finish();
	SetUserIdAndSecContext(user, context);
	table_close(queue, NoLock);
}

Datum
ngx_pgq_enqueue(PG_FUNCTION_ARGS)
{
	Batch		batch;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("batch id, message ids and messages must not be null")));

	/* the bulk path writes below where the server looks after this */
	PreventCommandIfReadOnly("ngx_pgq.enqueue()");

	InitMaterializedSRF(fcinfo, 0);
	batch = accept_messages((ReturnSetInfo *) fcinfo->resultinfo,
							PG_GETARG_ARRAYTYPE_P(1),
							PG_GETARG_ARRAYTYPE_P(2));
	take(PG_GETARG_UUID_P(0), &batch);
	return (Datum) 0;
}
