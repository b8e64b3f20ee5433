/* SPDX-License-Identifier: PostgreSQL */

/*
 * pgq_wake: measures the time from a commit until the message is a post, for
 * single messages in an idle queue.
 *
 * One connection enqueues; "commit" is the time from sending the call to its
 * answer.  Another one finds the post, in one of two ways; "after" is measured
 * from the answer, so that work of the mover before it is not included:
 *
 *     polled  it queries repeatedly after the answer; each query takes some
 *             50 us, which are included
 *     told    it listens to ngx_pgq_posts; the notification's time is included,
 *             and it may arrive before the answer of the commit
 *
 * Prints lines "result NAME VALUE", in ms.  Exit status: 0 success, 2 error.
 */

#define _GNU_SOURCE

#include "load.h"
#include "feed_batch.h"

#include <libpq-fe.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>


#define WAKE_PATIENCE  (10 * LOAD_SECOND)
#define WAKE_PAUSE     (5 * LOAD_MS)        /* between two messages; */
#define WAKE_PAUSE_TO  (25 * LOAD_MS)       /* at random up to this */


static PGconn *wake_connect(const char *conninfo);
static void wake_fail(const char *what, PGconn *conn);
static int64_t wake_query(PGconn *conn, const char *sql);
static int64_t wake_commit(PGconn *conn);
static int64_t wake_polled(void);
static int64_t wake_told(void);
static void wake_rest(void);
static int wake_compare(const void *a, const void *b);
static void wake_print(const char *name, double *ms, int count);


static PGconn        *wake_producer;
static PGconn        *wake_reader;
static feed_batch_t   wake_batch;
static int64_t        wake_sent;            /* when the call was sent */
static int64_t        wake_answered;        /* when it was answered */
static int64_t        wake_last;            /* id of the newest post seen */


int
main(int argc, char **argv)
{
    int       i, told, count;
    double   *commit, *after;
    int64_t   seen;

    if (argc != 4 || (count = atoi(argv[2])) < 1
        || (strcmp(argv[1], "told") != 0 && strcmp(argv[1], "polled") != 0))
    {
        fprintf(stderr, "usage: pgq_wake told|polled MESSAGES CONNINFO\n");
        return 2;
    }

    told = strcmp(argv[1], "told") == 0;
    commit = calloc((size_t) count, sizeof(double));
    after = calloc((size_t) count, sizeof(double));

    if (commit == NULL || after == NULL) {
        return 2;
    }

    prctl(PR_SET_TIMERSLACK, 1);
    wake_producer = wake_connect(argv[3]);
    wake_reader = wake_connect(argv[3]);
    feed_batch_init(&wake_batch, 1, 100, FEED_TEXT, (uint64_t) load_now());

    PQclear(PQprepare(wake_producer, "enqueue",
                      "select ordinal from"
                      " ngx_pgq.enqueue($1::uuid, $2::uuid[], $3::text[])",
                      0, NULL));
    PQclear(PQprepare(wake_reader, "look",
                      "select id from public.posts where id > $1 limit 1",
                      0, NULL));

    if (told) {
        PQclear(PQexec(wake_reader, "listen ngx_pgq_posts"));
    }

    wake_last = wake_query(wake_reader,
                           "select coalesce(max(id), 0) from public.posts");

    /* the first ones warm up the caches */

    for (i = -20; i < count; i++) {
        wake_rest();
        feed_batch_fill(&wake_batch, (uint64_t) (i + 20));
        seen = told ? wake_told() : wake_polled();

        if (i >= 0) {
            commit[i] = (double) (wake_answered - wake_sent) / LOAD_MS;
            after[i] = (double) (seen - wake_answered) / LOAD_MS;
        }
    }

    wake_print("commit", commit, count);
    wake_print("after", after, count);

    PQfinish(wake_producer);
    PQfinish(wake_reader);
    free(commit);
    free(after);

    return 0;
}


static PGconn *
wake_connect(const char *conninfo)
{
    PGconn  *conn;

    conn = PQconnectdb(conninfo);

    if (PQstatus(conn) != CONNECTION_OK) {
        wake_fail("connecting", conn);
    }

    return conn;
}


static void
wake_fail(const char *what, PGconn *conn)
{
    fprintf(stderr, "pgq_wake: %s: %s\n", what,
            conn ? PQerrorMessage(conn) : "not found in time");
    exit(2);
}


/* Returns the number that a query returns, -1 without a row. */

static int64_t
wake_query(PGconn *conn, const char *sql)
{
    char         value[32];
    int64_t      number;
    PGresult    *result;
    const char  *values[1];

    values[0] = value;
    snprintf(value, sizeof(value), "%lld", (long long) wake_last);

    result = sql ? PQexec(conn, sql)
                 : PQexecPrepared(conn, "look", 1, values, NULL, NULL, 0);

    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        wake_fail("asking", conn);
    }

    number = PQntuples(result) ? atoll(PQgetvalue(result, 0, 0)) : -1;
    PQclear(result);

    return number;
}


/* Reads the answer of the call, and waits for it if necessary. */

static int64_t
wake_commit(PGconn *conn)
{
    int64_t    now;
    PGresult  *result;

    result = PQgetResult(conn);
    now = load_now();

    if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) > 0) {
        wake_fail("enqueuing", conn);
    }

    PQclear(result);

    while ((result = PQgetResult(conn)) != NULL) {
        PQclear(result);
    }

    return now;
}


static void
wake_send(void)
{
    wake_sent = load_now();

    if (!PQsendQueryPrepared(wake_producer, "enqueue", 3, wake_batch.values,
                             wake_batch.lengths, wake_batch.formats, 1)
        || PQflush(wake_producer) != 0)
    {
        wake_fail("sending", wake_producer);
    }
}


/* Returns when the post was seen. */

static int64_t
wake_polled(void)
{
    int64_t  id;

    wake_send();
    wake_answered = wake_commit(wake_producer);

    do {
        id = wake_query(wake_reader, NULL);

        if (load_now() - wake_answered > WAKE_PATIENCE) {
            wake_fail("looking for the post", NULL);
        }

    } while (id == -1);

    wake_last = id;

    return load_now();
}


/* Returns when the notification arrived, and checks that the post is there. */

static int64_t
wake_told(void)
{
    int64_t         told;
    PGnotify       *notify;
    struct pollfd   fds[2];

    wake_send();
    wake_answered = told = 0;

    fds[0].fd = PQsocket(wake_producer);
    fds[1].fd = PQsocket(wake_reader);
    fds[1].events = POLLIN;

    while (!wake_answered || !told) {
        fds[0].events = wake_answered ? 0 : POLLIN;

        if (poll(fds, 2, WAKE_PATIENCE / LOAD_MS) < 1) {
            wake_fail("waiting for the notification", NULL);
        }

        if (fds[1].revents && !PQconsumeInput(wake_reader)) {
            wake_fail("listening", wake_reader);
        }

        while ((notify = PQnotifies(wake_reader)) != NULL) {
            told = load_now();
            PQfreemem(notify);
        }

        if (fds[0].revents && !wake_answered) {
            if (!PQconsumeInput(wake_producer)) {
                wake_fail("enqueuing", wake_producer);
            }

            if (!PQisBusy(wake_producer)) {
                wake_answered = wake_commit(wake_producer);
            }
        }
    }

    wake_last = wake_query(wake_reader, NULL);

    if (wake_last == -1) {
        wake_fail("reading the post of a notification", NULL);
    }

    return told;
}


/* Sleeps for longer than a mover's pause after a batch. */

static void
wake_rest(void)
{
    int64_t          pause;
    struct timespec  ts;

    pause = WAKE_PAUSE + (int64_t) (drand48() * (WAKE_PAUSE_TO - WAKE_PAUSE));
    ts.tv_sec = 0;
    ts.tv_nsec = pause;
    nanosleep(&ts, NULL);
}


static int
wake_compare(const void *a, const void *b)
{
    double  x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}


static void
wake_print(const char *name, double *ms, int count)
{
    qsort(ms, (size_t) count, sizeof(double), wake_compare);

    printf("result %s_p50_ms %.3f\n", name, ms[count / 2]);
    printf("result %s_p99_ms %.3f\n", name, ms[(size_t) (count * 0.99)]);
    printf("result %s_max_ms %.3f\n", name, ms[count - 1]);
}
