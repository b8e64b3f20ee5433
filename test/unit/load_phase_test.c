/* SPDX-License-Identifier: PostgreSQL */

/*
 * Messages are counted in the phase in which they began.
 */

#include "load_phase.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>


#define MS  ((int64_t) 1000000)


static char    *text;
static size_t   len;


static void
print(int64_t began, int64_t ended)
{
    FILE  *out;

    free(text);
    out = open_memstream(&text, &len);
    load_phase_print(out, began, ended);
    fclose(out);
}


static int
says(const char *line)
{
    return strstr(text, line) != NULL;
}


int
main(void)
{
    int  i;

    load_phase_ok(150 * MS, 5 * MS);
    print(100 * MS, 400 * MS);
    ok(len == 0, "without a mark there are no phases");

    load_phase_mark(200 * MS);
    load_phase_mark(300 * MS);

    load_phase_ok(199 * MS, 150 * MS);
    load_phase_ok(200 * MS, 3 * MS);
    load_phase_failed(299 * MS);
    load_phase_ok(300 * MS, 1 * MS);
    load_phase_failed(100 * MS);
    load_phase_failed(350 * MS);
    load_phase_failed(360 * MS);

    print(100 * MS, 450 * MS);

    ok(says("result phase_0_ok 2\n") && says("result phase_0_failed 1\n"),
       "what began before the first mark");
    ok(says("result phase_0_max_ms 150.000\n"),
       "is of the first phase, though it ended after it");
    ok(says("result phase_1_ok 1\n") && says("result phase_1_failed 1\n")
       && says("result phase_1_max_ms 3.000\n"),
       "what began with a mark is of the phase that begins there");
    ok(says("result phase_2_ok 1\n") && says("result phase_2_failed 2\n"),
       "the last phase has no mark at its end");
    ok(says("result phase_0_seconds 0.100\n")
       && says("result phase_1_seconds 0.100\n")
       && says("result phase_2_seconds 0.150\n"),
       "phases last from mark to mark");
    ok(!says("phase_3"), "there are no more of them than marks, and one");

    for (i = 0; i < LOAD_PHASES_MAX + 10; i++) {
        load_phase_mark(1000 * MS + i * MS);
    }

    load_phase_ok(9000 * MS, 1 * MS);
    print(100 * MS, 9500 * MS);

    ok(says("result phase_63_ok 1\n") && !says("phase_64"),
       "too many marks: the last phase takes the rest");

    free(text);

    return tap_done();
}
