/* SPDX-License-Identifier: PostgreSQL */
/*
 * enqueue.c
 *	  SQL functions that enqueue a batch of messages at most once.
 *
 * enqueue()		refuses bad messages and enqueues the others
 * enqueue_keyed()	the same; messages may have idempotency keys
 * enqueue_all()	all or nothing; the messages may have one key in common
 * fence()			makes sure that a batch is never enqueued
 *
 * Each call adds one row to the batch table.  It returns a row for each
 * message that is not enqueued; enqueue_all() returns at most one.
 *
 * - If the batch table has the batch, nothing is added to the queue, and the
 *	 same rows are returned again.
 * - If the batch was fenced, the call fails.
 * - The fingerprint of a key identifies the message, or the messages of one
 *	 request: SHA-256 of a byte for the kind, then the length and text of the
 *	 topic, if there is one, and of each message.
 * - A message that is not valid JSON, or whose topic is not valid, takes no
 *	 key.  The client can use the key for the corrected message.
 * - In an older version of the extension the functions have no argument for
 *	 topics.
 * - PQ200 says that a message was accepted before.  The call has written to
 *	 the batch table, so its commit waits for the synchronous standby, and so
 *	 for all earlier commits.
 * - No call waits for a key that another transaction holds.
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

#define ID_MASK			UINT64CONST(0x3fffffffffffffff)

/* The first byte that is hashed for a fingerprint: what follows it. */
#define FINGERPRINT_OF_ONE	1	/* one message follows */
#define FINGERPRINT_OF_ALL	2	/* all messages of a request follow */
#define FINGERPRINT_TOPIC	2	/* is added if their topic comes first */

#define BAD_TOPIC_SQLSTATE	"22023"
#define BAD_TOPIC			"Topic is not valid: it consists of segments of letters, digits and . _ ~ - with / between them, has at most 255 bytes and does not begin with _."

/* The result of a message; sqlstate is NULL if it is good. */
typedef struct MessageResult
{
	const char *sqlstate;
	char	   *problem;
} MessageResult;

/* The keys of a call.  keys[i] is the key of message message_index[i]. */
typedef struct Keys
{
	int			count;
	NgxPgqKey  *keys;
	int		   *message_index;
} Keys;

/* Check the arguments of a call, and prepare its result. */
static void
enqueue_check_call(FunctionCallInfo fcinfo, int arguments, const char *names,
				   const char *function)
{
	for (int i = 0; i < arguments; i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be null", names)));
	}
	/* a bulk insert bypasses the executor's check */
	PreventCommandIfReadOnly(function);
	InitMaterializedSRF(fcinfo, 0);
}

/* The elements of an argument, an array of uuid or text. */
static Datum *
enqueue_array_elements(FunctionCallInfo fcinfo, int argument, Oid type,
					   bool **nulls, int *count)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(argument);
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

/* Report a message that is not enqueued. */
static void
enqueue_refuse(FunctionCallInfo fcinfo, int ordinal, const MessageResult *result)
{
	ReturnSetInfo *rows = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[] = {Int32GetDatum(ordinal),
		CStringGetTextDatum(result->sqlstate),
		CStringGetTextDatum(result->problem)};
	bool		nulls[] = {false, false, false};

	tuplestore_putvalues(rows->setResult, rows->setDesc, values, nulls);
}

static void
enqueue_check_counts(int ids, int messages)
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

/* Read the batch.  (*nulls)[i]: message i or its id is null. */
static NgxPgqBatch
enqueue_read_batch(FunctionCallInfo fcinfo, bool **nulls)
{
	NgxPgqBatch batch;
	bool	   *id_nulls;
	int			ids;

	batch.ids = enqueue_array_elements(fcinfo, 1, UUIDOID, &id_nulls, &ids);
	batch.messages = enqueue_array_elements(fcinfo, 2, TEXTOID, nulls,
											&batch.count);
	enqueue_check_counts(ids, batch.count);
	for (int i = 0; i < batch.count; i++)
		(*nulls)[i] |= id_nulls[i];
	return batch;
}

/*
 * Check each message, or only up to the first bad one.  Returns the ordinal of
 * the last message that is bad; 0 if all are good.
 */
static int
enqueue_check_messages(const NgxPgqBatch *batch, const bool *nulls,
					   MessageResult *results, bool all_or_nothing)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "ngx_pgq check",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);
	int			bad = 0;

	for (int i = 0; i < batch->count && !(bad && all_or_nothing); i++)
	{
		const char *sqlstate = "22004";
		char	   *problem = "Message or message id is null.";

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(scratch);
		if (!nulls[i] &&
			ngx_pgq_enqueue_check(batch->messages[i], &sqlstate, &problem))
			continue;
		results[i].sqlstate = sqlstate;
		results[i].problem = MemoryContextStrdup(caller, problem);
		bad = i + 1;
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
	return bad;
}

/* Check a topic; false, and result, if it is not valid. */
static bool
enqueue_accept_topic(Datum topic, MessageResult *result)
{
	if (ngx_pgq_enqueue_check_topic(topic))
		return true;
	result->sqlstate = BAD_TOPIC_SQLSTATE;
	result->problem = BAD_TOPIC;
	return false;
}

/* All messages have this topic. */
static void
enqueue_set_topic(NgxPgqBatch *batch, Datum topic)
{
	batch->topics = palloc(Max(batch->count, 1) * sizeof(Datum));
	for (int i = 0; i < batch->count; i++)
		batch->topics[i] = topic;
}

/* Read the topics, if they are given, of the messages that are good so far. */
static void
enqueue_read_topics(FunctionCallInfo fcinfo, int argument, NgxPgqBatch *batch,
					MessageResult *results)
{
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (PG_NARGS() <= argument || PG_ARGISNULL(argument))
		return;
	elements = enqueue_array_elements(fcinfo, argument, TEXTOID, &nulls,
									  &count);
	if (count != batch->count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch has %d messages but %d topics",
						batch->count, count)));
	for (int i = 0; i < count; i++)
	{
		if (!nulls[i] && !results[i].sqlstate &&
			enqueue_accept_topic(elements[i], &results[i]))
			batch->topics[i] = elements[i];
	}
}

/* Add a text to a hash, after its length if prefixed; false if this fails. */
static bool
enqueue_hash_text(pg_cryptohash_ctx *context, Datum given, bool prefixed)
{
	text	   *value = DatumGetTextPP(given);
	uint32		length = VARSIZE_ANY_EXHDR(value);
	uint32		prefix = pg_hton32(length);

	CHECK_FOR_INTERRUPTS();
	return (!prefixed ||
			pg_cryptohash_update(context, (uint8 *) &prefix,
								 sizeof(prefix)) >= 0) &&
		pg_cryptohash_update(context, (uint8 *) VARDATA_ANY(value),
							 length) >= 0;
}

/*
 * SHA-256 of a text if kind is 0; else of kind, topic unless it is empty, and
 * texts, each with its length.
 */
static void
enqueue_hash(uint8 *hash, uint8 kind, Datum topic, const Datum *texts,
			 int count)
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);
	bool		topical = kind &&
	VARSIZE_ANY_EXHDR(DatumGetPointer(topic)) > 0;
	uint8		first = topical ? kind + FINGERPRINT_TOPIC : kind;
	bool		failed = pg_cryptohash_init(context) < 0 ||
	(kind && pg_cryptohash_update(context, &first, sizeof(first)) < 0) ||
	(topical && !enqueue_hash_text(context, topic, true));

	for (int i = 0; i < count && !failed; i++)
		failed = !enqueue_hash_text(context, texts[i], kind != 0);
	if (failed ||
		pg_cryptohash_final(context, hash, PG_SHA256_DIGEST_LENGTH) < 0)
		elog(ERROR, "could not compute a fingerprint: %s",
			 pg_cryptohash_error(context));
	pg_cryptohash_free(context);
}

/* Read the key of these messages; false, and result, if it is not valid. */
static bool
enqueue_read_key(NgxPgqKey *key, Datum given, uint8 kind, Datum topic,
				 const Datum *messages, int count, const pg_uuid_t *id,
				 MessageResult *result)
{
	int			length = VARSIZE_ANY_EXHDR(DatumGetTextPP(given));

	if (length == 0)
	{
		result->sqlstate = "22023";
		result->problem = "Idempotency key is empty.";
		return false;
	}
	if (length > NGX_PGQ_KEY_LEN)
	{
		result->sqlstate = "54000";
		result->problem = psprintf("Idempotency key has %d bytes, the limit is %d.",
								   length, NGX_PGQ_KEY_LEN);
		return false;
	}
	enqueue_hash(key->digest, 0, (Datum) 0, &given, 1);
	enqueue_hash(key->fingerprint, kind, topic, messages, count);
	key->message_id = *id;
	return true;
}

/* Read the keys of the messages that are good so far. */
static Keys
enqueue_read_keys(FunctionCallInfo fcinfo, const NgxPgqBatch *batch,
				  MessageResult *results)
{
	Keys		keys = {0};
	bool	   *nulls;
	int			count;
	int			given = 0;
	Datum	   *elements = enqueue_array_elements(fcinfo, 3, TEXTOID, &nulls,
												  &count);

	if (count != batch->count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch has %d messages but %d keys",
						batch->count, count)));
	for (int i = 0; i < count; i++)
		given += !nulls[i];
	if (given > NGX_PGQ_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("batch has %d idempotency keys, the limit is %d",
						given, NGX_PGQ_KEYS)));
	keys.keys = palloc0(Max(given, 1) * sizeof(NgxPgqKey));
	keys.message_index = palloc(Max(given, 1) * sizeof(int));
	for (int i = 0; i < count; i++)
	{
		if (nulls[i] || results[i].sqlstate ||
			!enqueue_read_key(&keys.keys[keys.count], elements[i],
							  FINGERPRINT_OF_ONE, batch->topics[i],
							  &batch->messages[i], 1,
							  DatumGetUUIDP(batch->ids[i]), &results[i]))
			continue;
		keys.message_index[keys.count++] = i;
	}
	return keys;
}

/* Set the result of a message by the state of its key. */
static void
enqueue_apply_key(const NgxPgqKey *key, MessageResult *result)
{
	switch (key->state)
	{
		case NGX_PGQ_KEY_NEW:
		case NGX_PGQ_KEY_OURS:
			break;
		case NGX_PGQ_KEY_REPLAY:
			result->sqlstate = "PQ200";
			result->problem =
				DatumGetCString(DirectFunctionCall1(uuid_out,
													UUIDPGetDatum(&key->known_id)));
			break;
		case NGX_PGQ_KEY_OTHER:
			result->sqlstate = "PQ422";
			result->problem = "Idempotency key was used with another message.";
			break;
		case NGX_PGQ_KEY_BUSY:
			result->sqlstate = "PQ409";
			result->problem = "A message with this idempotency key is in progress.";
			break;
		case NGX_PGQ_KEY_FULL:
			result->sqlstate = "PQ503";
			result->problem = "There are too many idempotency keys.";
			break;
	}
}

/*
 * Enter the batch and take its keys.  Returns false if the batch was enqueued
 * before: then the keys are recalled instead.
 */
static bool
enqueue_enter(const pg_uuid_t *batch_id, NgxPgqKey *keys, int count)
{
	NgxPgqEntry entry = ngx_pgq_batch_table_enter(batch_id, false);

	if (entry == NGX_PGQ_ENTRY_FENCED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("batch was fenced by ngx_pgq.fence()")));
	if (entry == NGX_PGQ_ENTRY_ENQUEUED)
	{
		ngx_pgq_key_table_recall(keys, count);
		return false;
	}
	NGX_PGQ_FAULT("batch-entered");
	ngx_pgq_key_table_take(keys, count, entry == NGX_PGQ_ENTRY_RETRY);
	return true;
}

/* Report the bad messages, and remove them from the batch. */
static void
enqueue_report(FunctionCallInfo fcinfo, NgxPgqBatch *batch,
			   const MessageResult *results)
{
	int			count = batch->count;

	batch->count = 0;
	for (int i = 0; i < count; i++)
	{
		if (results[i].sqlstate)
		{
			enqueue_refuse(fcinfo, i + 1, &results[i]);
			continue;
		}
		batch->ids[batch->count] = batch->ids[i];
		batch->messages[batch->count] = batch->messages[i];
		batch->topics[batch->count] = batch->topics[i];
		batch->count++;
	}
}

static Datum
enqueue_batch(FunctionCallInfo fcinfo, bool keyed)
{
	NgxPgqInsert insert;
	bool	   *nulls;
	NgxPgqBatch batch = enqueue_read_batch(fcinfo, &nulls);
	MessageResult *results = palloc0(Max(batch.count, 1) * sizeof(MessageResult));
	Keys		keys = {0};
	bool		first;

	(void) enqueue_check_messages(&batch, nulls, results, false);
	enqueue_set_topic(&batch, CStringGetTextDatum(""));
	enqueue_read_topics(fcinfo, keyed ? 4 : 3, &batch, results);
	if (keyed)
		keys = enqueue_read_keys(fcinfo, &batch, results);

	ngx_pgq_enqueue_insert_begin(&insert);
	first = enqueue_enter(PG_GETARG_UUID_P(0), keys.keys, keys.count);
	for (int i = 0; i < keys.count; i++)
		enqueue_apply_key(&keys.keys[i], &results[keys.message_index[i]]);
	enqueue_report(fcinfo, &batch, results);
	if (first && batch.count > 0)
		ngx_pgq_enqueue_insert_write(&insert, &batch);
	ngx_pgq_enqueue_insert_end(&insert);
	return (Datum) 0;
}

Datum
ngx_pgq_enqueue(PG_FUNCTION_ARGS)
{
	enqueue_check_call(fcinfo, 3, "batch id, message ids and messages",
					   "ngx_pgq.enqueue()");
	return enqueue_batch(fcinfo, false);
}

Datum
ngx_pgq_enqueue_keyed(PG_FUNCTION_ARGS)
{
	enqueue_check_call(fcinfo, 4, "batch id, message ids, messages and keys",
					   "ngx_pgq.enqueue_keyed()");
	return enqueue_batch(fcinfo, true);
}

/* Read the messages of a request.  Their ids count up from the first one. */
static NgxPgqBatch
enqueue_read_request(FunctionCallInfo fcinfo, bool **nulls)
{
	const pg_uuid_t *first_id = PG_GETARG_UUID_P(1);
	NgxPgqBatch batch;
	pg_uuid_t  *ids;
	uint64		low;

	batch.messages = enqueue_array_elements(fcinfo, 2, TEXTOID, nulls,
											&batch.count);
	enqueue_check_counts(batch.count, batch.count);
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

Datum
ngx_pgq_enqueue_all(PG_FUNCTION_ARGS)
{
	NgxPgqInsert insert;
	NgxPgqBatch batch;
	NgxPgqKey  *key = palloc0(sizeof(NgxPgqKey));
	MessageResult none = {0};
	MessageResult *results;
	MessageResult *result = &none;
	bool	   *nulls;
	Datum		topic;
	int			keyed = 0;
	int			bad;
	bool		first;

	enqueue_check_call(fcinfo, 3, "batch id, first id and messages",
					   "ngx_pgq.enqueue_all()");
	batch = enqueue_read_request(fcinfo, &nulls);
	results = palloc0(Max(batch.count, 1) * sizeof(MessageResult));
	bad = enqueue_check_messages(&batch, nulls, results, true);
	topic = PG_NARGS() > 4 && !PG_ARGISNULL(4) ?
		PointerGetDatum(PG_GETARG_TEXT_PP(4)) : CStringGetTextDatum("");
	enqueue_set_topic(&batch, topic);
	if (bad)
		result = &results[bad - 1];
	else if (enqueue_accept_topic(topic, result) && !PG_ARGISNULL(3))
		keyed = enqueue_read_key(key, PG_GETARG_DATUM(3), FINGERPRINT_OF_ALL,
								 topic, batch.messages, batch.count,
								 PG_GETARG_UUID_P(1), result);

	ngx_pgq_enqueue_insert_begin(&insert);
	first = enqueue_enter(PG_GETARG_UUID_P(0), key, keyed);
	if (keyed)
		enqueue_apply_key(key, result);
	if (result->sqlstate)
		enqueue_refuse(fcinfo, bad, result);
	else if (first && batch.count > 0)
		ngx_pgq_enqueue_insert_write(&insert, &batch);
	ngx_pgq_enqueue_insert_end(&insert);
	return (Datum) 0;
}

/*
 * True if the batch was not enqueued and never will be; false if it was.
 * Waits for an attempt that is in progress.  Writes WAL in either case, so
 * that the answer is as durable as a batch.
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
	PG_RETURN_BOOL(entry != NGX_PGQ_ENTRY_ENQUEUED);
}
