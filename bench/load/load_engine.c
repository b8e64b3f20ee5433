/* SPDX-License-Identifier: PostgreSQL */

/*
 * The schedule: see load_engine.h.
 *
 * A ready link takes a message and keeps it until it is acknowledged or given
 * up, including the pauses between attempts: a link is one client.  In the
 * closed loop it takes the next message at once.  In the open loop message k is
 * due at began + k / rate, even if no link is idle, and its latency is measured
 * from then on; idle links are in a list.
 *
 * Each attempt has its own number in the record: for the server a message that
 * is sent again is a new one, and the outcome of the first attempt is kept.
 */

#include "load_engine.h"
#include "load_record.h"
#include "load_link.h"
#include "load_phase.h"

#include <stdlib.h>


#define LOAD_ENGINE_TICK      (5 * LOAD_MS)
#define LOAD_ENGINE_TICK_OF   1024      /* links; with more links, less often */
#define LOAD_ENGINE_BACK_OFF  (10 * LOAD_MS)


static void load_engine_ready(load_link_t *link);
static void load_engine_send(load_link_t *link);
static void load_engine_done(load_link_t *link, load_link_result_e result);
static void load_engine_answered(load_link_t *link, load_entry_t *entry);
static void load_engine_again(load_link_t *link, int64_t wait);
static void load_engine_drop(load_link_t *link);
static int load_engine_more(int64_t now);
static uint64_t load_engine_due(int64_t now);
static int64_t load_engine_pause(int64_t now);
static void load_engine_dispatch(void);
static int load_engine_tick(int64_t now);


static const load_settings_t  *load_settings;
static load_stats_t           *load_stats;

static const volatile sig_atomic_t  *load_stop;

static uint64_t       load_limit;           /* of messages; 0: none */
static int            load_over;            /* no new message, no retry */
static uint64_t       load_held;            /* messages that links have */
static uint64_t       load_attempts;        /* counted here without a record */
static int64_t        load_up;              /* when a link was last connected */
static load_link_t  **load_row;             /* of idle links, a ring */
static unsigned       load_row_first;
static unsigned       load_row_count;


int
load_engine_run(const load_settings_t *settings, load_stats_t *stats,
    const volatile sig_atomic_t *stop, load_progress_pt progress)
{
    int64_t  now, tick, second;

    static const load_link_calls_t  calls = {
        load_engine_ready, load_engine_done
    };

    load_settings = settings;
    load_stats = stats;
    load_stop = stop;
    load_limit = settings->messages;

    if (settings->once && load_body_lines()
        && (load_limit == 0 || load_limit > load_body_lines()))
    {
        load_limit = load_body_lines();
    }

    load_row = calloc(settings->connections, sizeof(load_link_t *));

    if (load_row == NULL
        || load_link_init(settings, &calls, &stats->connect_errors) != 0)
    {
        return -1;
    }

    now = load_now();
    tick = now;
    second = now + LOAD_SECOND;

    stats->began = now;
    stats->ended = now;
    stats->warm = now;
    load_up = now;

    for ( ;; ) {

        if (now >= tick) {
            tick = now + LOAD_ENGINE_TICK
                         * (1 + settings->connections / LOAD_ENGINE_TICK_OF);

            if (load_engine_tick(now) != 0) {
                break;
            }
        }

        if (now >= second) {
            second += LOAD_SECOND;
            progress(stats, now);
        }

        if (load_link_wait(load_engine_pause(now)) != 0) {
            return -1;
        }

        if (settings->rate > 0) {
            load_engine_dispatch();
        }

        now = load_now();
    }

    if (load_limit) {
        stats->unsent = load_limit - stats->messages;
    }

    stats->unknown += load_link_count(LOAD_LINK_BUSY);
    stats->failed += load_held;

    return 0;
}


/* The link is idle: sends its message again or takes the next one. */

static void
load_engine_ready(load_link_t *link)
{
    int64_t  now;

    now = load_now();

    if (link->held) {
        if (now >= link->send_at) {
            load_engine_send(link);
        }

        return;
    }

    if (!load_engine_more(now)) {

        if (load_settings->rate > 0 && !link->waiting) {
            load_row[(load_row_first + load_row_count++)
                     % load_settings->connections] = link;
            link->waiting = 1;
        }

        return;
    }

    link->held = 1;
    link->tries = 0;
    link->n = 0;
    link->begun = now;

    if (load_settings->rate > 0) {
        link->begun = load_stats->began
                      + (int64_t) ((double) load_stats->messages
                                   * (double) LOAD_SECOND
                                   / load_settings->rate);
    }

    link->line = load_body_lines() ? load_stats->messages % load_body_lines()
                                   : 0;

    load_held++;
    load_stats->messages++;

    load_engine_send(link);
}


/* An attempt without a sent byte keeps its number. */

static void
load_engine_send(load_link_t *link)
{
    load_entry_t    *entry;
    load_request_t   request;

    if (!load_settings->recorded) {
        link->n = ++load_attempts;

    } else if (link->n == 0) {
        link->n = load_record_add(0, (uint64_t) (link->begun
                                                 - load_stats->began) / 1000);
        if (link->n == 0) {
            fprintf(stderr, "pgq_load: out of memory\n");
            exit(2);
        }

        load_body_request(&request, link->target, link->n, link->line);

        entry = load_record_entry(link->n);
        entry->hash = load_body_hash(request.body, request.body_len);

    } else {
        load_record_entry(link->n)->status = LOAD_RECORD_UNKNOWN;
    }

    load_stats->requests++;
    load_link_send(link, link->n, link->line);
}


static void
load_engine_done(load_link_t *link, load_link_result_e result)
{
    load_entry_t  *entry;

    static load_entry_t  unrecorded;

    entry = load_settings->recorded ? load_record_entry(link->n)
                                    : &unrecorded;

    if (result == LOAD_LINK_ANSWERED) {
        load_stats->ended = load_now();
        load_engine_answered(link, entry);
        return;
    }

    load_stats->lost_connections++;

    if (result == LOAD_LINK_UNSENT) {
        entry->status = LOAD_RECORD_UNSENT;
        load_stats->requests--;
        link->send_at = 0;
        return;
    }

    load_stats->unknown++;
    load_engine_again(link, 0);
}


static void
load_engine_answered(load_link_t *link, load_entry_t *entry)
{
    int64_t   gap;
    unsigned  status;

    status = link->answer.status;
    load_stats->by_status[status]++;

    if (!load_settings->status_ok[status]) {
        entry->status = status & 0x7fff;
        load_stats->refused++;
        load_stats->retry_after += (link->answer.retry_after != -1);

        if (status == 503) {
            load_engine_again(link, link->answer.retry_after * LOAD_SECOND);

        } else {
            load_engine_drop(link);
        }

        return;
    }

    if (load_settings->ids && load_answer_id(&link->answer, entry->id) != 0) {
        load_stats->malformed++;
        load_engine_drop(link);
        return;
    }

    entry->status = status & 0x7fff;
    entry->acked = 1;

    gap = load_stats->ended - load_stats->last_ok;

    if (load_stats->last_ok && gap > load_stats->longest_gap) {
        load_stats->longest_gap = gap;
    }

    load_stats->last_ok = load_stats->ended;
    load_stats->ok++;
    load_hist_add(&load_stats->latency, load_stats->ended - link->begun);
    load_phase_ok(link->begun, load_stats->ended - link->begun);

    link->held = 0;
    load_held--;
}


static void
load_engine_again(load_link_t *link, int64_t wait)
{
    int64_t  most;

    if (link->tries == load_settings->retry || load_over) {
        load_engine_drop(link);
        return;
    }

    if (wait <= 0) {
        wait = LOAD_ENGINE_BACK_OFF << (link->tries < 7 ? link->tries : 7);
        wait = wait / 2 + wait / 2 * (random() % 1024) / 1024;
    }

    most = load_settings->retry_max_wait;

    link->tries++;
    link->n = 0;
    link->send_at = load_now() + (wait < most ? wait : most);
    load_stats->retries++;
}


static void
load_engine_drop(load_link_t *link)
{
    link->held = 0;
    load_held--;
    load_stats->failed++;
    load_phase_failed(link->begun);
}


/* Whether a message is due. */

static int
load_engine_more(int64_t now)
{
    if (load_over || *load_stop
        || (load_limit && load_stats->messages >= load_limit))
    {
        return 0;
    }

    if (load_settings->seconds
        && now - load_stats->began >= load_settings->seconds)
    {
        return 0;
    }

    return load_settings->rate > 0
           ? load_stats->messages < load_engine_due(now) : 1;
}


static uint64_t
load_engine_due(int64_t now)
{
    return 1 + (uint64_t) ((double) (now - load_stats->began)
                           * load_settings->rate / (double) LOAD_SECOND);
}


/* Returns how long the loop may sleep. */

static int64_t
load_engine_pause(int64_t now)
{
    int64_t  due;

    if (load_settings->rate <= 0 || load_row_count == 0 || load_over) {
        return LOAD_ENGINE_TICK;
    }

    due = load_stats->began + (int64_t) ((double) load_stats->messages
                                         * (double) LOAD_SECOND
                                         / load_settings->rate) - now;

    return due < 0 ? 0 : due < LOAD_ENGINE_TICK ? due : LOAD_ENGINE_TICK;
}


/* Gives due messages to idle links, the longest idle first. */

static void
load_engine_dispatch(void)
{
    load_link_t  *link;

    while (load_row_count && load_engine_more(load_now())) {
        link = load_row[load_row_first];

        load_row_first = (load_row_first + 1) % load_settings->connections;
        load_row_count--;
        link->waiting = 0;

        if (link->state == LOAD_LINK_IDLE) {
            load_engine_ready(link);
        }
    }
}


/* Returns 1 at the end of the run. */

static int
load_engine_tick(int64_t now)
{
    unsigned      i;
    load_link_t  *link;

    load_over = load_over || *load_stop
                || (load_settings->seconds
                    && now - load_stats->began >= load_settings->seconds);

    if (load_link_count(LOAD_LINK_IDLE) || load_link_count(LOAD_LINK_BUSY)) {
        load_up = now;

    } else if (now - load_up > load_settings->give_up) {
        fprintf(stderr, "pgq_load: no connection for %lld s, giving up\n",
                (long long) (load_settings->give_up / LOAD_SECOND));
        load_over = 1;
    }

    if (load_settings->warmup && load_stats->warm == load_stats->began
        && now - load_stats->began >= load_settings->warmup)
    {
        load_stats->warm = now;
        load_stats->warm_ok = load_stats->ok;
        load_hist_reset(&load_stats->latency);
    }

    load_link_tick(now);

    for (i = 0; i < load_settings->connections; i++) {
        link = load_link_at(i);

        if (!link->held || link->state == LOAD_LINK_BUSY) {
            continue;
        }

        if (load_over) {
            load_engine_drop(link);

        } else if (link->state == LOAD_LINK_IDLE) {
            load_engine_ready(link);
        }
    }

    return (load_held == 0 && (load_over || (load_limit
                               && load_stats->messages >= load_limit)))
           || *load_stop > 1;
}
