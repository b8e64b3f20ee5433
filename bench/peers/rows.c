/* SPDX-License-Identifier: PostgreSQL */

/*
 * Rows for PostgreSQL: see rows.h.
 *
 * In the binary form of COPY a header of 19 bytes precedes the rows.  A row is
 * the number of its columns, and the length and the bytes of each; the number
 * -1 ends the rows.
 */

#include "rows.h"

#include <endian.h>
#include <libpq-fe.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define ROWS_HEADER  "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0"     /* and a 0 */
#define ROWS_HEADER_SIZE  19


static PGconn *conn;
static char copy[256], *buffer;
static size_t used, allocated;


static void rows_append(const void *data, size_t size);
static int rows_fail(void);


int
rows_open(const char *conninfo, const char *table)
{
    conn = PQconnectdb(conninfo);
    snprintf(copy, sizeof(copy),
             "copy %s (data) from stdin (format binary)", table);

    used = 0;
    rows_append(ROWS_HEADER, ROWS_HEADER_SIZE);

    return (PQstatus(conn) == CONNECTION_OK) ? 0 : rows_fail();
}


void
rows_close(void)
{
    PQfinish(conn);
    conn = NULL;
}


void
rows_add(const void *data, size_t size)
{
    uint16_t  columns;
    uint32_t  length;

    columns = htobe16(1);
    length = htobe32((uint32_t) size);

    rows_append(&columns, sizeof(columns));
    rows_append(&length, sizeof(length));
    rows_append(data, size);
}


int
rows_commit(void)
{
    int        ok;
    PGresult  *result;

    if (used == ROWS_HEADER_SIZE) {
        return 0;
    }

    rows_append("\377\377", 2);

    result = PQexec(conn, copy);
    ok = PQresultStatus(result) == PGRES_COPY_IN
         && PQputCopyData(conn, buffer, (int) used) == 1
         && PQputCopyEnd(conn, NULL) == 1;
    PQclear(result);

    while (ok && (result = PQgetResult(conn)) != NULL) {
        ok = PQresultStatus(result) == PGRES_COMMAND_OK;
        PQclear(result);
    }

    used = ROWS_HEADER_SIZE;

    return ok ? 0 : rows_fail();
}


static void
rows_append(const void *data, size_t size)
{
    char  *p;

    if (used + size > allocated) {
        allocated = 2 * (used + size);
        p = realloc(buffer, allocated);

        if (p == NULL) {
            perror("realloc");
            exit(1);
        }

        buffer = p;
    }

    memcpy(buffer + used, data, size);
    used += size;
}


static int
rows_fail(void)
{
    fprintf(stderr, "%s", PQerrorMessage(conn));

    return -1;
}
