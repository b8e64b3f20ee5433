/* SPDX-License-Identifier: PostgreSQL */
/*
 * leaf.c
 *	  The extension's tables and their leaves: lookup, size, truncating.
 *
 * Tables are looked up by name in each transaction.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "ngx_pgq.h"

/* Open a table of the extension; raises if it does not exist. */
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

/* Open a leaf of a table; raises if it does not exist. */
Relation
ngx_pgq_leaf_open(const char *table, int number, LOCKMODE mode)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "%s_%d", table, number);
	return ngx_pgq_leaf_open_table(name, mode);
}

/* The oid of a leaf of a table; InvalidOid if it does not exist. */
Oid
ngx_pgq_leaf_relid(const char *table, int number)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "%s_%d", table, number);
	return get_relname_relid(name, get_namespace_oid(NGX_PGQ_SCHEMA, true));
}

/* The number of a column; raises if it does not have this type. */
AttrNumber
ngx_pgq_leaf_column(Relation rel, const char *name, Oid type)
{
	AttrNumber	number = get_attnum(RelationGetRelid(rel), name);

	if (number == InvalidAttrNumber ||
		TupleDescAttr(RelationGetDescr(rel), number - 1)->atttypid != type)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s.%s\" is missing or of another type",
						name, NGX_PGQ_SCHEMA, RelationGetRelationName(rel))));
	return number;
}

/*
 * Does the latest snapshot see a row in the leaf?  If count is given, it is
 * set to the number of rows.
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

/* The pages of a leaf; -1 if it does not exist or another session locks it. */
int64
ngx_pgq_leaf_pages(Oid relid)
{
	Relation	rel;
	int64		pages = -1;

	if (!OidIsValid(relid) ||
		!ConditionalLockRelationOid(relid, AccessShareLock))
		return -1;
	rel = try_table_open(relid, NoLock);
	if (rel != NULL)
	{
		pages = RelationGetNumberOfBlocks(rel);
		table_close(rel, NoLock);
	}
	UnlockRelationOid(relid, AccessShareLock);
	return pages;
}

/*
 * Lock all that TRUNCATE of this table locks, without waiting.  If this fails,
 * some locks may be held already: the caller must end its transaction soon.
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

/* Truncate a leaf.  The caller has locked it and has not opened it. */
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
