/* SPDX-License-Identifier: PostgreSQL */
/*
 * enqueue.c
 *	  ngx_pgq.enqueue(): a batch of messages into the queue, once;
 *	  ngx_pgq.enqueue_keyed(): a batch of messages that may have idempotency
 *	  keys; ngx_pgq.enqueue_all(): the messages of one request, all or nothing,
 *	  which may have one key together; and ngx_pgq.fence(): a batch that shall
 *	  never come.
 *
 * Called by SQL, normally by nginx: one call, one transaction, one row in the
 * ledger.  enqueue() returns a row for each message it refuses, the other two
 * return rows for what they did not newly put into the queue; all others are in
 * the queue when the transaction commits.
 *
 * - A batch the ledger knows adds nothing; its verdicts, which depend on the
 *	 messages alone, are given again.
 * - An attempt of a fenced batch that arrives later fails: it adds nothing, and
 *	 nobody can take it for accepted.
 * - A key names a message, or a request's messages, by a fingerprint: SHA-256
 *	 of a byte that tells which, then of each message its length and text.
 * - A message that is refused as JSON takes no key: mended, it may use it.
 * - Whoever is told that a message was taken before (PQ200) has written to the
 *	 ledger, so his commit waits for the synchronous standby, too, and for all
 *	 that was committed before.
 * - Another transaction's key is never waited for.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "compat.h"
#include "enqueue.h"
#include "fault.h"
#include "key_table.h"
#include "ngx_pgq.h"

PG_FUNCTION_INFO_V1(ngx_pgq_enqueue);
PG_FUNCTION_INFO_V1(ngx_pgq_enqueue_keyed);
PG_FUNCTION_INFO_V1(ngx_pgq_enqueue_all);
PG_FUNCTION_INFO_V1(ngx_pgq_fence);

/* What a fingerprint begins with. */
#define PRINT_ONE		1		/* a message posted alone */
#define PRINT_ALL		2		/* a request's messages */

#define ID_MASK			UINT64CONST(0x3fffffffffffffff)

/* What is said of one message; sqlstate is NULL as long as it is good. */
typedef struct Verdict
{
	const char *sqlstate;
	char	   *problem;
} Verdict;

/* The keys of a call, and which message each belongs to. */
typedef struct Keys
{
	int			count;
	NgxPgqKey	keys[NGX_PGQ_KEYS];
	int			owners[NGX_PGQ_KEYS];
} Keys;

/* The elements of a one-dimensional array of uuid or text. */
static Datum *
enqueue_array_elements(ArrayType *array, Oid type, bool **nulls, int *count)
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
static void
enqueue_refuse(ReturnSetInfo *result, int ordinal, const char *sqlstate,
			   const char *problem)
{
	Datum		values[] = {Int32GetDatum(ordinal),
		CStringGetTextDatum(sqlstate), CStringGetTextDatum(problem)};
	bool		nulls[] = {false, false, false};

	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* Raise, unless there are as many ids as messages, and not too many. */
static void
enqueue_expect_counts(int ids, int messages)
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

/* Take refused messages, and report them, out of a batch of so many. */
static void
enqueue_judge(ReturnSetInfo *result, NgxPgqBatch *batch, int count,
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
			!ngx_pgq_enqueue_check(batch->messages[i], &sqlstate, &problem))
		{
			enqueue_refuse(result, i + 1, sqlstate, problem);
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
enqueue_accept_messages(ReturnSetInfo *result, ArrayType *ids,
						ArrayType *messages)
{
	NgxPgqBatch batch;
	bool	   *id_nulls;
	bool	   *message_nulls;
	int			given;
	int			count;

	batch.ids = enqueue_array_elements(ids, UUIDOID, &id_nulls, &given);
	batch.messages = enqueue_array_elements(messages, TEXTOID, &message_nulls,
											&count);
	enqueue_expect_counts(given, count);

	batch.count = 0;
	enqueue_judge(result, &batch, count, id_nulls, message_nulls);
	return batch;
}

/* Enter the batch and, unless it is known, put its messages into the queue. */
static void
enqueue_take(const pg_uuid_t *batch_id, NgxPgqBatch *batch)
{
	NgxPgqInsert insert;

	ngx_pgq_enqueue_insert_begin(&insert);
	if (ngx_pgq_enqueue_insert_enter(batch_id) != NGX_PGQ_ENTRY_TAKEN &&
		batch->count > 0)
	{
		NGX_PGQ_FAULT("batch-entered");
		ngx_pgq_enqueue_insert_write(&insert, batch);
	}
	ngx_pgq_enqueue_insert_end(&insert);
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
	batch = enqueue_accept_messages((ReturnSetInfo *) fcinfo->resultinfo,
									PG_GETARG_ARRAYTYPE_P(1),
									PG_GETARG_ARRAYTYPE_P(2));
	enqueue_take(PG_GETARG_UUID_P(0), &batch);
	return (Datum) 0;
}

static pg_cryptohash_ctx *
enqueue_hash_begin(void)
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);

	if (pg_cryptohash_init(context) < 0)
		elog(ERROR, "could not compute a fingerprint: %s",
			 pg_cryptohash_error(context));
	return context;
}

static void
enqueue_hash(pg_cryptohash_ctx *context, const void *data, size_t length)
{
	if (pg_cryptohash_update(context, data, length) < 0)
		elog(ERROR, "could not compute a fingerprint: %s",
			 pg_cryptohash_error(context));
}

static void
enqueue_hash_end(pg_cryptohash_ctx *context, uint8 *result)
{
	if (pg_cryptohash_final(context, result, PG_SHA256_DIGEST_LENGTH) < 0)
		elog(ERROR, "could not compute a fingerprint: %s",
			 pg_cryptohash_error(context));
	pg_cryptohash_free(context);
}

static void
enqueue_digest(NgxPgqKey *key, text *given)
{
	pg_cryptohash_ctx *context = enqueue_hash_begin();

	enqueue_hash(context, VARDATA_ANY(given), VARSIZE_ANY_EXHDR(given));
	enqueue_hash_end(context, key->digest);
}

static void
enqueue_fingerprint(uint8 *print, uint8 kind, const Datum *messages, int count)
{
	pg_cryptohash_ctx *context = enqueue_hash_begin();

	enqueue_hash(context, &kind, sizeof(kind));
	for (int i = 0; i < count; i++)
	{
		text	   *message = DatumGetTextPP(messages[i]);
		uint32		length = VARSIZE_ANY_EXHDR(message);
		uint32		prefix = pg_hton32(length);

		CHECK_FOR_INTERRUPTS();
		enqueue_hash(context, &prefix, sizeof(prefix));
		enqueue_hash(context, VARDATA_ANY(message), length);
	}
	enqueue_hash_end(context, print);
}

/* Is this a key that can be kept?  If not, say why. */
static bool
enqueue_judge_key(text *key, Verdict *verdict)
{
	int			length = VARSIZE_ANY_EXHDR(key);

	if (length == 0)
	{
		verdict->sqlstate = "22023";
		verdict->problem = "Idempotency key is empty.";
	}
	else if (length > NGX_PGQ_KEY_LEN)
	{
		verdict->sqlstate = "54000";
		verdict->problem = psprintf("Idempotency key has %d bytes, the limit is %d.",
									length, NGX_PGQ_KEY_LEN);
	}
	return verdict->sqlstate == NULL;
}

/* What is said of a message whose key is not new; nothing if it is ours. */
static void
enqueue_judge_by_key(const NgxPgqKey *key, Verdict *verdict)
{
	switch (key->state)
	{
		case NGX_PGQ_KEY_NEW:
		case NGX_PGQ_KEY_OURS:
			break;
		case NGX_PGQ_KEY_REPLAY:
			verdict->sqlstate = "PQ200";
			verdict->problem =
				DatumGetCString(DirectFunctionCall1(uuid_out,
													UUIDPGetDatum(&key->known_id)));
			break;
		case NGX_PGQ_KEY_OTHER:
			verdict->sqlstate = "PQ422";
			verdict->problem = "Idempotency key was used with another message.";
			break;
		case NGX_PGQ_KEY_BUSY:
			verdict->sqlstate = "PQ409";
			verdict->problem = "A message with this idempotency key is on its way.";
			break;
		case NGX_PGQ_KEY_FULL:
			verdict->sqlstate = "PQ503";
			verdict->problem = "There are too many idempotency keys.";
			break;
	}
}

static void
enqueue_judge_message(Datum message, bool is_null, Verdict *verdict,
					  MemoryContext scratch)
{
	MemoryContext caller = MemoryContextSwitchTo(scratch);
	const char *sqlstate = "22004";
	char	   *problem = "Message or message id is null.";

	CHECK_FOR_INTERRUPTS();
	if (is_null || !ngx_pgq_enqueue_check(message, &sqlstate, &problem))
	{
		verdict->sqlstate = sqlstate;
		verdict->problem = MemoryContextStrdup(caller, problem);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(scratch);
}

static MemoryContext
enqueue_scratch_context(void)
{
	return AllocSetContextCreate(CurrentMemoryContext, "ngx_pgq verdict",
								 ALLOCSET_DEFAULT_SIZES);
}

/* Take the keys, or recall them for a batch that was taken before. */
static bool
enqueue_take_keys(NgxPgqInsert *insert, const pg_uuid_t *batch_id,
				  NgxPgqKey *keys, int count)
{
	NgxPgqEntry entry = ngx_pgq_enqueue_insert_enter(batch_id);

	if (entry != NGX_PGQ_ENTRY_TAKEN)
	{
		NGX_PGQ_FAULT("batch-entered");
		ngx_pgq_key_table_take(keys, count, entry == NGX_PGQ_ENTRY_FREED);
		return true;
	}
	ngx_pgq_key_table_recall(keys, count);
	return false;
}

/* The keys of the messages that are good so far. */
static Keys *
enqueue_gather_keys(const Datum *elements, const bool *nulls,
					const NgxPgqBatch *batch, int count, Verdict *verdicts)
{
	Keys	   *keys = palloc0(sizeof(Keys));
	int			given = 0;

	for (int i = 0; i < count; i++)
		given += !nulls[i];
	if (given > NGX_PGQ_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("batch has %d idempotency keys, the limit is %d",
						given, NGX_PGQ_KEYS)));
	for (int i = 0; i < count; i++)
	{
		NgxPgqKey  *key = &keys->keys[keys->count];

		if (nulls[i] || verdicts[i].sqlstate ||
			!enqueue_judge_key(DatumGetTextPP(elements[i]), &verdicts[i]))
			continue;
		enqueue_digest(key, DatumGetTextPP(elements[i]));
		key->message_id = *DatumGetUUIDP(batch->ids[i]);
		enqueue_fingerprint(key->fingerprint, PRINT_ONE, &batch->messages[i],
							1);
		keys->owners[keys->count++] = i;
	}
	return keys;
}

/* Report the messages that have a verdict, and take them out of the batch. */
static void
enqueue_answer(ReturnSetInfo *result, NgxPgqBatch *batch, int count,
			   const Verdict *verdicts)
{
	for (int i = 0; i < count; i++)
	{
		if (verdicts[i].sqlstate)
		{
			enqueue_refuse(result, i + 1, verdicts[i].sqlstate,
						   verdicts[i].problem);
			continue;
		}
		batch->ids[batch->count] = batch->ids[i];
		batch->messages[batch->count] = batch->messages[i];
		batch->count++;
	}
}

Datum
ngx_pgq_enqueue_keyed(PG_FUNCTION_ARGS)
{
	NgxPgqInsert insert;
	NgxPgqBatch batch = {0};
	Verdict    *verdicts;
	Keys	   *keys;
	Datum	   *key_elements;
	bool	   *id_nulls;
	bool	   *message_nulls;
	bool	   *key_nulls;
	int			ids;
	int			count;
	int			given;
	MemoryContext scratch;
	bool		first;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("batch id, message ids, messages and keys must not be null")));
	PreventCommandIfReadOnly("ngx_pgq.enqueue_keyed()");
	InitMaterializedSRF(fcinfo, 0);

	batch.ids = enqueue_array_elements(PG_GETARG_ARRAYTYPE_P(1), UUIDOID,
									   &id_nulls, &ids);
	batch.messages = enqueue_array_elements(PG_GETARG_ARRAYTYPE_P(2), TEXTOID,
											&message_nulls, &count);
	key_elements = enqueue_array_elements(PG_GETARG_ARRAYTYPE_P(3), TEXTOID,
										  &key_nulls, &given);
	enqueue_expect_counts(ids, count);
	if (given != count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch has %d messages but %d keys", count, given)));

	verdicts = palloc0(Max(count, 1) * sizeof(Verdict));
	scratch = enqueue_scratch_context();
	for (int i = 0; i < count; i++)
		enqueue_judge_message(batch.messages[i],
							  id_nulls[i] || message_nulls[i],
							  &verdicts[i], scratch);
	keys = enqueue_gather_keys(key_elements, key_nulls, &batch, count,
							   verdicts);

	ngx_pgq_enqueue_insert_begin(&insert);
	first = enqueue_take_keys(&insert, PG_GETARG_UUID_P(0), keys->keys,
							  keys->count);
	for (int i = 0; i < keys->count; i++)
		enqueue_judge_by_key(&keys->keys[i], &verdicts[keys->owners[i]]);
	enqueue_answer((ReturnSetInfo *) fcinfo->resultinfo, &batch, count,
				   verdicts);
	if (first && batch.count > 0)
		ngx_pgq_enqueue_insert_write(&insert, &batch);
	ngx_pgq_enqueue_insert_end(&insert);
	return (Datum) 0;
}

/* A request's messages under ids that count up from the first. */
static NgxPgqBatch
enqueue_number_messages(ArrayType *messages, const pg_uuid_t *first_id,
						bool **message_nulls)
{
	NgxPgqBatch batch;
	pg_uuid_t  *ids;
	uint64		low;

	batch.messages = enqueue_array_elements(messages, TEXTOID, message_nulls,
											&batch.count);
	enqueue_expect_counts(batch.count, batch.count);
	batch.ids = palloc(Max(batch.count, 1) * sizeof(Datum));
	ids = palloc(Max(batch.count, 1) * sizeof(pg_uuid_t));
	memcpy(&low, first_id->data + 8, sizeof(low));
	low = pg_ntoh64(low);
	for (int i = 0; i < batch.count; i++)
	{
		uint64		id = pg_hton64((low & ~ID_MASK) | ((low + i) & ID_MASK));

		ids[i] = *first_id;
		memcpy(ids[i].data + 8, &id, sizeof(id));
		batch.ids[i] = UUIDPGetDatum(&ids[i]);
	}
	return batch;
}

/* The verdict of the first message that is refused, and its ordinal; or 0. */
static int
enqueue_judge_all(const NgxPgqBatch *batch, const bool *nulls,
				  Verdict *verdict)
{
	MemoryContext scratch = enqueue_scratch_context();
	int			refused = 0;

	for (int i = 0; i < batch->count && refused == 0; i++)
	{
		enqueue_judge_message(batch->messages[i], nulls[i], verdict, scratch);
		if (verdict->sqlstate)
			refused = i + 1;
	}
	MemoryContextDelete(scratch);
	return refused;
}

Datum
ngx_pgq_enqueue_all(PG_FUNCTION_ARGS)
{
	NgxPgqInsert insert;
	NgxPgqBatch batch;
	NgxPgqKey  *key = palloc0(sizeof(NgxPgqKey));
	Verdict		verdict = {0};
	bool	   *nulls;
	int			keyed = 0;
	int			refused;
	bool		first;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("batch id, first id and messages must not be null")));
	PreventCommandIfReadOnly("ngx_pgq.enqueue_all()");
	InitMaterializedSRF(fcinfo, 0);

	batch = enqueue_number_messages(PG_GETARG_ARRAYTYPE_P(2),
									PG_GETARG_UUID_P(1), &nulls);
	refused = enqueue_judge_all(&batch, nulls, &verdict);
	if (refused == 0 && !PG_ARGISNULL(3) &&
		enqueue_judge_key(PG_GETARG_TEXT_PP(3), &verdict))
	{
		enqueue_digest(key, PG_GETARG_TEXT_PP(3));
		key->message_id = *PG_GETARG_UUID_P(1);
		enqueue_fingerprint(key->fingerprint, PRINT_ALL, batch.messages,
							batch.count);
		keyed = 1;
	}

	ngx_pgq_enqueue_insert_begin(&insert);
	first = enqueue_take_keys(&insert, PG_GETARG_UUID_P(0), key, keyed);
	if (keyed)
		enqueue_judge_by_key(key, &verdict);
	if (verdict.sqlstate)
		enqueue_refuse((ReturnSetInfo *) fcinfo->resultinfo, refused,
					   verdict.sqlstate, verdict.problem);
	else if (first && batch.count > 0)
		ngx_pgq_enqueue_insert_write(&insert, &batch);
	ngx_pgq_enqueue_insert_end(&insert);
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
	NgxPgqInsert insert;
	NgxPgqEntry entry;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("batch id must not be null")));
	PreventCommandIfReadOnly("ngx_pgq.fence()");
	ngx_pgq_enqueue_insert_begin(&insert);
	entry = ngx_pgq_batch_table_enter(PG_GETARG_UUID_P(0), true);
	NGX_PGQ_FAULT("batch-fenced");
	ngx_pgq_enqueue_insert_end(&insert);
	PG_RETURN_BOOL(entry != NGX_PGQ_ENTRY_TAKEN);
}
