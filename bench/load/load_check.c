/* SPDX-License-Identifier: PostgreSQL */

/*
 * The check: see load_check.h.
 *
 * Rows are read by COPY in binary form; each is given to the report.
 */

#include "load_check.h"

#include <endian.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>


#define LOAD_CHECK_PAUSE      (20 * LOAD_MS)
#define LOAD_CHECK_COPY_HEAD  19


static PGconn *load_check_connect(const load_settings_t *settings,
    int64_t deadline);
static PGconn *load_check_drain(const load_settings_t *settings,
    int *drained);
static int load_check_empty(PGconn *conn);
static int load_check_read(PGconn *conn, const char *query, int dead);
static int load_check_rows(const u_char *p, size_t len, int first, int dead);
static void load_check_pause(void);


int64_t
load_check_mark(const char *conninfo)
{
    PGconn    *conn;
    int64_t    mark;
    PGresult  *result;

    mark = 0;
    conn = PQconnectdb(conninfo);
    result = PQexec(conn, "select coalesce(max(id), 0) from public.posts");

    if (PQresultStatus(result) == PGRES_TUPLES_OK) {
        mark = strtoll(PQgetvalue(result, 0, 0), NULL, 10);

    } else {
        fprintf(stderr, "pgq_load: all of posts will be read: %s",
                PQerrorMessage(conn));
    }

    PQclear(result);
    PQfinish(conn);

    return mark;
}


int
load_check_run(const load_settings_t *settings, int64_t mark,
    load_report_t *report)
{
    int      bad;
    char     query[256];
    PGconn  *conn;

    if (load_report_init(settings, report) != 0) {
        fprintf(stderr, "pgq_load: out of memory\n");
        return -1;
    }

    conn = load_check_drain(settings, &report->drained);

    if (conn == NULL) {
        return -1;
    }

    snprintf(query, sizeof(query),
             "copy (select message_id, data::text from public.posts"
             " where id > %" PRId64 ") to stdout (format binary)", mark);

    bad = load_check_read(conn, query, 0) != 0
          || load_check_read(conn,
                             "copy (select message_id, data::text"
                             " from ngx_pgq.dead_letter)"
                             " to stdout (format binary)", 1)
             != 0;

    PQfinish(conn);

    if (bad) {
        return -1;
    }

    load_report_finish();

    return 0;
}


/* Repeats the attempt until the deadline: the server may be starting. */

static PGconn *
load_check_connect(const load_settings_t *settings, int64_t deadline)
{
    PGconn  *conn;

    for ( ;; ) {
        conn = PQconnectdb(settings->check);

        if (PQstatus(conn) == CONNECTION_OK) {
            return conn;
        }

        if (load_now() >= deadline) {
            fprintf(stderr, "pgq_load: %s", PQerrorMessage(conn));
            PQfinish(conn);
            return NULL;
        }

        PQfinish(conn);
        load_check_pause();
    }
}


/*
 * Waits until the queue has been empty for the time of --settle.  If it is not
 * empty at the deadline, the comparison is made nevertheless.
 */

static PGconn *
load_check_drain(const load_settings_t *settings, int *drained)
{
    int       empty;
    PGconn   *conn;
    int64_t   now, since, deadline;

    deadline = load_now() + settings->drain;
    conn = NULL;
    since = 0;

    for ( ;; ) {

        if (conn == NULL) {
            conn = load_check_connect(settings, deadline);

            if (conn == NULL) {
                return NULL;
            }
        }

        empty = load_check_empty(conn);
        now = load_now();

        if (empty == 1) {
            since = since ? since : now;

            if (now - since >= settings->settle) {
                *drained = 1;
                return conn;
            }

        } else {
            since = 0;
        }

        if (empty != -1 && now >= deadline) {
            fprintf(stderr, "pgq_load: the queue is not empty\n");
            return conn;
        }

        if (empty == -1 && (PQstatus(conn) == CONNECTION_OK
                            || now >= deadline))
        {
            fprintf(stderr, "pgq_load: %s", PQerrorMessage(conn));
            PQfinish(conn);
            return NULL;
        }

        if (empty == -1) {
            PQfinish(conn);
            conn = NULL;
        }

        load_check_pause();
    }
}


/* Returns -1 if the query failed. */

static int
load_check_empty(PGconn *conn)
{
    int        empty;
    PGresult  *result;

    empty = -1;
    result = PQexec(conn, "select exists (select from ngx_pgq.queue)");

    if (PQresultStatus(result) == PGRES_TUPLES_OK) {
        empty = (*PQgetvalue(result, 0, 0) == 'f');
    }

    PQclear(result);

    return empty;
}


static int
load_check_read(PGconn *conn, const char *query, int dead)
{
    int        len, first, bad;
    char      *data;
    PGresult  *result;

    result = PQexec(conn, query);
    bad = (PQresultStatus(result) != PGRES_COPY_OUT);
    PQclear(result);

    first = 1;

    while (!bad && (len = PQgetCopyData(conn, &data, 0)) != -1) {

        if (len == -2) {
            bad = 1;
            break;
        }

        bad = load_check_rows((u_char *) data, (size_t) len, first, dead) != 0;
        first = 0;

        PQfreemem(data);
    }

    if (!bad) {
        result = PQgetResult(conn);
        bad = (PQresultStatus(result) != PGRES_COMMAND_OK);
        PQclear(result);
    }

    if (bad) {
        fprintf(stderr, "pgq_load: could not read posts: %s\n",
                PQerrorMessage(conn));
        return -1;
    }

    PQclear(PQgetResult(conn));

    return 0;
}


/* Each piece of a binary COPY has complete rows of two columns. */

static int
load_check_rows(const u_char *p, size_t len, int first, int dead)
{
    int32_t        id_len, data_len;
    uint16_t       columns;
    const u_char  *end;

    end = p + len;

    if (first) {
        if (len < LOAD_CHECK_COPY_HEAD) {
            return -1;
        }

        p += LOAD_CHECK_COPY_HEAD;
    }

    while (end - p >= 2) {
        memcpy(&columns, p, 2);
        p += 2;

        if (columns == 0xffff) {
            return 0;
        }

        if (be16toh(columns) != 2 || end - p < 4 + 16 + 4) {
            return -1;
        }

        memcpy(&id_len, p, 4);
        memcpy(&data_len, p + 4 + 16, 4);
        id_len = (int32_t) be32toh((uint32_t) id_len);
        data_len = (int32_t) be32toh((uint32_t) data_len);

        if (id_len != 16 || data_len < 0 || data_len > end - p - 24) {
            return -1;
        }

        if (load_report_row(p + 4, p + 24, (size_t) data_len, dead) != 0) {
            return -1;
        }

        p += 24 + data_len;
    }

    return (p == end) ? 0 : -1;
}


static void
load_check_pause(void)
{
    struct timespec  ts;

    ts.tv_sec = 0;
    ts.tv_nsec = LOAD_CHECK_PAUSE;

    nanosleep(&ts, NULL);
}
