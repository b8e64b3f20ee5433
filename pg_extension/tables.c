/* SPDX-License-Identifier: PostgreSQL */
/*
 * tables.c
 *	  The tables that the movers use.
 *
 * They are looked up by name in each transaction, as they and the extension
 * may be dropped and created again.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "nodes/makefuncs.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "bulk_insert.h"
#include "ngx_pgq.h"

/* The columns of a message in a leaf of the queue. */
const NgxPgqColumn ngx_pgq_tables_columns[NGX_PGQ_MESSAGE_COLUMNS] = {
	{"at", TIMESTAMPTZOID},
	{"message_id", UUIDOID},
	{"data", JSONOID},
	{"topic", TEXTOID}
};

/* Has a table the column topic?  That of an older version lacks it. */
bool
ngx_pgq_tables_has_topic(Oid relid)
{
	return get_attnum(relid, "topic") != InvalidAttrNumber;
}

/* The number of columns of a message in this leaf, with or without topic. */
int
ngx_pgq_tables_count_columns(Oid relid)
{
	return NGX_PGQ_MESSAGE_COLUMNS - !ngx_pgq_tables_has_topic(relid);
}

/* public.posts; InvalidOid if it does not exist. */
Oid
ngx_pgq_tables_posts(void)
{
	Oid			schema = get_namespace_oid("public", true);

	return OidIsValid(schema) ? get_relname_relid("posts", schema) : InvalidOid;
}

/* Has a table these columns?  It is not kept locked. */
static bool
tables_has_columns(Oid relid, const NgxPgqColumn *columns, int count)
{
	Relation	rel = try_table_open(relid, AccessShareLock);
	bool		wrong;

	if (rel == NULL)
		return false;
	wrong = ngx_pgq_bulk_insert_wrong_column(RelationGetDescr(rel), columns,
											 count) != NULL;
	table_close(rel, AccessShareLock);
	return !wrong;
}

/*
 * Find the tables, and lock the queue until the transaction ends, unless mode
 * is NoLock.  Also checks that ngx_pgq.dead_letter exists, as a mover may need
 * it.
 */
void
ngx_pgq_tables_find(NgxPgqTables *tables, LOCKMODE mode)
{
	static const NgxPgqColumn id[] = {{"id", INT8OID}};
	Oid			schema = get_namespace_oid(NGX_PGQ_SCHEMA, true);

	tables->missing = NULL;
	if (OidIsValid(schema))
		(void) RangeVarGetRelid(makeRangeVar(NGX_PGQ_SCHEMA, "queue", -1),
								mode, true);
	for (int i = 0; i < NGX_PGQ_SLOTS; i++)
	{
		tables->queue[i] = ngx_pgq_leaf_relid("queue", i);
		if (!OidIsValid(tables->queue[i]))
			tables->missing = "the table ngx_pgq.queue or one of its leaves";
	}
	if (!OidIsValid(get_relname_relid("dead_letter", schema)))
		tables->missing = "the table ngx_pgq.dead_letter";
	for (int i = 0; i < NGX_PGQ_SLOTS && tables->missing == NULL; i++)
	{
		if (!tables_has_columns(tables->queue[i], ngx_pgq_tables_columns,
								ngx_pgq_tables_count_columns(tables->queue[i])))
			tables->missing = "a column of ngx_pgq.queue (at timestamptz, message_id uuid, data json, topic text; each not null)";
	}
	tables->posts = ngx_pgq_tables_posts();
	if (!OidIsValid(tables->posts))
		tables->missing = "the table public.posts";
	else if (!tables_has_columns(tables->posts, id, lengthof(id)))
		tables->missing = "the column id of public.posts (bigint, not null)";
	if (!OidIsValid(get_extension_oid("ngx_pgq", true)))
		tables->missing = "the extension ngx_pgq";
}
