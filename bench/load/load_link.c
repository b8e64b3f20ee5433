/* SPDX-License-Identifier: PostgreSQL */

/*
 * The connections: see load_link.h.
 *
 * Events are edge-triggered and registered once for each connection, so that a
 * request costs one send, one recv and its share of an epoll wait.  A request
 * is not stored: if a socket accepts only a part, it is made again for the
 * rest.
 */

#define _GNU_SOURCE

#include "load_link.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>


#define LOAD_LINK_EVENTS           256
#define LOAD_LINK_BUFFER           65536
#define LOAD_LINK_CONNECT_TIMEOUT  (2 * LOAD_SECOND)
#define LOAD_LINK_BACK_OFF         (10 * LOAD_MS)
#define LOAD_LINK_BACK_OFF_SHIFT   5


static void load_link_connect(load_link_t *link, int64_t now);
static void load_link_connected(load_link_t *link);
static void load_link_refused(load_link_t *link, int64_t now);
static void load_link_write(load_link_t *link);
static void load_link_read(load_link_t *link, int ended);
static void load_link_answered(load_link_t *link, int ended);
static void load_link_lost(load_link_t *link);
static void load_link_close(load_link_t *link, int64_t connect_at);
static void load_link_next_target(load_link_t *link);
static void load_link_set(load_link_t *link, load_link_state_e state);


static const load_settings_t    *load_settings;
static const load_link_calls_t  *load_calls;
static uint64_t                 *load_connect_errors;
static load_link_t              *load_links;
static unsigned                  load_link_states[LOAD_LINK_STATES];
static int                       load_epoll;
static int                       load_bodiless;
static u_char                    load_buffer[LOAD_LINK_BUFFER];


int
load_link_init(const load_settings_t *settings,
    const load_link_calls_t *calls, uint64_t *connect_errors)
{
    unsigned       i;
    struct rlimit  limit;

    load_settings = settings;
    load_calls = calls;
    load_connect_errors = connect_errors;
    load_bodiless = strcmp(settings->method, "HEAD") == 0;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &limit);
    }

    if (settings->connections + 32 > limit.rlim_cur) {
        fprintf(stderr, "pgq_load: %u connections need more than %llu files\n",
                settings->connections, (unsigned long long) limit.rlim_cur);
        return -1;
    }

    load_epoll = epoll_create1(EPOLL_CLOEXEC);
    load_links = calloc(settings->connections, sizeof(load_link_t));

    if (load_epoll == -1 || load_links == NULL) {
        fprintf(stderr, "pgq_load: out of memory\n");
        return -1;
    }

    for (i = 0; i < settings->connections; i++) {
        load_links[i].fd = -1;
        load_links[i].target = i % settings->ntargets;
        load_links[i].address =
                            settings->targets[load_links[i].target].good;
    }

    load_link_states[LOAD_LINK_DOWN] = settings->connections;

    return 0;
}


load_link_t *
load_link_at(unsigned i)
{
    return &load_links[i];
}


unsigned
load_link_count(load_link_state_e state)
{
    return load_link_states[state];
}


void
load_link_send(load_link_t *link, uint64_t n, uint64_t line)
{
    link->n = n;
    link->line = line;
    link->sent = 0;
    link->deadline = load_now() + load_settings->timeout;

    load_answer_reset(&link->answer, load_bodiless);
    load_link_set(link, LOAD_LINK_BUSY);
    load_link_write(link);
}


int
load_link_wait(int64_t ns)
{
    int                 i, n;
    uint32_t            what;
    load_link_t        *link;
    struct timespec     ts;
    struct epoll_event  events[LOAD_LINK_EVENTS];

    static int          coarse;

    ts.tv_sec = ns / LOAD_SECOND;
    ts.tv_nsec = ns % LOAD_SECOND;

    if (coarse) {
        n = epoll_wait(load_epoll, events, LOAD_LINK_EVENTS,
                       (int) ((ns + LOAD_MS - 1) / LOAD_MS));

    } else {
        n = epoll_pwait2(load_epoll, events, LOAD_LINK_EVENTS, &ts, NULL);
    }

    if (n == -1) {
        coarse |= (errno == ENOSYS);
        return (errno == EINTR || errno == ENOSYS) ? 0 : -1;
    }

    for (i = 0; i < n; i++) {
        link = events[i].data.ptr;
        what = events[i].events;

        if (link->state == LOAD_LINK_CONNECTING) {
            load_link_connected(link);
            continue;
        }

        if ((what & EPOLLOUT) && link->state == LOAD_LINK_BUSY
            && link->sent < link->len)
        {
            load_link_write(link);
        }

        if ((what & (EPOLLIN|EPOLLRDHUP|EPOLLHUP|EPOLLERR))
            && link->state != LOAD_LINK_DOWN)
        {
            load_link_read(link, what & (EPOLLRDHUP|EPOLLHUP|EPOLLERR));
        }
    }

    return 0;
}


void
load_link_tick(int64_t now)
{
    unsigned      i;
    load_link_t  *link;

    for (i = 0; i < load_settings->connections; i++) {
        link = &load_links[i];

        switch (link->state) {

        case LOAD_LINK_DOWN:
            if (now >= link->connect_at) {
                load_link_connect(link, now);
            }

            break;

        case LOAD_LINK_CONNECTING:
            if (now >= link->deadline) {
                load_link_refused(link, now);
            }

            break;

        case LOAD_LINK_BUSY:
            if (now >= link->deadline) {
                load_link_lost(link);
            }

            break;

        default:
            break;
        }
    }
}


static void
load_link_connect(load_link_t *link, int64_t now)
{
    int                 on;
    load_address_t     *address;
    struct epoll_event  event;

    address = &load_settings->targets[link->target].addresses[link->address];

    load_link_set(link, LOAD_LINK_CONNECTING);

    link->deadline = now + LOAD_LINK_CONNECT_TIMEOUT;
    link->fd = socket(address->family,
                      SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (link->fd == -1) {
        load_link_refused(link, now);
        return;
    }

    on = 1;
    (void) setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));

    /* the cheapest one: pacing by bbr costs 8 % more for each request */

    (void) setsockopt(link->fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);

    if (connect(link->fd, (struct sockaddr *) &address->addr, address->len)
        == -1 && errno != EINPROGRESS)
    {
        load_link_refused(link, now);
        return;
    }

    event.events = EPOLLIN|EPOLLOUT|EPOLLRDHUP|EPOLLET;
    event.data.ptr = link;

    if (epoll_ctl(load_epoll, EPOLL_CTL_ADD, link->fd, &event) == -1) {
        load_link_refused(link, now);
    }
}


static void
load_link_connected(load_link_t *link)
{
    int        error;
    socklen_t  len;

    len = sizeof(error);

    if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1
        || error)
    {
        load_link_refused(link, load_now());
        return;
    }

    link->failures = 0;
    load_settings->targets[link->target].good = link->address;

    load_link_set(link, LOAD_LINK_IDLE);
    load_calls->ready(link);
}


static void
load_link_refused(load_link_t *link, int64_t now)
{
    unsigned  shift;

    (*load_connect_errors)++;

    shift = link->failures < LOAD_LINK_BACK_OFF_SHIFT
            ? link->failures : LOAD_LINK_BACK_OFF_SHIFT;

    link->failures++;
    link->address = (link->address + 1)
                    % load_settings->targets[link->target].naddresses;

    if (link->failures % load_settings->targets[link->target].naddresses == 0)
    {
        load_link_next_target(link);
    }

    load_link_close(link, now + (LOAD_LINK_BACK_OFF << shift));
}


static void
load_link_write(load_link_t *link)
{
    size_t           skip;
    ssize_t          n;
    struct msghdr    message;
    load_request_t   request;

    load_body_request(&request, link->target, link->n, link->line);

    link->len = request.len;

    while (link->sent < request.len) {
        skip = link->sent;

        if (request.niov == 1) {
            n = send(link->fd, (char *) request.iov[0].iov_base + skip,
                     request.len - skip, MSG_NOSIGNAL);

        } else if (skip >= request.iov[0].iov_len) {
            skip -= request.iov[0].iov_len;
            n = send(link->fd, (char *) request.iov[1].iov_base + skip,
                     request.iov[1].iov_len - skip, MSG_NOSIGNAL);

        } else {
            memset(&message, 0, sizeof(message));
            message.msg_iov = request.iov;
            message.msg_iovlen = 2;

            request.iov[0].iov_base = (char *) request.iov[0].iov_base + skip;
            request.iov[0].iov_len -= skip;

            n = sendmsg(link->fd, &message, MSG_NOSIGNAL);

            request.iov[0].iov_base = (char *) request.iov[0].iov_base - skip;
            request.iov[0].iov_len += skip;
        }

        if (n == -1) {
            if (errno == EINTR) {
                continue;
            }

            /*
             * A server that refuses early may have answered before it closed:
             * the event of the end reads this answer.
             */

            if (errno != EAGAIN && link->sent == 0) {
                load_link_lost(link);
            }

            return;
        }

        link->sent += (size_t) n;
    }
}


static void
load_link_read(load_link_t *link, int ended)
{
    ssize_t               n;
    load_answer_result_t  result;

    for ( ;; ) {
        n = recv(link->fd, load_buffer, sizeof(load_buffer), 0);

        if (n == -1) {

            if (errno == EINTR) {
                continue;
            }

            if (errno == EAGAIN) {
                return;
            }

            break;
        }

        if (link->state != LOAD_LINK_BUSY) {
            break;
        }

        if (n == 0) {
            if (load_answer_end(&link->answer) == LOAD_ANSWER_WHOLE) {
                load_link_answered(link, 1);
                return;
            }

            break;
        }

        result = load_answer_feed(&link->answer, load_buffer, (size_t) n);

        if (result == LOAD_ANSWER_WHOLE) {
            load_link_answered(link, ended);
            return;
        }

        if (result == LOAD_ANSWER_BAD) {
            break;
        }

        if ((size_t) n < sizeof(load_buffer) && !ended) {
            return;
        }
    }

    load_link_lost(link);
}


/* An answer before the end of the request closes the connection. */

static void
load_link_answered(load_link_t *link, int ended)
{
    if (ended || link->answer.close || link->sent < link->len) {
        load_link_close(link, 0);
        load_calls->done(link, LOAD_LINK_ANSWERED);
        load_link_connect(link, load_now());
        return;
    }

    load_link_set(link, LOAD_LINK_IDLE);
    load_calls->done(link, LOAD_LINK_ANSWERED);

    if (link->state == LOAD_LINK_IDLE) {
        load_calls->ready(link);
    }
}


static void
load_link_lost(load_link_t *link)
{
    int  busy;

    busy = (link->state == LOAD_LINK_BUSY);

    load_link_next_target(link);
    load_link_close(link, 0);

    if (busy) {
        load_calls->done(link, link->sent ? LOAD_LINK_LOST
                                          : LOAD_LINK_UNSENT);
    }

    load_link_connect(link, load_now());
}


static void
load_link_close(load_link_t *link, int64_t connect_at)
{
    if (link->fd != -1) {
        close(link->fd);
        link->fd = -1;
    }

    link->connect_at = connect_at;
    load_link_set(link, LOAD_LINK_DOWN);
}


static void
load_link_next_target(load_link_t *link)
{
    if (load_settings->ntargets > 1) {
        link->target = (link->target + 1) % load_settings->ntargets;
        link->address = load_settings->targets[link->target].good;
    }
}


static void
load_link_set(load_link_t *link, load_link_state_e state)
{
    load_link_states[link->state]--;
    load_link_states[state]++;
    link->state = state;
}
