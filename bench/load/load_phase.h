/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the phases of a run.  SIGUSR1 ends a phase, for example before the
 * server is restarted.  A message belongs to the phase in which it started, or
 * should have started.
 *
 * load_phase_mark() may be called by a signal handler.
 */

#ifndef LOAD_PHASE_H
#define LOAD_PHASE_H


#include <stdint.h>
#include <stdio.h>


#define LOAD_PHASES_MAX  64         /* later marks are ignored */


/* Ends the current phase.  The first one begins with the run. */

void load_phase_mark(int64_t now);

/* A message that started at begun was acknowledged after latency, or not. */

void load_phase_ok(int64_t begun, int64_t latency);
void load_phase_failed(int64_t begun);

/* Prints lines "result phase_<number>_<what> ...", if there is a mark. */

void load_phase_print(FILE *out, int64_t began, int64_t ended);


#endif /* LOAD_PHASE_H */
