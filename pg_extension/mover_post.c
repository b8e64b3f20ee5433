/* SPDX-License-Identifier: PostgreSQL */
/*
 * mover_post.c
 *	  Writing claimed messages as posts or dead letters.
 *
 * The caller is in the transaction of a batch and holds the posting lock, so
 * that ids are taken in commit order.
 *
 * - Posts are inserted in bulk.  The executor inserts them if posts has
 *	 triggers, foreign keys, more columns or partitions, or a right is missing.
 * - In both cases ids are in the order of the claim.
 * - A table without the column topic takes messages without a topic.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "bulk_insert.h"
#include "compat.h"
#include "fault.h"
#include "ngx_pgq.h"

static const NgxPgqColumn posts_columns[] = {
	{"id", INT8OID},
	{"at", TIMESTAMPTZOID},
	{"message_id", UUIDOID},
	{"data", JSONOID},
	{"topic", TEXTOID}
};

/* Must an insert name the column topic?  It fails if that does not exist. */
static bool
mover_post_names_topic(Oid relid, const NgxPgqClaim *claim)
{
	if (ngx_pgq_tables_has_topic(relid))
		return true;
	for (int i = 0; i < claim->count; i++)
	{
		if (VARSIZE_ANY_EXHDR(DatumGetPointer(claim->messages[i].topic)) > 0)
			return true;
	}
	return false;
}

/* Bulk insert; sets the last id.  False if the executor must insert. */
static bool
mover_post_write_bulk(Relation posts, NgxPgqClaim *claim, bool topic,
					  int64 *id)
{
	NgxPgqBulk	bulk;
	Oid			sequence;

	sequence = ngx_pgq_identity_sequence(posts,
										 get_attnum(RelationGetRelid(posts),
													"id"));
	if (!OidIsValid(sequence) ||
		!ngx_pgq_bulk_insert_begin(&bulk, posts, posts_columns,
								   lengthof(posts_columns) - !topic))
		return false;
	for (int i = 0; i < claim->count; i++)
	{
		NgxPgqMessage *message = &claim->messages[i];
		Datum		values[] = {0, message->at, message->message_id,
		message->data, message->topic};

		*id = nextval_internal(sequence, false);
		NGX_PGQ_FAULT("id-taken");
		values[0] = Int64GetDatum(*id);
		ngx_pgq_bulk_insert_add(&bulk, values);
	}
	ngx_pgq_bulk_insert_end(&bulk);
	return true;
}

/* One field of all claimed messages, as an array. */
static Datum
mover_post_claim_array(NgxPgqClaim *claim, Size field, Oid type)
{
	Datum	   *values = palloc_array(Datum, claim->count);

	for (int i = 0; i < claim->count; i++)
		values[i] = *(Datum *) ((char *) &claim->messages[i] + field);
	return ngx_pgq_bulk_insert_array(values, claim->count, type);
}

static void
mover_post_claim_arrays(NgxPgqClaim *claim, Datum *values)
{
	values[0] = mover_post_claim_array(claim, offsetof(NgxPgqMessage, at),
									   TIMESTAMPTZOID);
	values[1] = mover_post_claim_array(claim,
									   offsetof(NgxPgqMessage, message_id),
									   UUIDOID);
	values[2] = mover_post_claim_array(claim, offsetof(NgxPgqMessage, data),
									   JSONOID);
	values[3] = mover_post_claim_array(claim, offsetof(NgxPgqMessage, topic),
									   TEXTOID);
}

static int64
mover_post_write_by_executor(NgxPgqClaim *claim, bool topic)
{
	Oid			types[] = {TIMESTAMPTZARRAYOID, UUIDARRAYOID, JSONARRAYOID,
	TEXTARRAYOID};
	Datum		values[4];
	char	   *sql;
	int64		last = 0;
	bool		isnull;

	mover_post_claim_arrays(claim, values);
	sql = psprintf("insert into public.posts (at, message_id, data%s) "
				   "select m.at, m.message_id, m.data%s "
				   "from unnest($1, $2, $3, $4) with ordinality as m (at, message_id, data, topic, place) "
				   "order by m.place returning id::bigint",
				   topic ? ", topic" : "", topic ? ", m.topic" : "");
	SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 0);
	for (uint64 i = 0; i < SPI_processed && SPI_tuptable; i++)
	{
		Datum		id = SPI_getbinval(SPI_tuptable->vals[i],
									   SPI_tuptable->tupdesc, 1, &isnull);

		if (!isnull)
			last = Max(last, DatumGetInt64(id));
	}
	return last;
}

/*
 * Write posts of the claimed messages.  Returns the last id; 0 if a trigger
 * skipped all of them.  Needs an SPI connection.
 */
int64
ngx_pgq_mover_post_write(NgxPgqTables *tables, NgxPgqClaim *claim)
{
	Relation	posts = table_open(tables->posts, RowExclusiveLock);
	AclResult	acl = pg_class_aclcheck(tables->posts, GetUserId(), ACL_INSERT);
	bool		topic = mover_post_names_topic(tables->posts, claim);
	int64		id = 0;

	/* cached ids may be smaller than those of other processes */
	ResetSequenceCaches();
	if (acl != ACLCHECK_OK || !mover_post_write_bulk(posts, claim, topic, &id))
		id = mover_post_write_by_executor(claim, topic);
	table_close(posts, NoLock);
	return id;
}

/*
 * Write dead letters of claimed messages that posts refused with this error.
 * Needs an SPI connection.
 */
void
ngx_pgq_mover_post_write_dead_letter(NgxPgqClaim *claim, ErrorData *error)
{
	Oid			types[] = {TIMESTAMPTZARRAYOID, UUIDARRAYOID, JSONARRAYOID,
	TEXTARRAYOID, TEXTOID, TEXTOID};
	Datum		values[6];
	Oid			letters = get_relname_relid("dead_letter",
											get_namespace_oid(NGX_PGQ_SCHEMA, false));
	bool		topic = mover_post_names_topic(letters, claim);
	char	   *sql;

	mover_post_claim_arrays(claim, values);
	values[4] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
	values[5] = CStringGetTextDatum(error->message ? error->message : "");
	sql = psprintf("insert into ngx_pgq.dead_letter "
				   "(at, message_id, data, sqlstate, problem%s) "
				   "select m.at, m.message_id, m.data, $5, $6%s "
				   "from unnest($1, $2, $3, $4) as m (at, message_id, data, topic)",
				   topic ? ", topic" : "", topic ? ", m.topic" : "");
	SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 0);
}
