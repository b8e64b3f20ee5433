/* SPDX-License-Identifier: PostgreSQL */
/*
 * settings.c
 *	  The settings of ngx_pgq: names, defaults, limits and checks.
 *
 * Owns the variables, which only the server sets.
 */
#include "postgres.h"

#include "utils/guc.h"
#include "utils/varlena.h"

#include "fault.h"
#include "ngx_pgq.h"

char	   *ngx_pgq_databases;
char	   *ngx_pgq_role;
int			ngx_pgq_movers;
int			ngx_pgq_batch_size;
int			ngx_pgq_idle_interval;
int			ngx_pgq_rotate_size;
int			ngx_pgq_snapshot_grace;
int			ngx_pgq_keep_posts;
int			ngx_pgq_keep_posts_for;
int			ngx_pgq_keep_unacknowledged_for;
int			ngx_pgq_keep_keys;
int			ngx_pgq_max_keys;
bool		ngx_pgq_synchronous;
int			ngx_pgq_min_free_space;

/*
 * The names in a list of databases; their case is kept.  Modifies raw.
 * Returns NIL if the list is empty or has invalid syntax.
 */
List *
ngx_pgq_settings_database_names(char *raw)
{
	List	   *names;

	if (!SplitGUCList(raw, ',', &names))
	{
		list_free(names);
		return NIL;
	}
	return names;
}

static bool
settings_check_name(const char *name, const char *kind)
{
	if (*name != '\0' && strlen(name) < NAMEDATALEN)
		return true;
	GUC_check_errdetail("A %s name has 1 to %d bytes.", kind, NAMEDATALEN - 1);
	return false;
}

static bool
settings_check_databases(char **newval, void **extra, GucSource source)
{
	char	   *raw = pstrdup(*newval);
	List	   *names;
	ListCell   *cell;

	if (!SplitGUCList(raw, ',', &names))
	{
		GUC_check_errdetail("List syntax is invalid.");
		return false;
	}
	if (list_length(names) > NGX_PGQ_DATABASES)
	{
		GUC_check_errdetail("At most %d databases can have movers.",
							NGX_PGQ_DATABASES);
		return false;
	}
	foreach(cell, names)
	{
		if (!settings_check_name(lfirst(cell), "database"))
			return false;
	}
	return true;
}

static bool
settings_check_role(char **newval, void **extra, GucSource source)
{
	return settings_check_name(*newval, "role");
}

void
ngx_pgq_settings_define(void)
{
	DefineCustomStringVariable("ngx_pgq.databases",
							   "Sets the databases whose messages are moved.",
							   "A comma-separated list of names.",
							   &ngx_pgq_databases,
							   "postgres",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   settings_check_databases, NULL, NULL);
	DefineCustomStringVariable("ngx_pgq.role",
							   "Sets the role that the movers connect as.",
							   NULL,
							   &ngx_pgq_role,
							   "ngx_pgq_mover",
							   PGC_SIGHUP, 0,
							   settings_check_role, NULL, NULL);
	DefineCustomIntVariable("ngx_pgq.movers",
							"Sets the number of movers in each database.",
							NULL,
							&ngx_pgq_movers,
							1, 0, NGX_PGQ_MOVERS,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ngx_pgq.batch_size",
							"Sets the maximum number of messages a mover moves in one transaction.",
							NULL,
							&ngx_pgq_batch_size,
							1000, 1, 100000,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ngx_pgq.idle_interval",
							"Sets the interval at which an idle mover scans the whole queue.",
							NULL,
							&ngx_pgq_idle_interval,
							1000, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ngx_pgq.rotate_size",
							"Sets the size at which a slot of the queue is full.",
							NULL,
							&ngx_pgq_rotate_size,
							8192, 64, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ngx_pgq.snapshot_grace",
							"Sets the maximum time a drained slot is kept for older snapshots.",
							NULL,
							&ngx_pgq_snapshot_grace,
							60000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ngx_pgq.keep_posts",
							"Sets the maximum number of posts; the oldest are deleted. 0 keeps all posts.",
							NULL,
							&ngx_pgq_keep_posts,
							0, 0, INT_MAX,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ngx_pgq.keep_posts_for",
							"Sets the age at which posts are deleted. 0 keeps all posts.",
							NULL,
							&ngx_pgq_keep_posts_for,
							0, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ngx_pgq.keep_unacknowledged_for",
							"Sets the maximum time for which posts are kept until subscriptions acknowledge them. 0 does not wait.",
							NULL,
							&ngx_pgq_keep_unacknowledged_for,
							0, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ngx_pgq.keep_keys",
							"Sets the time for which an idempotency key is remembered.",
							NULL,
							&ngx_pgq_keep_keys,
							24 * 60 * 60, 60, 30 * 24 * 60 * 60,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ngx_pgq.max_keys",
							"Sets the maximum number of idempotency keys.",
							"Messages with new keys are refused while the maximum is reached.",
							&ngx_pgq_max_keys,
							10000000, 1, INT_MAX,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomBoolVariable("ngx_pgq.synchronous",
							 "Refuses messages unless commits wait for a standby.",
							 NULL,
							 &ngx_pgq_synchronous,
							 false,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("ngx_pgq.min_free_space",
							"Sets the free disk space below which messages are refused. 0 disables the check.",
							NULL,
							&ngx_pgq_min_free_space,
							0, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB,
							NULL, NULL, NULL);
	NGX_PGQ_FAULT_DEFINE();
	MarkGUCPrefixReserved("ngx_pgq");
}
