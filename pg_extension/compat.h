/* SPDX-License-Identifier: PostgreSQL */
/*
 * compat.h
 *	  Differences between PostgreSQL 15 and 18.
 *
 * Only this file checks PG_VERSION_NUM.
 */
#ifndef NGX_PGQ_COMPAT_H
#define NGX_PGQ_COMPAT_H

#include "access/genam.h"
#include "catalog/dependency.h"
#include "catalog/pg_database.h"
#include "common/jsonapi.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/rel.h"
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM < 150000
#error "ngx_pgq needs PostgreSQL 15 or newer"
#endif

/* The argument of GetPGProcByNumber() for this process. */
static inline int
ngx_pgq_my_proc_number(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProcNumber;
#else
	return MyProc->pgprocno;
#endif
}

/* A named wait event; before PostgreSQL 17 its name is Extension. */
static inline uint32
ngx_pgq_wait_event(const char *name)
{
#if PG_VERSION_NUM >= 170000
	return WaitEventExtensionNew(name);
#else
	(void) name;
	return PG_WAIT_EXTENSION;
#endif
}

/* Does the current user own this database? */
static inline bool
ngx_pgq_owns_database(Oid database)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, GetUserId());
#else
	return pg_database_ownercheck(database, GetUserId());
#endif
}

/* The sequence behind an identity column. */
static inline Oid
ngx_pgq_identity_sequence(Relation rel, AttrNumber attnum)
{
#if PG_VERSION_NUM >= 170000
	return getIdentitySequence(rel, attnum, true);
#else
	return getIdentitySequence(RelationGetRelid(rel), attnum, true);
#endif
}

/* Insert index entries for a row; raises if a key is duplicate. */
static inline void
ngx_pgq_insert_index_tuples(ResultRelInfo *target, TupleTableSlot *slot,
							EState *estate)
{
#if PG_VERSION_NUM >= 160000
	ExecInsertIndexTuples(target, slot, estate, false, false, NULL, NIL, false);
#else
	ExecInsertIndexTuples(target, slot, estate, false, false, NULL, NIL);
#endif
}

/* The index of the primary key, which may be deferrable. */
static inline Oid
ngx_pgq_primary_key(Relation rel)
{
#if PG_VERSION_NUM >= 180000
	return RelationGetPrimaryKeyIndex(rel, true);
#else
	return RelationGetPrimaryKeyIndex(rel);
#endif
}

/* A scan of an index by this number of keys. */
static inline IndexScanDesc
ngx_pgq_index_scan(Relation rel, Relation index, Snapshot snapshot, int keys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(rel, index, snapshot, NULL, keys, 0);
#else
	return index_beginscan(rel, index, snapshot, keys, 0);
#endif
}

/* A lexer that unescapes strings; the text need not end in a NUL. */
static inline JsonLexContext *
ngx_pgq_json_lexer(char *json, int length)
{
#if PG_VERSION_NUM >= 170000
	return makeJsonLexContextCstringLen(NULL, json, length,
										GetDatabaseEncoding(), true);
#else
	return makeJsonLexContextCstringLen(json, length,
										GetDatabaseEncoding(), true);
#endif
}

/* Can an escaped character of valid JSON not be converted? */
static inline bool
ngx_pgq_json_untranslatable(JsonParseErrorType error)
{
#if PG_VERSION_NUM >= 160000
	if (error == JSON_UNICODE_UNTRANSLATABLE)
		return true;
#endif
	return error == JSON_UNICODE_CODE_POINT_ZERO ||
		error == JSON_UNICODE_HIGH_ESCAPE;
}

#endif							/* NGX_PGQ_COMPAT_H */
