/* SPDX-License-Identifier: PostgreSQL */

/*
 * pgq_readers: opens streams of server-sent events, posts messages at a fixed
 * rate, and counts what each reader misses or gets twice.
 *
 *     1. opens the readers; prints "open N" to stderr when all are open
 *     2. with --hold: waits for SIGUSR1
 *     3. posts for --seconds, if there is a --rate; else waits for SIGINT
 *     4. waits until every reader is complete, at most for --grace
 *     5. prints lines "result NAME VALUE", times in ms, and exits
 *
 * Readers and posters share one thread and one clock, so that the time from a
 * request to the arrival of its message needs no time stamp in the message.
 * SIGINT or SIGTERM ends a phase.  Exit status: 0 success, 2 error.
 */

#define _GNU_SOURCE

#include "readers.h"
#include "readers_link.h"
#include "readers_post.h"
#include "readers_record.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>


#define READERS_EVENTS  512
#define READERS_TICK    (2 * LOAD_MS)
#define READERS_CHECK   (50 * LOAD_MS)


typedef struct {
    const char  *name;
    char         type;      /* n: number, s: seconds, f: rate, u: URL, -: flag */
    void        *place;
    const char  *help;
} readers_option_t;


static void readers_options(int argc, char **argv);
static int readers_set(const readers_option_t *option, const char *value);
static int readers_url(readers_url_t *url, char *text);
static void readers_help(void);
static void readers_files(void);
static void readers_signal(int number);
static void readers_wait(int64_t until, int (*done)(int64_t now));
static int readers_all_open(int64_t now);
static int readers_held(int64_t now);
static int readers_posted(int64_t now);
static int readers_completed(int64_t now);
static void readers_print(int64_t opened, int64_t posting);


int                  readers_epoll;
readers_settings_t   readers_settings = {
    .readers = 1000,
    .open_rate = 5000,
    .open_timeout = 60 * LOAD_SECOND,
    .sources = 16,
    .seconds = 10 * LOAD_SECOND,
    .posters = 64,
    .size = 100,
    .grace = 30 * LOAD_SECOND,
    .retry_max = 5 * LOAD_SECOND
};
readers_run_t        readers_run;

static volatile sig_atomic_t  readers_end;      /* of a phase */
static volatile sig_atomic_t  readers_go;

static const readers_option_t  readers_list[] = {
    { "readers", 'n', &readers_settings.readers, "N: streams (1000)" },
    { "open-rate", 'f', &readers_settings.open_rate,
      "R: open R streams a second (5000); 0: all at once" },
    { "open-timeout", 's', &readers_settings.open_timeout,
      "S: go on after S seconds even if not all are open (60)" },
    { "sources", 'n', &readers_settings.sources,
      "N: connect from 127.0.0.2 to 127.0.0.(N+1) (16); 0: any address" },
    { "stall", '-', &readers_settings.stall,
      "send the requests and read nothing" },
    { "hold", '-', &readers_settings.hold,
      "wait for SIGUSR1 when the streams are open" },
    { "post", 'u', &readers_settings.post, "URL: where to post" },
    { "rate", 'f', &readers_settings.rate, "R: messages a second" },
    { "seconds", 's', &readers_settings.seconds, "S: post for S seconds (10)" },
    { "posters", 'n', &readers_settings.posters,
      "N: connections that post (64)" },
    { "size", 'n', &readers_settings.size, "N: bytes of a message (100)" },
    { "grace", 's', &readers_settings.grace,
      "S: wait for missing messages at the end (30)" },
    { "retry-max", 's', &readers_settings.retry_max,
      "S: maximum of the stream's retry (5)" },
};


#define READERS_NOPTIONS  (sizeof(readers_list) / sizeof(readers_list[0]))


int
main(int argc, char **argv)
{
    int64_t           now, opened, posting;
    struct sigaction  action;

    readers_options(argc, argv);
    readers_files();

    if (readers_settings.rate > 0) {
        readers_run.max = (uint32_t) (readers_settings.rate
                                      * (double) readers_settings.seconds
                                      / LOAD_SECOND) + 1;
    }

    readers_epoll = epoll_create1(EPOLL_CLOEXEC);

    if (readers_epoll == -1 || readers_post_init() != 0
        || readers_link_init() != 0 || readers_record_init() != 0)
    {
        fprintf(stderr, "pgq_readers: out of memory\n");
        return 2;
    }

    memset(&action, 0, sizeof(action));
    action.sa_handler = readers_signal;

    (void) sigaction(SIGINT, &action, NULL);
    (void) sigaction(SIGTERM, &action, NULL);
    (void) sigaction(SIGUSR1, &action, NULL);

    now = load_now();
    readers_wait(now + readers_settings.open_timeout, readers_all_open);

    opened = load_now() - now;
    fprintf(stderr, "open %u\n", readers_link_open());

    if (readers_settings.hold) {
        readers_wait(INT64_MAX, readers_held);
    }

    posting = 0;

    if (readers_settings.rate > 0) {
        now = load_now();
        readers_run.began = now;
        readers_post_begin(now);
        readers_wait(INT64_MAX, readers_posted);
        posting = load_now() - now;

        readers_wait(load_now() + readers_settings.grace, readers_completed);

    } else if (!readers_settings.hold) {
        readers_wait(INT64_MAX, readers_held);
    }

    readers_print(opened, posting);

    return 0;
}


static void
readers_options(int argc, char **argv)
{
    int            i;
    size_t         n;
    struct option  options[READERS_NOPTIONS + 2];

    memset(options, 0, sizeof(options));

    for (n = 0; n < READERS_NOPTIONS; n++) {
        options[n].name = readers_list[n].name;
        options[n].has_arg = (readers_list[n].type != '-');
        options[n].val = (int) n + 1;
    }

    options[n].name = "help";
    options[n].val = 'h' + 256;

    while ((i = getopt_long(argc, argv, "", options, NULL)) != -1) {

        if (i == 'h' + 256) {
            readers_help();
            exit(0);
        }

        if (i == '?' || readers_set(&readers_list[i - 1], optarg) != 0) {
            fprintf(stderr, "pgq_readers: bad option, see --help\n");
            exit(2);
        }
    }

    for ( /* void */ ; optind < argc; optind++) {
        n = readers_settings.nstreams++;

        if (n == READERS_URL_MAX
            || readers_url(&readers_settings.streams[n], argv[optind]) != 0)
        {
            readers_settings.nstreams = 0;
            break;
        }
    }

    if (readers_settings.nstreams == 0
        || (readers_settings.rate > 0 && readers_settings.post.path == NULL))
    {
        fprintf(stderr, "pgq_readers: a URL is missing or bad, see --help\n");
        exit(2);
    }
}


static int
readers_set(const readers_option_t *option, const char *value)
{
    char    *end;
    double   number;

    if (option->type == '-') {
        *(int *) option->place = 1;
        return 0;
    }

    if (option->type == 'u') {
        return readers_url(option->place, strdup(value));
    }

    number = strtod(value, &end);

    if (end == value || *end != '\0' || number < 0 || number > 1e6) {
        return -1;
    }

    switch (option->type) {

    case 'f':
        *(double *) option->place = number;
        break;

    case 's':
        *(int64_t *) option->place = (int64_t) (number * LOAD_SECOND);
        break;

    default:
        if (option->place == &readers_settings.size) {
            readers_settings.size = (size_t) number;
            return (number < 32 || number > 4000) ? -1 : 0;
        }

        *(unsigned *) option->place = (unsigned) number;
    }

    return 0;
}


/* Takes http://127.0.0.1:8000/path: an IPv4 address and a port. */

static int
readers_url(readers_url_t *url, char *text)
{
    char  *host, *port, *path;

    if (text == NULL || strncmp(text, "http://", 7) != 0) {
        return -1;
    }

    host = text + 7;
    path = strchr(host, '/');
    port = strchr(host, ':');

    if (path == NULL || port == NULL || port > path
        || (size_t) (path - host) >= sizeof(url->host))
    {
        return -1;
    }

    memcpy(url->host, host, (size_t) (path - host));
    url->path = path;

    memset(&url->addr, 0, sizeof(url->addr));
    url->addr.sin_family = AF_INET;
    url->addr.sin_port = htons((uint16_t) atoi(port + 1));

    *port = '\0';

    return inet_pton(AF_INET, host, &url->addr.sin_addr) == 1 ? 0 : -1;
}


static void
readers_help(void)
{
    size_t  n;

    printf("usage: pgq_readers [OPTION]... http://ADDRESS:PORT/STREAM...\n\n"
           "Several streams are used in turn, also when a reader resumes.\n\n");

    for (n = 0; n < READERS_NOPTIONS; n++) {
        printf("  --%-13s %s\n", readers_list[n].name, readers_list[n].help);
    }
}


static void
readers_files(void)
{
    unsigned       need;
    struct rlimit  limit;

    need = readers_settings.readers + readers_settings.posters + 32;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < need) {
        limit.rlim_cur = limit.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &limit);

        if (limit.rlim_cur < need) {
            fprintf(stderr, "pgq_readers: %u files are needed, %llu allowed\n",
                    need, (unsigned long long) limit.rlim_cur);
            exit(2);
        }
    }
}


static void
readers_signal(int number)
{
    if (number == SIGUSR1) {
        readers_go = 1;

    } else {
        readers_end = 1;
    }
}


/* Handles events until a time, the end of the phase, or a signal. */

static void
readers_wait(int64_t until, int (*done)(int64_t now))
{
    int                 i, n;
    int64_t             now, tick;
    readers_event_t    *event;
    struct epoll_event  events[READERS_EVENTS];

    tick = 0;

    for ( ;; ) {
        now = load_now();

        if (now >= tick) {
            readers_link_tick(now);
            tick = now + READERS_TICK;

            if (readers_end || now >= until || done(now)) {
                readers_end = 0;
                return;
            }
        }

        n = epoll_wait(readers_epoll, events, READERS_EVENTS,
                       (int) (READERS_TICK / LOAD_MS));

        for (i = 0; i < n; i++) {
            event = events[i].data.ptr;
            event->handler(event, events[i].events);
        }
    }
}


static int
readers_all_open(int64_t now)
{
    (void) now;

    return readers_link_open() == readers_settings.readers;
}


static int
readers_held(int64_t now)
{
    (void) now;

    return readers_settings.hold && readers_go;
}


static int
readers_posted(int64_t now)
{
    return readers_post_tick(now);
}


static int
readers_completed(int64_t now)
{
    static int64_t  next;

    if (now < next) {
        return 0;
    }

    next = now + READERS_CHECK;

    return readers_link_open() == readers_settings.readers
           && readers_record_complete();
}


static void
readers_print(int64_t opened, int64_t posting)
{
    size_t            i;
    double            cpu;
    struct rusage     usage;
    readers_report_t  report;

    readers_record_report(&report);

    (void) getrusage(RUSAGE_SELF, &usage);
    cpu = (double) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
          + (double) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;

    const struct {
        const char  *name;
        uint64_t     value;
    } counts[] = {
        { "readers", readers_settings.readers },
        { "open", readers_link_open() },
        { "posts", readers_run.next },
        { "acked", readers_run.acked },
        { "post_refused", readers_run.post_refused },
        { "post_unknown", readers_run.post_unknown },
        { "expected", report.expected },
        { "unseen", report.unseen },
        { "deliveries", readers_run.deliveries },
        { "complete", report.complete },
        { "missing", report.missing },
        { "twice", readers_run.twice },
        { "descending", readers_run.descending },
        { "disorder", report.disorder },
        { "resets", readers_run.resets },
        { "closed", readers_run.closed },
        { "resumed", readers_run.resumed },
        { "refused", readers_run.refused },
        { "connect_errors", readers_run.connect_errors },
        { "bad", readers_run.bad }
    };

    for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        printf("result %s %llu\n", counts[i].name,
               (unsigned long long) counts[i].value);
    }

    printf("result open_seconds %.3f\n", (double) opened / LOAD_SECOND);
    printf("result post_seconds %.3f\n", (double) posting / LOAD_SECOND);
    printf("result deliver_seconds %.3f\n", readers_run.deliveries
           ? (double) (readers_run.arrived - readers_run.began) / LOAD_SECOND
           : 0);
    printf("result pause_seconds %.3f\n",
           (double) readers_run.pause / LOAD_SECOND);
    printf("result client_cpu %.3f\n", cpu);

    load_hist_print(&readers_run.open, "open_");
    load_hist_print(&readers_run.answer, "answer_");
    load_hist_print(&readers_run.from_commit, "commit_");
    load_hist_print(&readers_run.from_post, "post_");
}
