/* SPDX-License-Identifier: PostgreSQL */

/*
 * The record of requests: entries are found in memory and after a reload.
 */

#include "load_record.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>


#define MANY  200000


static void
make_id(u_char id[16], uint64_t n)
{
    memset(id, 0, 16);
    memcpy(id + 6, &n, 8);
    id[15] = (u_char) (n * 7);
}


/* Every fifth attempt is of unknown outcome, every seventh refused. */

static int
all_there(void)
{
    int            good;
    u_char         id[16];
    uint64_t       n;
    load_entry_t  *entry;

    for (good = 1, n = 1; n <= MANY; n++) {
        entry = load_record_entry(n);
        make_id(id, n);

        good &= entry->hash == n * 3;

        if (n % 5 == 0) {
            good &= !entry->acked && entry->status == LOAD_RECORD_UNKNOWN
                    && load_record_find(id) == 0;

        } else if (n % 7 == 0) {
            good &= !entry->acked && entry->status == 503
                    && load_record_find(id) == 0;

        } else {
            good &= entry->acked && entry->status == 202
                    && load_record_find(id) == n;
        }
    }

    return good && load_record_count() == MANY;
}


int
main(void)
{
    int            good, quiet;
    char           name[] = "/tmp/load_record_test.XXXXXX", run[9];
    int64_t        mark;
    uint64_t       n, again;
    load_entry_t  *entry;

    ok(load_record_init() == 0, "the record is initialized");

    for (good = 1, n = 1; n <= MANY; n++) {
        good &= load_record_add(n * 3, n * 10) == n;
        entry = load_record_entry(n);
        good &= entry->status == LOAD_RECORD_UNKNOWN && !entry->acked
                && entry->begun == n * 10;

        if (n % 5 == 0) {
            continue;
        }

        if (n % 7 == 0) {
            entry->status = 503;
            continue;
        }

        make_id(entry->id, n);
        entry->status = 202;
        entry->acked = 1;
    }

    ok(good, "attempts are numbered from 1, their outcome is unknown");
    ok(load_record_index(&again) == 0 && again == 0 && all_there(),
       "each acknowledged id is found, and no other");

    ok(close(mkstemp(name)) == 0
       && load_record_save(name, "0123abcd", 77) == 0, "the record is saved");

    ok(load_record_init() == 0 && load_record_count() == 0,
       "the record is empty after its initialization");
    ok(load_record_load(name, run, &mark) == 0
       && load_record_index(&again) == 0 && again == 0 && all_there(),
       "a loaded record equals the saved one");
    ok(strcmp(run, "0123abcd") == 0 && mark == 77,
       "a loaded record has the run and the mark of the saved one");

    make_id(load_record_entry(3)->id, 2);
    ok(load_record_index(&again) == 0 && again == 1,
       "a duplicate id is counted");

    /* the error message is not shown */

    quiet = dup(STDERR_FILENO);
    (void) !freopen("/dev/null", "w", stderr);

    good = truncate(name, 1000) == 0 && load_record_init() == 0
           && load_record_load(name, run, &mark) == -1;

    fflush(stderr);
    dup2(quiet, STDERR_FILENO);
    close(quiet);

    ok(good, "a truncated file is rejected");

    (void) load_record_init();
    unlink(name);

    return tap_done();
}
