/* SPDX-License-Identifier: PostgreSQL */

/*
 * Watching posts: see load_visible.h.
 *
 * A row counts as seen when the query is answered: the time includes the pause
 * and the query, and is never too early.
 */

#include "load_visible.h"
#include "load_record.h"

#include <endian.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>


#define LOAD_VISIBLE_PAUSE  (LOAD_MS / 2)
#define LOAD_VISIBLE_IDLE  LOAD_SECOND


typedef struct {
    u_char   id[16];
    int64_t  at;
} load_sight_t;


static void *load_visible_watch(void *data);
static int load_visible_look(PGconn *conn);
static int load_visible_note(PGresult *result);
static int load_visible_prepare(PGconn *conn);


static pthread_t       load_thread;
static PGconn         *load_conn;
static uint64_t        load_last;           /* id, in network order */
static load_sight_t   *load_sights;
static size_t          load_nsights;
static size_t          load_sights_size;
static _Atomic int64_t load_newest;         /* when the last row was seen */
static atomic_int      load_stop;


int
load_visible_start(const char *conninfo)
{
    PGresult  *result;

    load_conn = PQconnectdb(conninfo);
    result = PQexec(load_conn,
                    "select coalesce(max(id), 0) from public.posts");

    if (PQresultStatus(result) != PGRES_TUPLES_OK
        || load_visible_prepare(load_conn) != 0)
    {
        fprintf(stderr, "pgq_load: %s", PQerrorMessage(load_conn));
        PQclear(result);
        PQfinish(load_conn);
        return -1;
    }

    load_last = htobe64(strtoull(PQgetvalue(result, 0, 0), NULL, 10));
    PQclear(result);

    if (pthread_create(&load_thread, NULL, load_visible_watch, NULL) != 0) {
        fprintf(stderr, "pgq_load: could not create a thread\n");
        PQfinish(load_conn);
        return -1;
    }

    return 0;
}


int
load_visible_stop(int64_t began, int64_t drain, load_hist_t *hist)
{
    size_t           i;
    int64_t          deadline;
    uint64_t         n, again;
    struct timespec  ts;

    ts.tv_sec = 0;
    ts.tv_nsec = 20 * LOAD_MS;

    atomic_store(&load_newest, load_now());
    deadline = load_now() + drain;

    while (load_now() < deadline
           && load_now() - atomic_load(&load_newest) < LOAD_VISIBLE_IDLE)
    {
        nanosleep(&ts, NULL);
    }

    atomic_store(&load_stop, 1);
    pthread_join(load_thread, NULL);
    PQfinish(load_conn);

    load_hist_reset(hist);

    if (load_record_index(&again) != 0) {
        return -1;
    }

    for (i = 0; i < load_nsights; i++) {
        n = load_record_find(load_sights[i].id);

        if (n) {
            load_hist_add(hist, load_sights[i].at - began
                          - (int64_t) load_record_entry(n)->begun * 1000);
        }
    }

    return 0;
}


static void *
load_visible_watch(void *data)
{
    int              seen;
    struct timespec  ts;

    (void) data;

    ts.tv_sec = 0;
    ts.tv_nsec = LOAD_VISIBLE_PAUSE;

    while (!atomic_load(&load_stop)) {
        seen = load_visible_look(load_conn);

        if (seen > 0) {
            atomic_store(&load_newest, load_now());

        } else if (seen == -1) {
            PQreset(load_conn);
            (void) load_visible_prepare(load_conn);
        }

        nanosleep(&ts, NULL);
    }

    return NULL;
}


/* Returns the number of new rows, -1 if the connection is lost. */

static int
load_visible_look(PGconn *conn)
{
    int          rows, len, format;
    PGresult    *result;
    const char  *value;

    value = (const char *) &load_last;
    len = sizeof(load_last);
    format = 1;

    result = PQexecPrepared(conn, "look", 1, &value, &len, &format, 1);
    rows = -1;

    if (PQresultStatus(result) == PGRES_TUPLES_OK) {
        rows = load_visible_note(result);
    }

    PQclear(result);

    return rows;
}


static int
load_visible_note(PGresult *result)
{
    int            i, rows;
    size_t         size;
    int64_t        now;
    load_sight_t  *sights;

    now = load_now();
    rows = PQntuples(result);

    if (load_nsights + (size_t) rows > load_sights_size) {
        size = (load_nsights + (size_t) rows) * 2;
        sights = realloc(load_sights, size * sizeof(load_sight_t));

        if (sights == NULL) {
            return 0;
        }

        load_sights = sights;
        load_sights_size = size;
    }

    for (i = 0; i < rows; i++) {
        memcpy(&load_last, PQgetvalue(result, i, 0), 8);
        memcpy(load_sights[load_nsights].id, PQgetvalue(result, i, 1), 16);
        load_sights[load_nsights++].at = now;
    }

    return rows;
}


static int
load_visible_prepare(PGconn *conn)
{
    int        bad;
    PGresult  *result;

    result = PQprepare(conn, "look", "select id, message_id from public.posts"
                                     " where id > $1 order by id", 0, NULL);
    bad = (PQresultStatus(result) != PGRES_COMMAND_OK);
    PQclear(result);

    return bad ? -1 : 0;
}
