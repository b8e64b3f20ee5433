/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the posting: messages at a fixed rate over keep-alive connections.
 *
 *  - A message is sent when it is due and a connection is idle.  One that is
 *    not sent before the end of the time is left out.
 *  - A 2xx acknowledges a message.  Without an answer its outcome is unknown.
 */

#ifndef READERS_POST_H
#define READERS_POST_H


#include "readers.h"


int readers_post_init(void);

/* Begins to post; messages are due from now on. */

void readers_post_begin(int64_t now);

/* Sends what is due.  Returns 1 when the time is over and all are answered. */

int readers_post_tick(int64_t now);


#endif /* READERS_POST_H */
