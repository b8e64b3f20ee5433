/* SPDX-License-Identifier: PostgreSQL */
/*
 * key_table.h
 *	  The table of idempotency keys: key_table.c and key_leaf.c.
 */
#ifndef NGX_PGQ_KEY_TABLE_H
#define NGX_PGQ_KEY_TABLE_H

#include "common/sha2.h"
#include "executor/tuptable.h"

#include "ngx_pgq.h"

#define NGX_PGQ_KEY_SLOTS	4	/* leaves of the table of keys */
#define NGX_PGQ_KEYS		64	/* maximum in a batch */
#define NGX_PGQ_KEY_LEN		1024	/* maximum in bytes, with scope */

/* rows have 120 bytes, line pointers 4 */
#define NGX_PGQ_KEY_ROWS_PER_PAGE	(BLCKSZ / 124)

/* What the table has for a key. */
typedef enum NgxPgqKeyState
{
	NGX_PGQ_KEY_NEW,			/* no row: it is taken now */
	NGX_PGQ_KEY_OURS,			/* taken for this message id */
	NGX_PGQ_KEY_REPLAY,			/* taken for the same message, another id */
	NGX_PGQ_KEY_OTHER,			/* taken for another message */
	NGX_PGQ_KEY_BUSY,			/* another transaction may be taking it */
	NGX_PGQ_KEY_FULL			/* no row, and the maximum is reached */
} NgxPgqKeyState;

/* A key; the caller sets all fields but the last two. */
typedef struct NgxPgqKey
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];	/* of the key */
	uint8		fingerprint[PG_SHA256_DIGEST_LENGTH];	/* of the messages */
	pg_uuid_t	message_id;
	NgxPgqKeyState state;
	pg_uuid_t	known_id;		/* REPLAY: the id it was taken for */
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
