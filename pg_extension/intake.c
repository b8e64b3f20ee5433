/* SPDX-License-Identifier: PostgreSQL */
/*
 * intake.c
 *	  What all ways into the queue share: whose rights they work with, and how
 *	  messages are written.
 *
 * Called by enqueue.c and keyed.c, between ngx_pgq_intake_begin() and _end().
 *
 * - Works with the rights of the owner of ngx_pgq.queue, so that callers need
 *	 EXECUTE on a function and nothing else, and with a search_path of its own,
 *	 so that no name in a trigger of the owner's is looked up where the caller
 *	 says; after an error the transaction takes both back.
 * - Takes nothing while the queue is not what sql/queue.sql made: a mover could
 *	 not read it.
 * - For a superuser, a trigger of the owner's cannot be deferred to the end of
 *	 the transaction, where it would run as superuser.
 * - Locks the queue before its leaves, as the movers do.
 * - The messages of one call keep their order and carry one time.
 * - An error quotes nothing that a message holds: it goes to the server's log.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "fault.h"
#include "ngx_pgq.h"

/* The elements of a one-dimensional array of uuid or text. */
Datum *
ngx_pgq_array_elements(ArrayType *array, Oid type, bool **nulls, int *count)
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

/* Tell the caller of a message that was not put into the queue. */
void
ngx_pgq_refuse(ReturnSetInfo *result, int ordinal, const char *sqlstate,
			   const char *problem)
{
	Datum		values[] = {Int32GetDatum(ordinal),
		CStringGetTextDatum(sqlstate), CStringGetTextDatum(problem)};
	bool		nulls[] = {false, false, false};

	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* Raise, unless there are as many ids as messages, and not too many. */
void
ngx_pgq_check_counts(int ids, int messages)
{
	if (ids != messages)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch has %d message ids but %d messages",
						ids, messages)));
	if (messages > NGX_PGQ_MESSAGES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("batch has %d messages, the limit is %d",
						messages, NGX_PGQ_MESSAGES)));
}

static const NgxPgqColumn queue_columns[NGX_PGQ_BULK_COLUMNS] = {
	{"at", TIMESTAMPTZOID},
	{"message_id", UUIDOID},
	{"slot", INT2OID},
	{"data", JSONOID}
};

/* False if this is for the executor to do. */
static bool
insert_bulk(NgxPgqIntake *intake, Relation leaf, NgxPgqBatch *batch)
{
	Relation	queue = intake->queue;
	NgxPgqBulk	bulk;

	if (queue->trigdesc || queue->rd_rules || queue->rd_rel->relrowsecurity ||
		!ngx_pgq_bulk_begin(&bulk, leaf, queue_columns))
		return false;
	bulk.check_bound = false;	/* the slot chose the leaf */
	bulk.options = TABLE_INSERT_SKIP_FSM;	/* in order: only ever forward */
	for (int i = 0; i < batch->count; i++)
	{
		Datum		values[] = {TimestampTzGetDatum(intake->at), batch->ids[i],
		Int16GetDatum(intake->slot), batch->messages[i]};

		ngx_pgq_bulk_add(&bulk, values);
	}
	ngx_pgq_bulk_end(&bulk);
	ngx_pgq_wake_at_commit(intake->slot, bulk.span, batch->count);
	return true;
}

/* The same by the executor, for a queue somebody has added something to. */
static void
insert_by_executor(NgxPgqIntake *intake, NgxPgqBatch *batch)
{
	Oid			types[] = {TIMESTAMPTZOID, INT2OID, UUIDARRAYOID, JSONARRAYOID};
	Datum		values[4];
	NgxPgqSpan	nowhere = {InvalidBlockNumber, 0};

	values[0] = TimestampTzGetDatum(intake->at);
	values[1] = Int16GetDatum(intake->slot);
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
	ngx_pgq_wake_at_commit(intake->slot, nowhere, batch->count);
	ngx_pgq_wake_at_commit_anywhere();
}

/* A table of ours, which has to be there. */
Relation
ngx_pgq_open_table(const char *name, LOCKMODE mode)
{
	Oid			schema = get_namespace_oid(NGX_PGQ_SCHEMA, false);
	Oid			relid = get_relname_relid(name, schema);
	Relation	rel = NULL;

	if (OidIsValid(relid))
		rel = try_table_open(relid, mode);
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist",
						NGX_PGQ_SCHEMA, name),
				 errhint("Run sql/install.sql in this database.")));
	return rel;
}

/* From here on we are the queue's owner, and have an SPI connection. */
void
ngx_pgq_intake_begin(NgxPgqIntake *intake)
{
	ngx_pgq_synchronous_expect();
	intake->queue = ngx_pgq_open_table("queue", RowExclusiveLock);
	ngx_pgq_check_columns(intake->queue, queue_columns,
						  NGX_PGQ_BULK_COLUMNS);
	intake->slot = ngx_pgq_slot_current();
	intake->at = GetCurrentTimestamp();
	GetUserIdAndSecContext(&intake->user, &intake->context);
	SetUserIdAndSecContext(intake->queue->rd_rel->relowner,
						   intake->context | SECURITY_LOCAL_USERID_CHANGE |
						   (superuser_arg(intake->user) ?
							SECURITY_RESTRICTED_OPERATION : 0));
	intake->settings = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
}

/* Enter a batch in the ledger, unless it was taken; a fenced one fails. */
NgxPgqEntry
ngx_pgq_intake_enter(const pg_uuid_t *batch_id)
{
	NgxPgqEntry entry = ngx_pgq_ledger_enter(batch_id, false);

	if (entry == NGX_PGQ_ENTRY_FENCED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("batch was fenced by ngx_pgq.fence()")));
	return entry;
}

/*
 * Rethrow the current error without the values of a message.  The detail of a
 * failed check quotes the row; the text and the context of a data exception
 * quote the value that could not be converted.
 */
static void
rethrow_without_values(MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	error->detail = NULL;
	error->detail_log = NULL;
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_DATA_EXCEPTION)
	{
		error->message = "a check, trigger or index of ngx_pgq.queue rejects a message";
		error->context = NULL;
	}
	ReThrowError(error);
}

/* Put these messages into the queue; there is at least one. */
void
ngx_pgq_intake_write(NgxPgqIntake *intake, NgxPgqBatch *batch)
{
	MemoryContext context = CurrentMemoryContext;
	Relation	leaf = ngx_pgq_open_table(psprintf("queue_%d", intake->slot),
											   RowExclusiveLock);

	ngx_pgq_disk_expect();
	PG_TRY();
	{
		if (!insert_bulk(intake, leaf, batch))
			insert_by_executor(intake, batch);
	}
	PG_CATCH();
	{
		rethrow_without_values(context);
	}
	PG_END_TRY();
	table_close(leaf, NoLock);
	NGX_PGQ_FAULT("queue-written");
}

void
ngx_pgq_intake_end(NgxPgqIntake *intake)
{
	SPI_finish();
	AtEOXact_GUC(false, intake->settings);
	SetUserIdAndSecContext(intake->user, intake->context);
	table_close(intake->queue, NoLock);
}
