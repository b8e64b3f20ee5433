/* SPDX-License-Identifier: PostgreSQL */
/*
 * key_table.h
 *	  What the table of idempotency keys, key_table.c and key_leaf.c, offers.
 */
#ifndef NGX_PGQ_KEY_TABLE_H
#define NGX_PGQ_KEY_TABLE_H

#include "common/sha2.h"
#include "executor/tuptable.h"

#include "ngx_pgq.h"

#define NGX_PGQ_KEY_SLOTS	4	/* leaves of the table of keys */
#define NGX_PGQ_KEYS		64	/* most keys of a batch */
#define NGX_PGQ_KEY_LEN		1024	/* most bytes of a key, with its scope */

/* What is known of a key. */
typedef enum NgxPgqKeyState
{
	NGX_PGQ_KEY_NEW,			/* nothing: now it is taken */
	NGX_PGQ_KEY_OURS,			/* it was taken for this very message id */
	NGX_PGQ_KEY_REPLAY,			/* for the same message under another id */
	NGX_PGQ_KEY_OTHER,			/* for another message */
	NGX_PGQ_KEY_BUSY,			/* another transaction may be taking it */
	NGX_PGQ_KEY_FULL			/* nothing, and there are too many others */
} NgxPgqKeyState;

/* A key in our hands; the caller fills in all but the last two. */
typedef struct NgxPgqKey
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];	/* of the key as given */
	uint8		fingerprint[PG_SHA256_DIGEST_LENGTH];
	pg_uuid_t	message_id;
	NgxPgqKeyState state;
	pg_uuid_t	known_id;		/* REPLAY: the id it was taken for */
} NgxPgqKey;

/* key_table.c */
extern void ngx_pgq_key_table_take(NgxPgqKey *keys, int count, bool freed);
extern void ngx_pgq_key_table_recall(NgxPgqKey *keys, int count);

/* key_leaf.c */
extern int	ngx_pgq_key_leaf_at(TimestampTz at);
extern Relation ngx_pgq_key_leaf_index(Relation leaf, AttrNumber place);
extern Datum ngx_pgq_key_leaf_value(TupleTableSlot *row, AttrNumber place);
extern int64 ngx_pgq_key_leaf_rows(int64 pages);
extern bool ngx_pgq_key_leaf_due(void);
extern void ngx_pgq_key_leaf_tidy(NgxPgqDatabase *database);
extern void ngx_pgq_key_leaf_keep(void);

#endif							/* NGX_PGQ_KEY_TABLE_H */
