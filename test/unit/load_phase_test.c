/* SPDX-License-Identifier: PostgreSQL */

/*
 * The phases of the load client: a message belongs to the one it began in.
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
prints(const char *line)
{
    return strstr(text, line) != NULL;
}


int
main(void)
{
    int  i;

    load_phase_ok(150 * MS, 5 * MS);
    print(100 * MS, 400 * MS);
    ok(len == 0, "no phase is printed without a mark");

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

    ok(prints("result phase_0_ok 2\n") && prints("result phase_0_failed 1\n"),
       "the first phase has the messages before the first mark");
    ok(prints("result phase_0_max_ms 150.000\n"),
       "the first phase has a message that ended after it");
    ok(prints("result phase_1_ok 1\n") && prints("result phase_1_failed 1\n")
       && prints("result phase_1_max_ms 3.000\n"),
       "a message that began with a mark is of the next phase");
    ok(prints("result phase_2_ok 1\n") && prints("result phase_2_failed 2\n"),
       "the last phase has the messages after the last mark");
    ok(prints("result phase_0_seconds 0.100\n")
       && prints("result phase_1_seconds 0.100\n")
       && prints("result phase_2_seconds 0.150\n"),
       "a phase lasts from one mark to the next");
    ok(!prints("phase_3"), "there is one phase more than marks");

    for (i = 0; i < LOAD_PHASES_MAX + 10; i++) {
        load_phase_mark(1000 * MS + i * MS);
    }

    load_phase_ok(9000 * MS, 1 * MS);
    print(100 * MS, 9500 * MS);

    ok(prints("result phase_63_ok 1\n") && !prints("phase_64"),
       "marks above the limit are ignored");

    free(text);

    return tap_done();
}
