/* SPDX-License-Identifier: PostgreSQL */

/*
 * The phases: see load_phase.h.
 *
 * The signal handler writes only the marks: a time and then their number.  The
 * phase of a message is found by its start, so a late answer is counted in the
 * right phase.
 */

#include "load_phase.h"
#include "load_hist.h"

#include <inttypes.h>
#include <signal.h>


typedef struct {
    uint64_t     failed;
    load_hist_t  latency;           /* of acknowledged messages */
} load_phase_t;


static load_phase_t *load_phase_of(int64_t begun);


static int64_t                load_marks[LOAD_PHASES_MAX - 1];
static volatile sig_atomic_t  load_nmarks;
static load_phase_t           load_phases[LOAD_PHASES_MAX];


void
load_phase_mark(int64_t now)
{
    if (load_nmarks < LOAD_PHASES_MAX - 1) {
        load_marks[load_nmarks] = now;
        load_nmarks++;
    }
}


void
load_phase_ok(int64_t begun, int64_t latency)
{
    load_hist_add(&load_phase_of(begun)->latency, latency);
}


void
load_phase_failed(int64_t begun)
{
    load_phase_of(begun)->failed++;
}


void
load_phase_print(FILE *out, int64_t began, int64_t ended)
{
    int           i;
    double        seconds;
    int64_t       end;
    load_hist_t  *hist;

    for (i = 0; load_nmarks && i <= load_nmarks; i++) {
        end = (i < load_nmarks) ? load_marks[i] : ended;
        seconds = (double) (end - began) / 1e9;
        hist = &load_phases[i].latency;
        began = end;

        fprintf(out, "result phase_%d_seconds %.3f\n"
                     "result phase_%d_ok %" PRIu64 "\n"
                     "result phase_%d_failed %" PRIu64 "\n"
                     "result phase_%d_p50_ms %.3f\n"
                     "result phase_%d_p99_ms %.3f\n"
                     "result phase_%d_max_ms %.3f\n",
                i, seconds, i, hist->count, i, load_phases[i].failed,
                i, load_hist_percentile(hist, 50),
                i, load_hist_percentile(hist, 99),
                i, (double) hist->max / 1e6);
    }
}


/* the newest first: few messages are of older phases */

static load_phase_t *
load_phase_of(int64_t begun)
{
    int  i;

    for (i = load_nmarks; i > 0; i--) {

        if (begun >= load_marks[i - 1]) {
            break;
        }
    }

    return &load_phases[i];
}
