/* SPDX-License-Identifier: PostgreSQL */

/*
 * The histogram of the load client, compared with sorted values.
 */

#include "load_hist.h"
#include "tap.h"

#include <stdlib.h>


#define MANY  100000


static load_hist_t  hist;


static int
compare(const void *one, const void *two)
{
    int64_t  a, b;

    a = *(const int64_t *) one;
    b = *(const int64_t *) two;

    return (a > b) - (a < b);
}


static int
near(double ms, int64_t ns)
{
    double  off;

    off = ms * 1e6 - (double) ns;

    return off <= (double) ns * 0.008 + 1 && -off <= (double) ns * 0.008 + 1;
}


static void
test_values(const char *name, int64_t greatest)
{
    int      good;
    size_t   i;
    int64_t  *values;

    static const double  percents[] = { 0.001, 1, 10, 50, 90, 99, 99.9 };

    values = malloc(MANY * sizeof(int64_t));
    load_hist_reset(&hist);

    for (i = 0; i < MANY; i++) {
        values[i] = 1 + (int64_t) (((uint64_t) random() << 31
                                    | (uint64_t) random())
                                   % (uint64_t) greatest);
        load_hist_add(&hist, values[i]);
    }

    qsort(values, MANY, sizeof(int64_t), compare);

    for (good = 1, i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
        good &= near(load_hist_percentile(&hist, percents[i]),
                     values[(size_t) (percents[i] / 100 * MANY + 0.999) - 1]);
    }

    ok(good, "%s: the percentiles are within 0.8 %%", name);
    ok(hist.max == values[MANY - 1] && hist.count == MANY,
       "%s: the maximum is exact", name);

    free(values);
}


int
main(void)
{
    int      good;
    int64_t  ns;

    srandom(42);

    load_hist_reset(&hist);
    ok(load_hist_percentile(&hist, 50) == 0,
       "an empty histogram has the percentile 0");

    test_values("nanoseconds", 100);
    test_values("microseconds", 1000000);
    test_values("seconds", 5000000000);
    test_values("hours", 3600000000000);

    for (good = 1, ns = 1; ns < (int64_t) 1 << 43; ns += ns / 8 + 1) {
        load_hist_reset(&hist);
        load_hist_add(&hist, ns);
        good &= near(load_hist_percentile(&hist, 50), ns);
    }

    ok(good, "a single value between 1 ns and two hours is its median");

    load_hist_reset(&hist);
    load_hist_add(&hist, -5);
    load_hist_add(&hist, INT64_MAX);
    ok(hist.count == 2 && hist.max == INT64_MAX,
       "negative and huge values are counted");

    return tap_done();
}
