/* SPDX-License-Identifier: PostgreSQL */
/*
 * key_table.h
 *	  Declarations for key_table.c and key_leaf.c.
 */
#ifndef NGX_PGQ_KEY_TABLE_H
#define NGX_PGQ_KEY_TABLE_H

#include "common/sha2.h"
#include "executor/tuptable.h"

#include "ngx_pgq.h"

#define NGX_PGQ_KEY_LEAVES	4	/* number of leaves of the table of keys */
#define NGX_PGQ_KEYS		64	/* maximum number of keys in a batch */
#define NGX_PGQ_KEY_LEN		1024	/* maximum bytes of a key with its scope */

/* A row has 120 bytes, and its line pointer 4. */
#define NGX_PGQ_KEY_ROWS_PER_PAGE	(BLCKSZ / 124)

/* What the table has for a key. */
typedef enum NgxPgqKeyState
{
	NGX_PGQ_KEY_NEW,			/* no row: the key is taken now */
	NGX_PGQ_KEY_OURS,			/* the key was taken for this message id */
	NGX_PGQ_KEY_REPLAY,			/* the same message has it, by another id */
	NGX_PGQ_KEY_OTHER,			/* the key was taken for another message */
	NGX_PGQ_KEY_BUSY,			/* another transaction may be taking the key */
	NGX_PGQ_KEY_FULL			/* no row, and ngx_pgq.max_keys is reached */
} NgxPgqKeyState;

/* A key; the caller sets all fields but the last two. */
typedef struct NgxPgqKey
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];	/* SHA-256 of the key */
	uint8		fingerprint[PG_SHA256_DIGEST_LENGTH];	/* of the messages */
	pg_uuid_t	message_id;
	NgxPgqKeyState state;
	pg_uuid_t	known_id;		/* if REPLAY: the id it was taken for */
} NgxPgqKey;

/* key_table.c */
extern void ngx_pgq_key_table_take(NgxPgqKey *keys, int count, bool retry);
extern void ngx_pgq_key_table_recall(NgxPgqKey *keys, int count);

/* key_leaf.c */
extern int	ngx_pgq_key_leaf_at(TimestampTz at);
extern Relation ngx_pgq_key_leaf_index(Relation leaf, AttrNumber attnum);
extern Datum ngx_pgq_key_leaf_value(TupleTableSlot *row, AttrNumber attnum);
extern bool ngx_pgq_key_leaf_due(void);
extern void ngx_pgq_key_leaf_tidy(NgxPgqDatabase *database);
extern void ngx_pgq_key_leaf_committed(void);

#endif							/* NGX_PGQ_KEY_TABLE_H */
