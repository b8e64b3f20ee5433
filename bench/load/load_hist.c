/* SPDX-License-Identifier: PostgreSQL */

/*
 * Histograms of durations: see load_hist.h.
 *
 * A value of up to 8 significant bits has its own bucket.  The bucket of a
 * larger one is made of its first 8 bits and the number of the others.
 */

#include "load_hist.h"

#include <stdio.h>
#include <string.h>


void
load_hist_reset(load_hist_t *hist)
{
    memset(hist, 0, sizeof(load_hist_t));
}


void
load_hist_add(load_hist_t *hist, int64_t ns)
{
    int     shift;
    size_t  bucket;

    if (ns < 1) {
        ns = 1;
    }

    shift = 56 - __builtin_clzll((uint64_t) ns);

    if (shift < 0) {
        shift = 0;
    }

    bucket = (size_t) shift * LOAD_HIST_STEPS + (size_t) (ns >> shift);

    if (bucket >= LOAD_HIST_BUCKETS) {
        bucket = LOAD_HIST_BUCKETS - 1;
    }

    hist->buckets[bucket]++;
    hist->count++;

    if (ns > hist->max) {
        hist->max = ns;
    }
}


double
load_hist_percentile(const load_hist_t *hist, double percent)
{
    int       shift;
    size_t    i;
    double    ns;
    uint64_t  rank, sum;

    if (hist->count == 0) {
        return 0;
    }

    rank = (uint64_t) (percent / 100 * (double) hist->count + 0.999999);
    sum = 0;

    for (i = 0; i < LOAD_HIST_BUCKETS - 1; i++) {
        sum += hist->buckets[i];

        if (sum >= rank) {
            break;
        }
    }

    shift = (i < 2 * LOAD_HIST_STEPS) ? 0 : (int) (i / LOAD_HIST_STEPS) - 1;
    i -= (size_t) shift * LOAD_HIST_STEPS;
    ns = ((double) i + 0.5) * (double) ((uint64_t) 1 << shift);

    return (ns < (double) hist->max ? ns : (double) hist->max) / 1e6;
}


void
load_hist_print(const load_hist_t *hist, const char *prefix)
{
    size_t  i;

    static const struct {
        const char  *name;
        double       percent;
    } points[] = {
        { "p50", 50 }, { "p90", 90 }, { "p99", 99 }, { "p99.9", 99.9 }
    };

    for (i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        printf("result %s%s_ms %.3f\n", prefix, points[i].name,
               load_hist_percentile(hist, points[i].percent));
    }

    printf("result %smax_ms %.3f\n", prefix, (double) hist->max / 1e6);
}
