/* SPDX-License-Identifier: PostgreSQL */
/*
 * utility_hook.c
 *	  A ProcessUtility hook: movers do not block DDL.
 *
 * Runs in every backend if the library is preloaded.  Owns the holds of the
 * current transaction (held): databases in which the launcher runs no movers.
 *
 * - DROP DATABASE, ALTER DATABASE ... RENAME and SET TABLESPACE, and CREATE
 *	 DATABASE with the database as template, hold the database and wait until
 *	 its movers have exited.
 * - Movers keep running if the user may not run the command, or if it cannot
 *	 succeed here.
 * - A hold lasts until the transaction ends, as RENAME may be in a transaction
 *	 block and takes effect at commit.  Then the launcher checks its databases.
 * - DROP EXTENSION and other commands on the tables, such as DROP TRIGGER,
 *	 would lock the leaves in their own order and so deadlock with enqueue()
 *	 and movers.  All code of ngx_pgq locks ngx_pgq.queue before a leaf; the
 *	 hook does so for these commands.
 * - The transaction callback runs after the commit record is written too:
 *	 there it allocates no memory, takes no lock and raises no error.
 * - COMMIT PREPARED wakes the movers, as the session that inserted may no
 *	 longer exist.  A subscription's worker runs no command for it, so each
 *	 transaction of such a worker that writes nothing wakes them.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "replication/logicalworker.h"
#include "storage/procarray.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "compat.h"
#include "ngx_pgq.h"

/* Maximum wait for movers to exit. */
#define EXIT_WAIT_US	INT64CONST(5000000)
#define CHECK_MS		5		/* time between checks of the movers */

static ProcessUtility_hook_type prev_process_utility;

/* The databases that this transaction holds. */
static bool held[NGX_PGQ_DATABASES];
static bool changing = false;	/* this transaction changes a database */

/* Release all holds.  Called after commit: must not raise. */
static void
utility_hook_release(void)
{
	for (int d = 0; d < NGX_PGQ_DATABASES; d++)
	{
		if (held[d])
			pg_atomic_fetch_sub_u32(&ngx_pgq_shmem->database[d].holds, 1);
		held[d] = false;
	}
	changing = false;
	ngx_pgq_launcher_recheck();
}

static void
utility_hook_at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (IsLogicalWorker() &&
				!TransactionIdIsValid(GetTopTransactionIdIfAny()))
				ngx_pgq_wake_at_commit_anywhere();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			if (changing)
				utility_hook_release();
			break;
		default:
			break;
	}
}

static DefElem *
utility_hook_option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		if (strcmp(((DefElem *) lfirst(cell))->defname, name) == 0)
			return lfirst(cell);
	}
	return NULL;
}

/*
 * The database that must have no other sessions for this statement; NULL if
 * there is none.  Sets the name of the command.
 */
static const char *
utility_hook_database_needed(Node *statement, const char **command)
{
	DefElem    *option;

	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			*command = "DROP DATABASE";
			return ((DropdbStmt *) statement)->dbname;
		case T_RenameStmt:
			*command = "ALTER DATABASE RENAME";
			return ((RenameStmt *) statement)->renameType == OBJECT_DATABASE ?
				((RenameStmt *) statement)->subname : NULL;
		case T_AlterDatabaseStmt:
			*command = "ALTER DATABASE SET TABLESPACE";
			return utility_hook_option(((AlterDatabaseStmt *) statement)->options,
									   "tablespace") ?
				((AlterDatabaseStmt *) statement)->dbname : NULL;
		case T_CreatedbStmt:
			*command = "CREATE DATABASE";
			option = utility_hook_option(((CreatedbStmt *) statement)->options,
										 "template");
			return option && option->arg ? defGetString(option) : "template1";
		default:
			return NULL;
	}
}

static bool
utility_hook_may_create_databases(void)
{
	HeapTuple	tuple;
	bool		may = superuser();

	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		may |= ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return may;
}

static bool
utility_hook_is_template(Oid database)
{
	HeapTuple	tuple;
	bool		template = false;

	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	if (HeapTupleIsValid(tuple))
	{
		template = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return template;
}

/* Can the command succeed?  The server makes further checks. */
static bool
utility_hook_may_succeed(Node *statement, Oid database,
						 ProcessUtilityContext context)
{
	bool		owner = ngx_pgq_owns_database(database);

	if (XactReadOnly)
		return false;
	if (!IsA(statement, RenameStmt) &&
		(context != PROCESS_UTILITY_TOPLEVEL || IsTransactionBlock()))
		return false;
	switch (nodeTag(statement))
	{
		case T_CreatedbStmt:
			return utility_hook_may_create_databases() &&
				(owner || utility_hook_is_template(database));
		case T_RenameStmt:
			return owner && utility_hook_may_create_databases() &&
				database != MyDatabaseId;
		case T_DropdbStmt:
			return owner && !utility_hook_is_template(database) &&
				database != MyDatabaseId;
		default:
			return owner && database != MyDatabaseId;
	}
}

/* Hold a database; NULL if it has no entry. */
static NgxPgqDatabase *
utility_hook_hold(const char *name)
{
	NgxPgqDatabase *database = NULL;

	LWLockAcquire(ngx_pgq_shmem->lock, LW_SHARED);
	for (int d = 0; d < NGX_PGQ_DATABASES && database == NULL; d++)
	{
		if (strcmp(ngx_pgq_shmem->database[d].name, name) != 0)
			continue;
		database = &ngx_pgq_shmem->database[d];
		if (!held[d])
			pg_atomic_fetch_add_u32(&database->holds, 1);
		held[d] = true;
	}
	LWLockRelease(ngx_pgq_shmem->lock);
	return database;
}

/* Find the pids of the movers; returns their number. */
static int
utility_hook_find_movers(NgxPgqDatabase *database, int *pids)
{
	int			count = 0;

	for (int m = 0; m < NGX_PGQ_MOVERS; m++)
	{
		pids[count] = pg_atomic_read_u32(&database->mover[m].pid);
		if (pids[count] != 0)
			count++;
	}
	return count;
}

static bool
utility_hook_any_running(const int *pids, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (BackendPidGetProc(pids[i]))
			return true;
	}
	return false;
}

/* Wait until the movers have exited, for EXIT_WAIT_US at most. */
static void
utility_hook_wait_for_movers(NgxPgqDatabase *database, int *pids, int count)
{
	static uint32 wait_event = 0;
	int64		until = ngx_pgq_clock() + EXIT_WAIT_US;

	while ((utility_hook_any_running(pids, count) ||
			(count = utility_hook_find_movers(database, pids))) &&
		   ngx_pgq_clock() < until)
	{
		ngx_pgq_wake_wait(CHECK_MS, &wait_event, "NgxPgqStopMovers");
		CHECK_FOR_INTERRUPTS();
	}
}

static void
utility_hook_stop_movers(Node *statement, const char *name, const char *command,
						 ProcessUtilityContext context)
{
	Oid			oid = get_database_oid(name, true);
	NgxPgqDatabase *database;
	int			pids[NGX_PGQ_MOVERS];
	int			count;

	if (!OidIsValid(oid) ||
		!utility_hook_may_succeed(statement, oid, context) ||
		(database = utility_hook_hold(name)) == NULL)
		return;
	count = utility_hook_find_movers(database, pids);
	ngx_pgq_launcher_recheck();
	if (count > 0)
		ereport(LOG,
				(errmsg("ngx_pgq: stopping movers of database \"%s\" for %s",
						name, command)));
	utility_hook_wait_for_movers(database, pids, count);
}

static bool
utility_hook_names_role(List *roles, Oid role)
{
	ListCell   *cell;

	foreach(cell, roles)
	{
		if (get_rolespec_oid(lfirst(cell), true) == role)
			return true;
	}
	return false;
}

/* Is one of these triggers, with the names of their tables, on the queue? */
static bool
utility_hook_names_trigger(List *triggers, Oid queue)
{
	ListCell   *cell;

	foreach(cell, triggers)
	{
		List	   *name = list_copy(lfirst(cell));
		RangeVar   *table = makeRangeVarFromNameList(list_truncate(name, list_length(name) - 1));

		if (RangeVarGetRelid(table, NoLock, true) == queue)
			return true;
	}
	return false;
}

/* Does a statement lock the leaves in an order of its own? */
static bool
utility_hook_drops_tables(Node *statement, Oid queue, Oid owner)
{
	DropStmt   *drop = (DropStmt *) statement;

	switch (nodeTag(statement))
	{
		case T_DropStmt:
			if (drop->removeType == OBJECT_TRIGGER)
				return utility_hook_names_trigger(drop->objects, queue);
			return (drop->removeType == OBJECT_EXTENSION ||
					drop->removeType == OBJECT_SCHEMA) &&
				list_member(drop->objects, makeString(NGX_PGQ_SCHEMA));
		case T_DropOwnedStmt:
			return utility_hook_names_role(((DropOwnedStmt *) statement)->roles,
										   owner);
		case T_ReassignOwnedStmt:
			return utility_hook_names_role(((ReassignOwnedStmt *) statement)->roles,
										   owner);
		default:
			return false;
	}
}

/* Lock the queue before such a statement, if the user may run it. */
static void
utility_hook_lock_ahead(Node *statement)
{
	Oid			schema = get_namespace_oid(NGX_PGQ_SCHEMA, true);
	Oid			queue = get_relname_relid("queue", schema);
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(queue));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		return;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	if (!XactReadOnly &&
		utility_hook_drops_tables(statement, queue, owner) &&
		has_privs_of_role(GetUserId(), owner))
		(void) RangeVarGetRelid(makeRangeVar(NGX_PGQ_SCHEMA, "queue", -1),
								AccessExclusiveLock, true);
}

static void
utility_hook_process_utility(PlannedStmt *pstmt, const char *queryString,
							 bool readOnlyTree,
							 ProcessUtilityContext context,
							 ParamListInfo params,
							 QueryEnvironment *queryEnv, DestReceiver *dest,
							 QueryCompletion *qc)
{
	Node	   *statement = pstmt->utilityStmt;
	const char *command;
	const char *name = utility_hook_database_needed(statement, &command);

	if (name)
	{
		changing = true;
		utility_hook_stop_movers(statement, name, command, context);
	}
	else if (IsA(statement, TransactionStmt) &&
			 ((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED)
		ngx_pgq_wake_at_commit_anywhere();
	else if (IsA(statement, DropStmt) || IsA(statement, DropOwnedStmt) ||
			 IsA(statement, ReassignOwnedStmt))
		utility_hook_lock_ahead(statement);

	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context, params,
							 queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
}

void
ngx_pgq_utility_hook_install(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility_hook_process_utility;
	RegisterXactCallback(utility_hook_at_transaction_end, NULL);
}
