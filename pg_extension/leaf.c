/* SPDX-License-Identifier: PostgreSQL */
/*
 * leaf.c
 *	  Tables of ours and their leaves: found, asked whether they have rows, locked
 *	  without waiting, and truncated.
 *
 * Owns nothing.  The tables are those of the transaction, by name.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "ngx_pgq.h"

/* A table of ours, which has to be there. */
Relation
ngx_pgq_leaf_open_table(const char *name, LOCKMODE mode)
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

/*
 * Does this snapshot's reader see a row in the leaf?  With a count, all of them
 * are counted.
 */
bool
ngx_pgq_leaf_has_rows(Relation leaf, uint64 *count)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan_strat(leaf, snapshot, 0, NULL,
											   true, false);
	TupleTableSlot *row = table_slot_create(leaf, NULL);
	uint64		seen = 0;

	while (table_scan_getnextslot(scan, ForwardScanDirection, row))
	{
		seen++;
		if (count == NULL)
			break;
		CHECK_FOR_INTERRUPTS();
	}
	ExecDropSingleTupleTableSlot(row);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	if (count)
		*count = seen;
	return seen > 0;
}

/*
 * Lock what TRUNCATE of this table will lock, without waiting.  False if
 * somebody else uses it; the caller's transaction then ends soon, and with it
 * what was locked.
 */
bool
ngx_pgq_leaf_lock_to_truncate(Oid relid)
{
	HeapTuple	tuple;
	Oid			toast;

	if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
		return false;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return false;
	toast = ((Form_pg_class) GETSTRUCT(tuple))->reltoastrelid;
	ReleaseSysCache(tuple);
	return !OidIsValid(toast) ||
		ConditionalLockRelationOid(toast, AccessExclusiveLock);
}

/* Truncate a leaf that is locked, and that we have not open. */
void
ngx_pgq_leaf_truncate(const char *table, int number)
{
	char	   *sql = psprintf("truncate " NGX_PGQ_SCHEMA ".%s_%d", table, number);

	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	SPI_execute(sql, false, 0);
	SPI_finish();
	PopActiveSnapshot();
}
