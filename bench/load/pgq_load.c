/* SPDX-License-Identifier: PostgreSQL */

/*
 * pgq_load: the load client.  It sends messages, records each acknowledged id
 * with the hash of its body, and compares the record with posts.
 *
 * This file has the sequence of a run and prints its results.  The others:
 *     load_settings  the command line
 *     load_body      requests and bodies
 *     load_engine    the schedule, retries and counts
 *     load_link      the connections
 *     load_answer    the reading of an answer
 *     load_record    the outcome of each request
 *     load_hist      histograms of latencies
 *     load_phase     results between two signals
 *     load_check     the reading of posts
 *     load_report    the comparison of posts and record
 *     load_visible   the time until a message is in posts
 *
 * Exit status: 0 success, 1 a message is lost, repeated or altered, or
 * --all-ok is not met, 2 another error.
 */

#define _GNU_SOURCE

#include "load.h"
#include "load_body.h"
#include "load_check.h"
#include "load_engine.h"
#include "load_record.h"
#include "load_phase.h"
#include "load_settings.h"
#include "load_visible.h"

#include <inttypes.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>


static int load_run(int64_t *mark);
static void load_signals(void);
static void load_signal(int number);
static void load_signal_mark(int number);
static void load_progress(const load_stats_t *stats, int64_t now);
static void load_print_results(void);
static int load_check(int64_t mark);


static load_settings_t        load_settings;
static load_stats_t           load_stats;
static volatile sig_atomic_t  load_stop;


int
main(int argc, char **argv)
{
    int      status, checked;
    int64_t  mark;

    if (load_settings_read(&load_settings, argc, argv) != 0
        || load_record_init() != 0)
    {
        return 2;
    }

    setvbuf(stdout, NULL, _IOLBF, 0);
    mark = 0;

    if (load_settings.check_only) {
        return load_record_load(load_settings.record, load_settings.run, &mark)
               == 0 ? load_check(mark) : 2;
    }

    status = load_run(&mark);

    if (status == 2) {
        return 2;
    }

    if (load_settings.record
        && load_record_save(load_settings.record, load_settings.run, mark)
           != 0)
    {
        return 2;
    }

    if (load_settings.check) {
        checked = load_check(mark);
        status = (checked > status) ? checked : status;
    }

    return status;
}


static int
load_run(int64_t *mark)
{
    static load_hist_t  visible;

    if (load_body_init(&load_settings) != 0) {
        return 2;
    }

    if (load_settings.check) {
        *mark = load_check_mark(load_settings.check);
    }

    load_signals();

    if (load_settings.visible
        && load_visible_start(load_settings.visible) != 0)
    {
        return 2;
    }

    if (load_engine_run(&load_settings, &load_stats, &load_stop,
                        load_progress)
        != 0)
    {
        return 2;
    }

    load_print_results();

    if (load_settings.visible) {

        if (load_visible_stop(load_stats.began, load_settings.drain, &visible)
            != 0)
        {
            return 2;
        }

        printf("result visible_seen %" PRIu64 "\n", visible.count);
        load_hist_print(&visible, "visible_");
    }

    return load_stats.ok == 0 || load_stop > 1
           || (load_settings.all_ok
               && (load_stats.failed || load_stats.unsent));
}


static void
load_signals(void)
{
    struct sigaction  action;

    memset(&action, 0, sizeof(action));
    action.sa_handler = load_signal;

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    action.sa_handler = load_signal_mark;
    sigaction(SIGUSR1, &action, NULL);

    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);

    /* otherwise each sleep of the open loop is 50 microseconds too long */

    (void) prctl(PR_SET_TIMERSLACK, 1000);
}


static void
load_signal(int number)
{
    (void) number;

    load_stop = (load_stop < 2) ? load_stop + 1 : 2;
}


static void
load_signal_mark(int number)
{
    (void) number;

    load_phase_mark(load_now());
}


static void
load_progress(const load_stats_t *stats, int64_t now)
{
    int  tty;

    static uint64_t  ok;
    static int64_t   at;

    if (load_settings.quiet) {
        return;
    }

    tty = isatty(STDERR_FILENO);
    at = at ? at : stats->began;

    fprintf(stderr, "%s%5.0f s %10" PRIu64 " acknowledged %8.0f/s %8" PRIu64
                    " refused %6" PRIu64 " unknown  p99 %.2f ms%s",
            tty ? "\r" : "",
            (double) (now - stats->began) / 1e9, stats->ok,
            (double) (stats->ok - ok) * 1e9 / (double) (now - at),
            stats->refused, stats->unknown,
            load_hist_percentile(&stats->latency, 99), tty ? "\033[K" : "\n");

    ok = stats->ok;
    at = now;
}


static void
load_print_results(void)
{
    int            i;
    double         seconds, rate, cpu;
    int64_t        gap;
    struct rusage  usage;

    if (!load_settings.quiet && isatty(STDERR_FILENO)) {
        fprintf(stderr, "\n");
    }

    /* of this thread: without the cost of watching posts */

    getrusage(RUSAGE_THREAD, &usage);

    cpu = (double) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6
          + (double) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);

    seconds = (double) (load_stats.ended - load_stats.warm) / 1e9;
    seconds = seconds > 0 ? seconds : 0;
    rate = seconds > 0
           ? (double) (load_stats.ok - load_stats.warm_ok) / seconds : 0;

    gap = load_now() - load_stats.last_ok;
    gap = gap > load_stats.longest_gap ? gap : load_stats.longest_gap;

    printf("%" PRIu64 " of %" PRIu64 " messages acknowledged in %.2f s,"
           " %.0f a second\n"
           "%" PRIu64 " refused, %" PRIu64 " unknown, %" PRIu64
           " sent again, %" PRIu64 " connections lost\n"
           "latency: half under %.2f ms, 99 %% under %.2f ms, longest"
           " %.2f ms\n\n",
           load_stats.ok, load_stats.messages + load_stats.unsent, seconds,
           rate, load_stats.refused, load_stats.unknown, load_stats.retries,
           load_stats.lost_connections,
           load_hist_percentile(&load_stats.latency, 50),
           load_hist_percentile(&load_stats.latency, 99),
           (double) load_stats.latency.max / 1e6);

    printf("result requests %" PRIu64 "\n"
           "result ok %" PRIu64 "\n"
           "result failed %" PRIu64 "\n"
           "result refused %" PRIu64 "\n",
           load_stats.requests, load_stats.ok, load_stats.failed,
           load_stats.refused);

    for (i = 0; i < LOAD_STATUS_MAX; i++) {
        if (load_stats.by_status[i] && !load_settings.status_ok[i]) {
            printf("result refused_%d %" PRIu64 "\n", i,
                   load_stats.by_status[i]);
        }
    }

    printf("result retry_after %" PRIu64 "\n"
           "result retries %" PRIu64 "\n"
           "result unknown %" PRIu64 "\n"
           "result unsent %" PRIu64 "\n"
           "result malformed %" PRIu64 "\n"
           "result lost_connections %" PRIu64 "\n"
           "result connect_errors %" PRIu64 "\n"
           "result seconds %.3f\n"
           "result rate %.1f\n"
           "result longest_gap_ms %.1f\n",
           load_stats.retry_after, load_stats.retries, load_stats.unknown,
           load_stats.unsent,
           load_stats.malformed, load_stats.lost_connections,
           load_stats.connect_errors, seconds, rate,
           load_stats.last_ok ? (double) gap / 1e6 : 0);

    load_hist_print(&load_stats.latency, "");
    load_phase_print(stdout, load_stats.began, load_stats.ended);

    printf("result client_us %.2f\n",
           load_stats.requests ? cpu / (double) load_stats.requests : 0);
}


static int
load_check(int64_t mark)
{
    load_report_t  report;

    if (load_check_run(&load_settings, mark, &report) != 0) {
        return 2;
    }

    load_report_print(&report);

    return load_report_good(&load_settings, &report) ? 0 : 1;
}
