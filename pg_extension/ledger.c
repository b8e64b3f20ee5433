/* SPDX-License-Identifier: PostgreSQL */
/*
 * ledger.c
 *	  The ledger of batches already taken: entering one, forgetting old ones.
 *
 * enqueue enters each batch, with the rights of the queue's owner; the first
 * mover of a database tidies.
 *
 * - A batch id is a UUIDv7.  Its time alone chooses the leaf, period by period
 *	 in turn, so the same batch always meets the same unique index.
 * - In each period the leaf of the period before the last, which is the leaf
 *	 of the next, is truncated: a batch is remembered for one period at least.
 *	 That is done in the first half of the period only, so that the clocks of
 *	 those who make batch ids may run half a period fast and lose nothing.
 * - Truncating never waits for a lock, and so never makes anybody wait for it.
 * - A batch met again writes WAL all the same: its commit must wait for the
 *	 synchronous standby as the first one's had to.
 * - A batch that is fenced, not taken, has infinity for its time, for ever: who
 *	 fences twice must not believe that his first fence was the batch.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "fault.h"
#include "ngx_pgq.h"

#define PERIOD_MS	NGX_PGQ_LEDGER_MS
#define RETRY_US	INT64CONST(1000000)

/* a TimestampTz counts from 2000, a UUIDv7 from 1970 */
#define POSTGRES_EPOCH_MS \
	(INT64CONST(1000) * SECS_PER_DAY * \
	 (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE))

/* Bytes 0 to 5 of a UUIDv7 are its time in ms. */
static int64
period_of_batch(const pg_uuid_t *batch_id)
{
	int64		ms = 0;

	for (int i = 0; i < 6; i++)
		ms = (ms << 8) | batch_id->data[i];
	return ms / PERIOD_MS;
}

static int64
period_now(int64 *into)
{
	int64		now = GetCurrentTimestamp() / 1000 + POSTGRES_EPOCH_MS;

	*into = now % PERIOD_MS;
	return now / PERIOD_MS;
}

/* Would the ledger know this batch, if it had been taken? */
bool
ngx_pgq_ledger_remembers(const pg_uuid_t *batch_id)
{
	int64		into;
	int64		ago = period_now(&into) - period_of_batch(batch_id);

	return ago >= -1 && ago <= 1;
}

static Oid
leaf_relid(int leaf, bool missing_ok)
{
	char		name[NAMEDATALEN];
	Oid			relid;

	snprintf(name, sizeof(name), "batch_%d", leaf);
	relid = get_relname_relid(name, get_namespace_oid(NGX_PGQ_SCHEMA, true));
	if (!OidIsValid(relid) && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist",
						NGX_PGQ_SCHEMA, name),
				 errhint("Run sql/install.sql in this database.")));
	return relid;
}

/* Is the leaf what sql/batch.sql made, and nothing more? */
static bool
leaf_is_ours(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	return ngx_pgq_is_plain(rel) && desc->natts == 3 &&
		desc->constr->num_check == 0 &&
		TupleDescAttr(desc, 0)->atttypid == TIMESTAMPTZOID &&
		TupleDescAttr(desc, 1)->atttypid == INT2OID &&
		TupleDescAttr(desc, 2)->atttypid == UUIDOID;
}

static SPIPlanPtr
enter_plan(int leaf)
{
	static SPIPlanPtr plans[NGX_PGQ_LEDGER_SLOTS];

	if (plans[leaf] == NULL)
	{
		Oid			types[] = {INT2OID, UUIDOID, TIMESTAMPTZOID};
		char	   *sql = psprintf("insert into ngx_pgq.batch_%d (slot, batch_id, at) "
								   "values ($1, $2, $3) "
								   "on conflict (batch_id, slot) do nothing", leaf);
		SPIPlanPtr	plan = SPI_prepare(sql, lengthof(types), types);

		SPI_keepplan(plan);
		plans[leaf] = plan;
	}
	return plans[leaf];
}

/*
 * Enter a batch that is most likely new: what INSERT ... ON CONFLICT does, but
 * without looking first, and by table and index alone.  False if there may be
 * such a batch; then nothing was entered, and nothing is known.
 */
static bool
enter_at_once(int leaf, const pg_uuid_t *batch_id, TimestampTz at)
{
	Relation	rel = table_open(leaf_relid(leaf, false), RowExclusiveLock);
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *target = makeNode(ResultRelInfo);
	TupleTableSlot *row = MakeSingleTupleTableSlot(RelationGetDescr(rel),
												   &TTSOpsVirtual);
	bool		entered = false;

	if (leaf_is_ours(rel))
	{
		TransactionId xid = GetCurrentTransactionId();
		uint32		token = SpeculativeInsertionLockAcquire(xid);

		InitResultRelInfo(target, rel, 0, NULL, 0);
		ExecOpenIndices(target, true);
		row->tts_values[0] = TimestampTzGetDatum(at);
		row->tts_values[1] = Int16GetDatum(leaf);
		row->tts_values[2] = UUIDPGetDatum(batch_id);
		memset(row->tts_isnull, false, 3 * sizeof(bool));
		ExecStoreVirtualTuple(row);
		row->tts_tableOid = RelationGetRelid(rel);

		table_tuple_insert_speculative(rel, row, GetCurrentCommandId(true), 0,
									   NULL, token);
		entered = ngx_pgq_insert_unique_tuples(target, row, estate);
		table_tuple_complete_speculative(rel, row, token, entered);
		SpeculativeInsertionLockRelease(xid);
		ExecCloseIndices(target);
	}
	ExecDropSingleTupleTableSlot(row);
	FreeExecutorState(estate);
	table_close(rel, NoLock);
	return entered;
}

/* A batch that is there: have its row written again, and say what it is. */
static NgxPgqEntry
meet_again(int leaf, Datum *values)
{
	Oid			types[] = {INT2OID, UUIDOID};
	char	   *sql = psprintf("update ngx_pgq.batch_%d "
							   "set at = greatest(at, pg_catalog.clock_timestamp()) "
							   "where slot operator(pg_catalog.=) $1 "
							   "and batch_id operator(pg_catalog.=) $2 "
							   "returning pg_catalog.isfinite(at)", leaf);
	bool		isnull;

	SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 0);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("batch was removed from the ledger while it was looked up")));
	return DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, 1, &isnull)) ?
		NGX_PGQ_ENTRY_TAKEN : NGX_PGQ_ENTRY_FENCED;
}

/*
 * Enter a batch, to be taken or to be fenced.  If it is known, a first attempt
 * has committed; one that is still running is waited for.  Needs an SPI
 * connection.
 */
NgxPgqEntry
ngx_pgq_ledger_enter(const pg_uuid_t *batch_id, bool fence)
{
	int			leaf = period_of_batch(batch_id) % NGX_PGQ_LEDGER_SLOTS;
	TimestampTz at = fence ? DT_NOEND : GetCurrentTimestamp();
	Datum		values[] = {Int16GetDatum(leaf), UUIDPGetDatum(batch_id),
	TimestampTzGetDatum(at)};

	if (enter_at_once(leaf, batch_id, at))
		return NGX_PGQ_ENTRY_NEW;

	SPI_execute_plan(enter_plan(leaf), values, NULL, false, 0);
	if (SPI_processed == 1)
		return NGX_PGQ_ENTRY_FREED;
	return meet_again(leaf, values);
}

/* True if the leaf is empty now, false if it is in use. */
static bool
truncate_leaf(int leaf)
{
	Oid			relid = leaf_relid(leaf, true);
	Relation	rel;
	bool		empty;

	if (!OidIsValid(relid) ||
		!ngx_pgq_lock_to_truncate(relid))
		return false;
	NGX_PGQ_FAULT("ledger-locked");
	rel = try_table_open(relid, NoLock);
	if (rel == NULL)
		return false;
	empty = RelationGetNumberOfBlocks(rel) == 0;
	table_close(rel, NoLock);
	if (!empty)
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		SPI_connect();
		SPI_execute(psprintf("truncate ngx_pgq.batch_%d", leaf), false, 0);
		SPI_finish();
		PopActiveSnapshot();
		NGX_PGQ_FAULT("ledger-truncated");
	}
	return true;
}

static int64 tidied = -1;		/* the period we last truncated a leaf in */
static int64 tidying = -1;		/* the same, if the transaction commits */
static int64 try_after = 0;		/* ngx_pgq_clock() */

/* Has a leaf become old that is still to be truncated? */
bool
ngx_pgq_ledger_due(void)
{
	int64		into;

	return period_now(&into) != tidied && ngx_pgq_clock() >= try_after &&
		(into < PERIOD_MS / 2 || NGX_PGQ_FAULT_FORCED("ledger-due"));
}

/*
 * Truncate the leaf that has become old.  Called in a transaction of its own,
 * when due; the commit is told by ngx_pgq_ledger_keep().  If the leaf is in
 * use or this fails, it is due again a while later.
 */
void
ngx_pgq_ledger_tidy(NgxPgqDatabase *database)
{
	int64		into;
	int64		period = period_now(&into);

	try_after = ngx_pgq_clock() + RETRY_US;
	tidying = tidied;
	if (truncate_leaf((period + 1) % NGX_PGQ_LEDGER_SLOTS))
		tidying = period;
	NGX_PGQ_FAULT("ledger-finished");
}

/* The transaction has committed. */
void
ngx_pgq_ledger_keep(void)
{
	NGX_PGQ_FAULT("ledger-committed");
	tidied = tidying;
}
