/* SPDX-License-Identifier: PostgreSQL */

/*
 * The record of received messages of pgq_readers.
 */

#include "readers_record.h"
#include "tap.h"

#include <string.h>


#define READERS   4
#define MESSAGES  20


readers_settings_t  readers_settings;
readers_run_t       readers_run;

static readers_message_t  messages[MESSAGES];
static readers_report_t   report;


static void
begin(void)
{
    uint32_t  n;

    memset(&readers_run, 0, sizeof(readers_run));
    memset(messages, 0, sizeof(messages));

    readers_settings.readers = READERS;
    readers_run.max = MESSAGES;
    readers_run.next = MESSAGES;
    readers_run.messages = messages;

    for (n = 0; n < MESSAGES; n++) {
        messages[n].acked = (n != 5);
    }

    if (readers_record_init() != 0) {
        ok(0, "memory");
    }
}


/* Reader i gets message n with this id. */

static int
get(unsigned i, uint32_t n, int64_t id)
{
    messages[n].seen = 1;

    return readers_record_add(i, n, id);
}


static void
get_all(unsigned i)
{
    uint32_t  n;

    for (n = 0; n < MESSAGES; n++) {
        if (n != 5) {
            get(i, n, n + 100);
        }
    }
}


int
main(void)
{
    unsigned  i;

    begin();
    ok(!readers_record_complete(), "readers without messages are not complete");
    readers_record_report(&report);
    ok(report.missing == READERS * (MESSAGES - 1) && report.complete == 0
       && report.unseen == MESSAGES - 1,
       "acknowledged messages are missing, those of unknown outcome are not");

    for (i = 0; i < READERS; i++) {
        get_all(i);
    }

    readers_record_report(&report);
    ok(readers_record_complete() && report.complete == READERS
       && report.missing == 0 && report.disorder == 0 && report.unseen == 0
       && readers_run.twice == 0 && readers_run.descending == 0,
       "readers with all acknowledged messages in one order are complete");

    get(0, 5, 200);
    readers_record_report(&report);
    ok(!readers_record_complete() && report.missing == READERS - 1
       && report.complete == 1,
       "a message of unknown outcome that one reader has is missing elsewhere");

    begin();
    ok(get(1, 3, 7) == 1 && get(1, 3, 8) == 0 && readers_run.twice == 1,
       "a message that a reader gets again is counted");
    ok(get(2, 3, 7) == 1 && readers_run.twice == 1,
       "a message that two readers get is not counted");

    get(1, 4, 8);
    get(1, 6, 5);
    get(1, 7, -1);
    ok(readers_run.descending == 2,
       "ids that are not greater than the last one are counted");

    begin();
    get_all(0);
    get_all(1);
    messages[5].acked = 1;
    get(0, 5, 200);
    get(1, 5, 200);
    get(2, 5, 99);
    get_all(2);
    readers_record_report(&report);
    ok(report.complete == 3 && report.disorder == 1,
       "a complete reader with another order than the first is counted");

    return tap_done();
}
