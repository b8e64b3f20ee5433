/* SPDX-License-Identifier: PostgreSQL */

/*
 * pgq_feed: enqueues messages at a steady rate, as nginx does, and prints how
 * many were enqueued and how many were moved.  It does nothing else, as it
 * shares the machine with the server.
 *
 * With --naive it uses a plain table, naive_queue, and moves the messages
 * itself by the usual DELETE ... SKIP LOCKED.
 *
 * - Each batch is due at a fixed time: after a stall of the server all overdue
 *   batches are sent at once.  At the end of the time, batches that are more
 *   than a second late are dropped.
 * - "moved" is the result of the statement --ask less its result at the start.
 *   "fed" is read after it, so that their difference is too small by at most
 *   the calls in flight.
 *
 * Prints "began SECONDS", lines "sample SECONDS FED MOVED LATE_MS BUSY …" (the
 * monotonic clock; the largest delay of a batch since the last sample; the
 * share of time that connections were in a call; further columns of --ask), and
 * "result NAME VALUE" lines.  Exit status: 0 success, 2 error.
 */

#define _GNU_SOURCE

#include "load.h"
#include "load_hist.h"
#include "feed_batch.h"

#include <getopt.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>


#define FEED_CONNECTIONS_MAX  32

#define FEED_ENQUEUE                                                          \
    "select ordinal from ngx_pgq.enqueue($1::uuid, $2::uuid[], $3::text[])"

#define FEED_NAIVE_INSERT                                                     \
    "insert into naive_queue (message_id, data)"                              \
    " select id, data from unnest($1::uuid[], $2::json[]) as m(id, data)"

#define FEED_NAIVE_MOVE                                                       \
    "with gone as (delete from naive_queue where id in"                       \
    " (select id from naive_queue order by id limit 500"                      \
    " for update skip locked) returning id, at, message_id, data)"            \
    " insert into naive_posts (id, at, message_id, data)"                     \
    " select id, at, message_id, data from gone"

/*
 * Forces the index scan: for a table that is empty at planning time, the
 * planner would choose a sequential scan.
 */

#define FEED_NAIVE_PLAN                                                       \
    "set enable_seqscan = off; set enable_sort = off;"                        \
    " set enable_hashjoin = off; set enable_mergejoin = off"


typedef struct {
    const char  *conninfo;
    const char  *ask;
    double       rate;          /* 0: as fast as possible */
    double       seconds;       /* 0: until all messages are fed */
    uint64_t     messages;      /* 0: until the time is over; to be fed */
    uint64_t     expect;        /* already in the queue */
    uint64_t     window;        /* maximum of messages not moved; 0: any */
    unsigned     connections;
    unsigned     batch;
    unsigned     size;
    int64_t      every;         /* between two samples */
    int          feed;
    int          naive;         /* to naive_queue, */
    int          move;          /* and from there to naive_posts */
    int          wait;          /* until all are moved */
} feed_settings_t;


static int feed_settings_read(int argc, char **argv);
static PGconn *feed_connect(void);
static void feed_check(PGconn *conn, PGresult *result, const char *what);
static void *feed_work(void *data);
static void feed_call(PGconn *conn, feed_batch_t *batch, uint64_t number);
static int feed_due(uint64_t number);
static void *feed_naive(void *data);
static uint64_t feed_ask(PGconn *conn, char *more, size_t room);
static void feed_watch(PGconn *conn);
static void feed_sleep_until(int64_t when);
static void feed_stop(int number);
static void feed_report(void);


static feed_settings_t  feed = {
    .connections = 4, .batch = 20, .size = 100, .every = 100 * LOAD_MS,
    .feed = 1
};

static int64_t           feed_began;
static int64_t           feed_over;         /* when the last call ended */
static atomic_int        feed_stopping;
static atomic_uint       feed_working;      /* connections still feeding */
static _Atomic uint64_t  feed_next;         /* the next batch */
static _Atomic uint64_t  feed_fed;          /* messages committed */
static _Atomic uint64_t  feed_moved;
static _Atomic int64_t   feed_late;         /* since the last sample */
static _Atomic int64_t   feed_busy;         /* time in calls */
static int64_t           feed_late_max;
static pthread_mutex_t   feed_lock = PTHREAD_MUTEX_INITIALIZER;
static load_hist_t       feed_calls;        /* feed_lock */


int
main(int argc, char **argv)
{
    unsigned   i;
    PGconn    *conn;
    pthread_t  threads[FEED_CONNECTIONS_MAX], mover;

    if (feed_settings_read(argc, argv) != 0) {
        return 2;
    }

    setvbuf(stdout, NULL, _IOLBF, 0);
    prctl(PR_SET_TIMERSLACK, 1);
    signal(SIGTERM, feed_stop);
    signal(SIGINT, feed_stop);

    conn = feed_connect();
    load_hist_reset(&feed_calls);
    feed_began = load_now() + 100 * LOAD_MS;

    if (feed.feed) {
        atomic_store(&feed_working, feed.connections);

        for (i = 0; i < feed.connections; i++) {
            if (pthread_create(&threads[i], NULL, feed_work,
                               (void *) (uintptr_t) i)
                != 0)
            {
                fprintf(stderr, "pgq_feed: could not create a thread\n");
                return 2;
            }
        }
    }

    if (feed.move
        && pthread_create(&mover, NULL, feed_naive, NULL) != 0)
    {
        fprintf(stderr, "pgq_feed: could not create a thread\n");
        return 2;
    }

    feed_watch(conn);
    feed_stop(0);

    for (i = 0; feed.feed && i < feed.connections; i++) {
        pthread_join(threads[i], NULL);
    }

    if (feed.move) {
        pthread_join(mover, NULL);
    }

    PQfinish(conn);
    feed_report();

    return 0;
}


static int
feed_settings_read(int argc, char **argv)
{
    int  option;

    static const struct option  options[] = {
        { "rate",        required_argument, NULL, 'r' },
        { "seconds",     required_argument, NULL, 's' },
        { "messages",    required_argument, NULL, 'm' },
        { "expect",      required_argument, NULL, 'x' },
        { "window",      required_argument, NULL, 'w' },
        { "connections", required_argument, NULL, 'c' },
        { "batch",       required_argument, NULL, 'b' },
        { "size",        required_argument, NULL, 'z' },
        { "every",       required_argument, NULL, 'e' },
        { "ask",         required_argument, NULL, 'a' },
        { "naive",       no_argument,       NULL, 'n' },
        { "naive-fill",  no_argument,       NULL, 'f' },
        { "wait",        no_argument,       NULL, 'W' },
        { NULL,          0,                 NULL, 0   }
    };

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'r': feed.rate = atof(optarg); break;
        case 's': feed.seconds = atof(optarg); break;
        case 'm': feed.messages = strtoull(optarg, NULL, 10); break;
        case 'x': feed.expect = strtoull(optarg, NULL, 10); break;
        case 'w': feed.window = strtoull(optarg, NULL, 10); break;
        case 'c': feed.connections = (unsigned) atoi(optarg); break;
        case 'b': feed.batch = (unsigned) atoi(optarg); break;
        case 'z': feed.size = (unsigned) atoi(optarg); break;
        case 'e': feed.every = atoi(optarg) * LOAD_MS; break;
        case 'a': feed.ask = optarg; break;
        case 'n': feed.naive = feed.move = 1; break;
        case 'f': feed.naive = 1; break;
        case 'W': feed.wait = 1; break;
        default: argc = -1; break;
        }
    }

    if (argc != optind + 1 || feed.connections < 1 || feed.batch < 1
        || feed.connections > FEED_CONNECTIONS_MAX || feed.size < 40
        || feed.every < LOAD_MS || (feed.ask == NULL && !feed.naive))
    {
        fprintf(stderr,
                "usage: pgq_feed [--rate N] [--seconds N] [--messages N]"
                " [--window N] [--wait] [--expect N]\n"
                "                [--connections 4] [--batch 20] [--size 100]"
                " [--every MS] [--naive | --naive-fill]\n"
                "                --ask SQL CONNINFO\n");
        return -1;
    }

    feed.conninfo = argv[optind];
    feed.feed = feed.messages || feed.seconds > 0;

    return 0;
}


static PGconn *
feed_connect(void)
{
    PGconn  *conn;

    conn = PQconnectdb(feed.conninfo);

    if (PQstatus(conn) != CONNECTION_OK) {
        fprintf(stderr, "pgq_feed: %s", PQerrorMessage(conn));
        exit(2);
    }

    return conn;
}


/* Exits on an error: the measurement would be invalid. */

static void
feed_check(PGconn *conn, PGresult *result, const char *what)
{
    ExecStatusType  status;

    status = PQresultStatus(result);

    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        fprintf(stderr, "pgq_feed: %s: %s", what, PQerrorMessage(conn));
        exit(2);
    }
}


/* The thread of one connection. */

static void *
feed_work(void *data)
{
    PGconn        *conn;
    uint64_t       number;
    feed_batch_t   batch;

    conn = feed_connect();
    feed_batch_init(&batch, feed.batch, feed.size,
                    feed.naive ? FEED_JSON : FEED_TEXT,
                    (uint64_t) load_now() + (uintptr_t) data);

    PQclear(PQprepare(conn, "feed",
                      feed.naive ? FEED_NAIVE_INSERT : FEED_ENQUEUE, 0, NULL));

    for ( ;; ) {
        number = atomic_fetch_add(&feed_next, 1) * feed.batch;

        if (!feed_due(number)) {
            break;
        }

        feed_call(conn, &batch, number);
    }

    PQfinish(conn);
    atomic_fetch_sub(&feed_working, 1);

    return NULL;
}


/* Waits until the batch is due; false if there are no more batches. */

static int
feed_due(uint64_t number)
{
    int64_t  due, late, seen;

    due = feed_began;

    if (feed.rate > 0) {
        due += (int64_t) ((double) number / feed.rate * LOAD_SECOND);
    }

    if ((feed.messages && number >= feed.messages)
        || (feed.seconds > 0 && feed.rate > 0
            && due - feed_began >= (int64_t) (feed.seconds * LOAD_SECOND)))
    {
        return 0;
    }

    feed_sleep_until(due);

    while (feed.window && !atomic_load(&feed_stopping)
           && number > atomic_load(&feed_moved) + feed.window)
    {
        feed_sleep_until(load_now() + LOAD_MS / 4);
    }

    if (atomic_load(&feed_stopping)
        || (feed.seconds > 0
            && load_now() - feed_began
               >= (int64_t) ((feed.seconds + 1) * LOAD_SECOND)))
    {
        return 0;
    }

    if (feed.rate > 0) {
        late = load_now() - due;
        seen = atomic_load(&feed_late);

        while (late > seen
               && !atomic_compare_exchange_weak(&feed_late, &seen, late))
        {
            /* void */
        }
    }

    return 1;
}


static void
feed_call(PGconn *conn, feed_batch_t *batch, uint64_t number)
{
    int        skip;
    int64_t    began, took;
    PGresult  *result;

    feed_batch_fill(batch, number);

    skip = feed.naive ? 1 : 0;          /* naive_queue has no batches */
    began = load_now();
    result = PQexecPrepared(conn, "feed", 3 - skip, batch->values + skip,
                            batch->lengths + skip, batch->formats + skip, 1);
    took = load_now() - began;

    feed_check(conn, result, "feeding");

    if (!feed.naive && PQntuples(result) > 0) {
        fprintf(stderr, "pgq_feed: a message was refused\n");
        exit(2);
    }

    PQclear(result);
    atomic_fetch_add(&feed_fed, feed.batch);
    atomic_fetch_add(&feed_busy, took);

    pthread_mutex_lock(&feed_lock);
    load_hist_add(&feed_calls, took);
    feed_over = load_now();
    pthread_mutex_unlock(&feed_lock);
}


/* Moves the messages of naive_queue: one client in a loop. */

static void *
feed_naive(void *data)
{
    long       moved;
    PGconn    *conn;
    PGresult  *result;

    (void) data;

    conn = feed_connect();
    PQclear(PQexec(conn, FEED_NAIVE_PLAN));
    PQclear(PQprepare(conn, "move", FEED_NAIVE_MOVE, 0, NULL));

    while (!atomic_load(&feed_stopping)) {
        result = PQexecPrepared(conn, "move", 0, NULL, NULL, NULL, 0);
        feed_check(conn, result, "moving");
        moved = atol(PQcmdTuples(result));
        PQclear(result);

        atomic_fetch_add(&feed_moved, (uint64_t) moved);

        if (moved == 0) {
            feed_sleep_until(load_now() + LOAD_MS);
        }
    }

    PQfinish(conn);

    return NULL;
}


/* Returns the first column of the answer; the others are text. */

static uint64_t
feed_ask(PGconn *conn, char *more, size_t room)
{
    int        i;
    size_t     used;
    uint64_t   first;
    PGresult  *result;

    *more = '\0';

    if (feed.ask == NULL) {
        return 0;
    }

    result = PQexec(conn, feed.ask);
    feed_check(conn, result, "asking");
    first = strtoull(PQgetvalue(result, 0, 0), NULL, 10);

    for (i = 1, used = 0; i < PQnfields(result) && used < room; i++) {
        used += (size_t) snprintf(more + used, room - used, " %s",
                                  PQgetvalue(result, 0, i));
    }

    PQclear(result);

    return first;
}


/* Prints samples until the end of the run. */

static void
feed_watch(PGconn *conn)
{
    int       fed_all;
    char      more[256];
    int64_t   now, then, late, busy, before;
    uint64_t  start, fed, moved;

    start = feed_ask(conn, more, sizeof(more));
    printf("began %.6f\n", (double) feed_began / LOAD_SECOND);

    feed_sleep_until(feed_began);
    then = load_now();
    before = 0;

    do {
        feed_sleep_until(then + feed.every);

        fed_all = atomic_load(&feed_working) == 0;
        moved = feed_ask(conn, more, sizeof(more)) - start;

        if (feed.naive) {
            moved = atomic_load(&feed_moved);

        } else {
            atomic_store(&feed_moved, moved);
        }

        fed = atomic_load(&feed_fed);
        late = atomic_exchange(&feed_late, 0);
        busy = atomic_load(&feed_busy);
        now = load_now();

        if (late > feed_late_max) {
            feed_late_max = late;
        }

        printf("sample %.6f %" PRIu64 " %" PRIu64 " %.1f %.3f%s\n",
               (double) now / LOAD_SECOND, fed, moved,
               (double) late / LOAD_MS,
               (double) (busy - before) / (double) (now - then)
               / feed.connections, more);

        then = now;
        before = busy;

    } while (!atomic_load(&feed_stopping)
             && (!fed_all || (feed.wait && moved < fed + feed.expect)));
}


static void
feed_sleep_until(int64_t when)
{
    struct timespec  ts;

    ts.tv_sec = when / LOAD_SECOND;
    ts.tv_nsec = when % LOAD_SECOND;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}


static void
feed_stop(int number)
{
    (void) number;

    atomic_store(&feed_stopping, 1);
}


static void
feed_report(void)
{
    double         cpu;
    uint64_t       fed;
    struct rusage  usage;

    fed = atomic_load(&feed_fed);

    if (fed == 0) {
        return;
    }

    getrusage(RUSAGE_SELF, &usage);
    cpu = (double) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
          + (double) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;

    printf("result fed %" PRIu64 "\n", fed);
    printf("result rate %.1f\n",
           (double) fed / ((double) (feed_over - feed_began) / LOAD_SECOND));
    printf("result late_max_ms %.1f\n", (double) feed_late_max / LOAD_MS);
    printf("result cpu_us %.2f\n", cpu / (double) fed * 1e6);
    load_hist_print(&feed_calls, "call_");
}
