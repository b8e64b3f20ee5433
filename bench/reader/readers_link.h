/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the readers: their connections, and where each resumes.
 *
 *  - A reader is one client of the stream.  When the server ends the stream, it
 *    connects again after the stream's retry: and sends Last-Event-ID, as
 *    EventSource does.
 *  - An event counts when its empty line has arrived.
 */

#ifndef READERS_LINK_H
#define READERS_LINK_H


#include "readers.h"


int readers_link_init(void);

/* Connects readers that are due; to be called every few milliseconds. */

void readers_link_tick(int64_t now);

unsigned readers_link_open(void);


#endif /* READERS_LINK_H */
