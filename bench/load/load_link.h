/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the connections: opens them, reopens lost ones, sends one request at a
 * time on each and reads its answer.  Schedule, record and retries belong to
 * the owner of the callbacks.
 *
 * Invariants
 * - A link is in one state; only load_link_set() changes it.
 * - done() is called once for each load_link_send().
 * - A callback may send on the link it is given.
 */

#ifndef LOAD_LINK_H
#define LOAD_LINK_H


#include "load.h"
#include "load_answer.h"
#include "load_body.h"


typedef enum {
    LOAD_LINK_DOWN = 0,             /* will be opened at connect_at */
    LOAD_LINK_CONNECTING,
    LOAD_LINK_IDLE,
    LOAD_LINK_BUSY,                 /* a request is in flight */
    LOAD_LINK_STATES
} load_link_state_e;


typedef enum {
    LOAD_LINK_ANSWERED = 0,
    LOAD_LINK_LOST,                 /* sent at least in part, no answer */
    LOAD_LINK_UNSENT                /* no byte of it was sent */
} load_link_result_e;


typedef struct {
    load_link_state_e  state;
    int                fd;
    unsigned           target;
    unsigned           address;
    unsigned           failures;    /* of connecting, in succession */
    int64_t            connect_at;
    int64_t            deadline;    /* of connecting or of the request */

    uint64_t           n;           /* the request: load_body_request() */
    uint64_t           line;
    size_t             sent;
    size_t             len;
    load_answer_t      answer;

    /* the engine's: the message of this link */

    int                held;
    unsigned           tries;
    int64_t            begun;
    int64_t            send_at;
    int                waiting;     /* is in the list of idle links */
} load_link_t;


typedef struct {
    void     (*ready)(load_link_t *link);               /* it is idle */
    void     (*done)(load_link_t *link, load_link_result_e result);
} load_link_calls_t;


/*
 * Makes all links, in state down.  -1, with a message: out of memory, or too
 * few file descriptors.
 */

int load_link_init(const load_settings_t *settings,
    const load_link_calls_t *calls, uint64_t *connect_errors);

load_link_t *load_link_at(unsigned i);
unsigned load_link_count(load_link_state_e state);

/* The link has to be idle; line is that of the file of bodies, if any. */

void load_link_send(load_link_t *link, uint64_t n, uint64_t line);

/* Waits for events, at most ns, and handles them. */

int load_link_wait(int64_t ns);

/* Opens links that are due and ends timed-out ones: to be called often. */

void load_link_tick(int64_t now);


#endif /* LOAD_LINK_H */
