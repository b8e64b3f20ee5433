/* SPDX-License-Identifier: PostgreSQL */
/*
 * enqueue.c
 *	  ngx_pgq.enqueue(): a batch of messages into the queue, once; and
 *	  ngx_pgq.fence(): a batch that shall never come.
 *
 * Called by SQL, normally by nginx: one call, one transaction, one row in the
 * ledger.  enqueue() returns a row for each message it refuses; all others are
 * in the queue when the transaction commits.
 *
 * - A batch the ledger knows adds nothing; its verdicts, which depend on the
 *	 messages alone, are given again.
 * - An attempt of a fenced batch that arrives later fails: it adds nothing, and
 *	 nobody can take it for accepted.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "compat.h"
#include "fault.h"
#include "ngx_pgq.h"

PG_FUNCTION_INFO_V1(ngx_pgq_enqueue);
PG_FUNCTION_INFO_V1(ngx_pgq_fence);

/* Take refused messages, and report them, out of a batch of so many. */
static void
judge(ReturnSetInfo *result, NgxPgqBatch *batch, int count,
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
			ngx_pgq_refuse(result, i + 1, sqlstate, problem);
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
static NgxPgqBatch
accept_messages(ReturnSetInfo *result, ArrayType *ids, ArrayType *messages)
{
	NgxPgqBatch batch;
	bool	   *id_nulls;
	bool	   *message_nulls;
	int			given;
	int			count;

	batch.ids = ngx_pgq_array_elements(ids, UUIDOID, &id_nulls, &given);
	batch.messages = ngx_pgq_array_elements(messages, TEXTOID, &message_nulls,
											&count);
	ngx_pgq_check_counts(given, count);

	batch.count = 0;
	judge(result, &batch, count, id_nulls, message_nulls);
	return batch;
}

/* Enter the batch and, unless it is known, put its messages into the queue. */
static void
take(const pg_uuid_t *batch_id, NgxPgqBatch *batch)
{
	NgxPgqIntake intake;

	ngx_pgq_intake_begin(&intake);
	if (ngx_pgq_intake_enter(batch_id) != NGX_PGQ_ENTRY_TAKEN && batch->count > 0)
	{
		NGX_PGQ_FAULT("batch-entered");
		ngx_pgq_intake_write(&intake, batch);
	}
	ngx_pgq_intake_end(&intake);
}

Datum
ngx_pgq_enqueue(PG_FUNCTION_ARGS)
{
	NgxPgqBatch batch;

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

/*
 * True if the batch was not taken, and never will be; false if it was.  An
 * attempt that is still running is waited for.  The ledger writes WAL either
 * way, so the answer is as durable as a batch.
 */
Datum
ngx_pgq_fence(PG_FUNCTION_ARGS)
{
	NgxPgqIntake intake;
	NgxPgqEntry entry;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("batch id must not be null")));
	PreventCommandIfReadOnly("ngx_pgq.fence()");
	ngx_pgq_intake_begin(&intake);
	entry = ngx_pgq_ledger_enter(PG_GETARG_UUID_P(0), true);
	NGX_PGQ_FAULT("batch-fenced");
	ngx_pgq_intake_end(&intake);
	PG_RETURN_BOOL(entry != NGX_PGQ_ENTRY_TAKEN);
}
