/* SPDX-License-Identifier: PostgreSQL */
/*
 * enqueue_insert.c
 *	  Inserting messages into the queue, with the rights of its owner.
 *
 * The other functions are called between ngx_pgq_enqueue_insert_begin() and
 * ngx_pgq_enqueue_insert_end().
 *
 * - The user is the owner of ngx_pgq.queue, so callers only need EXECUTE on a
 *	 function.  The search_path is fixed, so the caller cannot choose the
 *	 objects that the owner's triggers use.  An error resets both when the
 *	 transaction aborts.
 * - Nothing is inserted if columns of the queue have been altered, as a mover
 *	 could not read it.
 * - Settings that a trigger changes are reset when the call ends.
 * - If the caller is a superuser, a trigger cannot be deferred to the end of
 *	 the transaction, where it would run as superuser.
 * - The queue is locked before its leaves, as in movers.
 * - The messages of a call keep their order and have the same time.
 * - No error writes a part of a message to the server log.  The text of a
 *	 RAISE is sent to the client only; other texts that may quote a value are
 *	 replaced.  Deferred triggers run at the end of the call, not at commit, so
 *	 this applies to their errors too.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "bulk_insert.h"
#include "compat.h"
#include "enqueue.h"
#include "fault.h"
#include "ngx_pgq.h"

static const NgxPgqColumn queue_columns[] = {
	{"at", TIMESTAMPTZOID},
	{"message_id", UUIDOID},
	{"slot", INT2OID},
	{"data", JSONOID},
	{"topic", TEXTOID}
};

/*
 * Is the constraint on topic the only one?  Topics have been checked already,
 * and an expression would take longer than the rest of an insert.
 */
static bool
enqueue_insert_checks_only_topic(Relation leaf)
{
	TupleConstr *constraints = RelationGetDescr(leaf)->constr;

	return constraints && constraints->num_check == 1 &&
		strcmp(constraints->check[0].ccname, "queue_topic_check") == 0;
}

/* Bulk insert; returns false if the executor must insert the messages. */
static bool
enqueue_insert_bulk(NgxPgqInsert *insert, Relation leaf, NgxPgqBatch *batch)
{
	Relation	queue = insert->queue;
	NgxPgqBulk	bulk;

	if (queue->trigdesc || queue->rd_rules || queue->rd_rel->relrowsecurity ||
		!ngx_pgq_bulk_insert_begin(&bulk, leaf, queue_columns,
								   insert->columns))
		return false;
	if (enqueue_insert_checks_only_topic(leaf))
		bulk.check_constraints = false;
	bulk.check_partition = false;	/* the leaf is that of insert->slot */
	bulk.options = TABLE_INSERT_SKIP_FSM;	/* keeps the messages in order */
	for (int i = 0; i < batch->count; i++)
	{
		Datum		values[] = {TimestampTzGetDatum(insert->at), batch->ids[i],
		Int16GetDatum(insert->slot), batch->messages[i], batch->topics[i]};

		ngx_pgq_bulk_insert_add(&bulk, values);
	}
	ngx_pgq_bulk_insert_end(&bulk);
	ngx_pgq_wake_at_commit(insert->slot, bulk.span, batch->count);
	return true;
}

static void
enqueue_insert_by_executor(NgxPgqInsert *insert, NgxPgqBatch *batch)
{
	Oid			types[] = {TIMESTAMPTZOID, INT2OID, UUIDARRAYOID, JSONARRAYOID,
	TEXTARRAYOID};
	Datum		values[5];
	bool		topic = insert->columns == lengthof(queue_columns);
	char	   *sql;
	NgxPgqSpan	nowhere = {InvalidBlockNumber, 0};

	values[0] = TimestampTzGetDatum(insert->at);
	values[1] = Int16GetDatum(insert->slot);
	values[2] = ngx_pgq_bulk_insert_array(batch->ids, batch->count, UUIDOID);
	values[3] = ngx_pgq_bulk_insert_array(batch->messages, batch->count,
										  JSONOID);
	values[4] = ngx_pgq_bulk_insert_array(batch->topics, batch->count,
										  TEXTOID);
	sql = psprintf("insert into ngx_pgq.queue (at, message_id, slot, data%s) "
				   "select $1, m.id, $2, m.data%s "
				   "from unnest($3, $4, $5) as m (id, data, topic)",
				   topic ? ", topic" : "", topic ? ", m.topic" : "");
	SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 0);
	insert->deferred = true;
	ngx_pgq_wake_at_commit(insert->slot, nowhere, batch->count);
	ngx_pgq_wake_at_commit_anywhere();
}

/* Become the queue's owner, with an SPI connection. */
void
ngx_pgq_enqueue_insert_begin(NgxPgqInsert *insert)
{
	ngx_pgq_synchronous_expect();
	insert->queue = ngx_pgq_leaf_open_table("queue", RowExclusiveLock);
	insert->columns = lengthof(queue_columns) -
		!ngx_pgq_tables_has_topic(RelationGetRelid(insert->queue));
	ngx_pgq_bulk_insert_check_columns(insert->queue, queue_columns,
									  insert->columns);
	insert->slot = ngx_pgq_wake_slot_current();
	insert->at = GetCurrentTimestamp();
	insert->deferred = false;
	GetUserIdAndSecContext(&insert->user, &insert->context);
	SetUserIdAndSecContext(insert->queue->rd_rel->relowner,
						   insert->context | SECURITY_LOCAL_USERID_CHANGE |
						   (superuser_arg(insert->user) ?
							SECURITY_RESTRICTED_OPERATION : 0));
	insert->settings = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
}

/* Is it certain that the text of an error quotes no value? */
static bool
enqueue_insert_has_no_value(const ErrorData *error)
{
	return ngx_pgq_sqlstate_error_text(error) != NULL ||
		(ERRCODE_TO_CATEGORY(error->sqlerrcode) ==
		 ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION &&
		 !ngx_pgq_sqlstate_error_in_function(error));
}

/* Is a leaf of the queue missing?  Then no message is at fault. */
static bool
enqueue_insert_lacks_partition(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_CHECK_VIOLATION &&
		error->constraint_name == NULL &&
		!ngx_pgq_sqlstate_error_in_function(error);
}

/* Is the text of an error that of a RAISE in a trigger? */
static bool
enqueue_insert_is_raise(const ErrorData *error)
{
	size_t		length = error->context ? strcspn(error->context, "\n") : 0;

	return length > 6 &&
		strncmp(error->context + length - 6, " RAISE", 6) == 0;
}

/*
 * The line of an error's context that names the trigger function, or NULL.  It
 * is the last one before our own statement; the others may quote values.
 */
static char *
enqueue_insert_function_of(const ErrorData *error)
{
	char	   *context = error->context ? pstrdup(error->context) : NULL;
	char	   *end = NULL;
	char	   *line;

	for (line = context; line && (line = strchr(line, '\n')); line++)
	{
		if (strncmp(line + 1, "SQL statement \"", 15) == 0)
			end = line;
	}
	if (end == NULL)
		return NULL;
	*end = '\0';
	line = strrchr(context, '\n');
	line = line ? line + 1 : context;
	return strncmp(line, "PL/", 3) == 0 ? line : NULL;
}

/*
 * Rethrow the current error without values of a message.  The detail of a
 * failed check, the text of a failed cast and a dynamic query may quote them.
 */
static void
enqueue_insert_rethrow_without_values(MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	error->detail = NULL;
	error->detail_log = NULL;
	if (enqueue_insert_lacks_partition(error))
		error->sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	else if (!enqueue_insert_has_no_value(error))
	{
		const char *text = "a check, trigger or index of ngx_pgq.queue rejects a message";

		if (enqueue_insert_is_raise(error))
		{
			ereport(LOG_SERVER_ONLY,
					(errmsg_internal("%s, SQLSTATE %s", text,
									 unpack_sql_state(error->sqlerrcode))));
			error->output_to_server = false;
		}
		else
			error->message = pstrdup(text);
		error->context = enqueue_insert_function_of(error);
		error->hint = NULL;
		error->internalquery = NULL;
		error->internalpos = 0;
	}
	ReThrowError(error);
}

/* A queue of an older version has no topics. */
static void
enqueue_insert_check_topics(NgxPgqInsert *insert, const NgxPgqBatch *batch)
{
	if (insert->columns == lengthof(queue_columns))
		return;
	for (int i = 0; i < batch->count; i++)
	{
		if (VARSIZE_ANY_EXHDR(DatumGetPointer(batch->topics[i])) > 0)
			ngx_pgq_bulk_insert_check_columns(insert->queue, queue_columns,
											  lengthof(queue_columns));
	}
}

/* Insert these messages; there is at least one. */
void
ngx_pgq_enqueue_insert_write(NgxPgqInsert *insert, NgxPgqBatch *batch)
{
	MemoryContext context = CurrentMemoryContext;
	Relation	leaf = ngx_pgq_leaf_open("queue", insert->slot,
										 RowExclusiveLock);

	enqueue_insert_check_topics(insert, batch);
	ngx_pgq_disk_expect();
	PG_TRY();
	{
		if (!enqueue_insert_bulk(insert, leaf, batch))
			enqueue_insert_by_executor(insert, batch);
	}
	PG_CATCH();
	{
		enqueue_insert_rethrow_without_values(context);
	}
	PG_END_TRY();
	table_close(leaf, NoLock);
	NGX_PGQ_FAULT("queue-written");
}

/* Run deferred triggers with the rights of the caller, as the commit would. */
static void
enqueue_insert_run_deferred(void)
{
	MemoryContext context = CurrentMemoryContext;
	int			settings = NewGUCNestLevel();

	PG_TRY();
	{
		SPI_execute("set constraints all immediate", false, 0);
	}
	PG_CATCH();
	{
		enqueue_insert_rethrow_without_values(context);
	}
	PG_END_TRY();
	AtEOXact_GUC(false, settings);
}

void
ngx_pgq_enqueue_insert_end(NgxPgqInsert *insert)
{
	AtEOXact_GUC(false, insert->settings);
	SetUserIdAndSecContext(insert->user, insert->context);
	if (insert->deferred)
		enqueue_insert_run_deferred();
	SPI_finish();
	table_close(insert->queue, NoLock);
}
