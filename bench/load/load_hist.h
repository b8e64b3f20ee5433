/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns histograms of durations: log-linear with 128 steps for each octave, so
 * that a percentile is within 0.8 %.  The maximum is exact.
 */

#ifndef LOAD_HIST_H
#define LOAD_HIST_H


#include <stdint.h>


#define LOAD_HIST_STEPS    128
#define LOAD_HIST_BUCKETS  (LOAD_HIST_STEPS * 40)


typedef struct {
    uint64_t  count;
    int64_t   max;
    uint64_t  buckets[LOAD_HIST_BUCKETS];
} load_hist_t;


void load_hist_reset(load_hist_t *hist);
void load_hist_add(load_hist_t *hist, int64_t ns);

/* In milliseconds; 0 for an empty histogram. */

double load_hist_percentile(const load_hist_t *hist, double percent);

/* Prints lines "result <prefix>p50_ms ..." up to max. */

void load_hist_print(const load_hist_t *hist, const char *prefix);


#endif /* LOAD_HIST_H */
