/* SPDX-License-Identifier: PostgreSQL */

/*
 * Loaded into nginx by test/module/077_unsent.t.
 *
 * PQsendQueryPrepared() returns 0 for a statement with a parameter that
 * contains MARK, as it does without memory, and does not change the connection.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define MARK "cannot be sent"

struct pg_conn;

typedef int send_prepared(struct pg_conn *conn, const char *name, int n,
    const char *const *values, const int *lengths, const int *formats,
    int format);

send_prepared PQsendQueryPrepared;


int
PQsendQueryPrepared(struct pg_conn *conn, const char *name, int n,
    const char *const *values, const int *lengths, const int *formats,
    int format)
{
    int             i;
    send_prepared  *next;

    for (i = 0; i < n; i++) {
        if (values[i] && memmem(values[i], lengths[i], MARK, strlen(MARK))) {
            return 0;
        }
    }

    next = (send_prepared *) dlsym(RTLD_NEXT, "PQsendQueryPrepared");

    if (next == NULL) {
        abort();
    }

    return next(conn, name, n, values, lengths, formats, format);
}
