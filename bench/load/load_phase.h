/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the phases of a run: what is measured between two marks.  Whoever
 * drives the run sends SIGUSR1 when it does something to the server; a message
 * belongs to the phase in which it began, or should have, whenever its answer
 * came.
 *
 * load_phase_mark() may be called by a signal handler.
 */

#ifndef LOAD_PHASE_H
#define LOAD_PHASE_H


#include <stdint.h>
#include <stdio.h>


#define LOAD_PHASES_MAX  64         /* what comes later is of the last */


/* Ends the current phase; the first begins with the run. */

void load_phase_mark(int64_t now);

/* The message that began then was acknowledged, so long after; or was not. */

void load_phase_ok(int64_t begun, int64_t latency);
void load_phase_failed(int64_t begun);

/* Prints lines "result phase_<number>_<what> ..."; none without a mark. */

void load_phase_print(FILE *out, int64_t began, int64_t ended);


#endif /* LOAD_PHASE_H */
