/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns a connection to PostgreSQL, and the messages of the next transaction,
 * which COPY inserts into the column data of a table.
 */

#ifndef ROWS_H
#define ROWS_H


#include <stddef.h>


/* Returns -1 and reports the error if PostgreSQL is not there. */

int rows_open(const char *conninfo, const char *table);

void rows_close(void);

void rows_add(const void *data, size_t size);

/* Returns 0 when all added messages are committed; nothing is added then. */

int rows_commit(void);


#endif /* ROWS_H */
