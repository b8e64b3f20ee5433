/* SPDX-License-Identifier: PostgreSQL */

/*
 * The posting: see readers_post.h.
 */

#define _GNU_SOURCE

#include "readers_post.h"
#include "load_answer.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>


#define READERS_ANSWER_TIME  (60 * LOAD_SECOND)
#define READERS_POST_MAX     4096


typedef struct {
    readers_event_t  event;
    int              fd;
    unsigned         busy:1;
    uint32_t         n;
    load_answer_t    answer;
} readers_poster_t;


static int readers_post_connect(readers_poster_t *poster);
static int readers_post_send(readers_poster_t *poster, uint32_t n);
static void readers_post_event(readers_event_t *event, uint32_t what);
static void readers_post_lost(readers_poster_t *poster);


static readers_poster_t  *readers_posters;
static int64_t            readers_post_began;


int
readers_post_init(void)
{
    unsigned  i;

    readers_posters = calloc(readers_settings.posters,
                             sizeof(readers_poster_t));
    readers_run.messages = calloc((size_t) readers_run.max + 1,
                                  sizeof(readers_message_t));

    if (readers_posters == NULL || readers_run.messages == NULL) {
        return -1;
    }

    for (i = 0; i < readers_settings.posters; i++) {
        readers_posters[i].event.handler = readers_post_event;
        readers_posters[i].fd = -1;
    }

    return 0;
}


void
readers_post_begin(int64_t now)
{
    readers_post_began = now;
}


int
readers_post_tick(int64_t now)
{
    int                over, busy;
    unsigned           i;
    uint64_t           due;
    readers_poster_t  *poster;

    over = now - readers_post_began >= readers_settings.seconds;
    due = (uint64_t) ((double) (now - readers_post_began) / LOAD_SECOND
                      * readers_settings.rate) + 1;
    busy = 0;

    for (i = 0; i < readers_settings.posters; i++) {
        poster = &readers_posters[i];

        if (poster->busy) {
            busy = 1;

            if (now - readers_run.messages[poster->n].sent
                > READERS_ANSWER_TIME)
            {
                readers_post_lost(poster);
            }

            continue;
        }

        if (over || readers_run.next >= due
            || readers_run.next >= readers_run.max)
        {
            continue;
        }

        if (poster->fd == -1 && readers_post_connect(poster) != 0) {
            readers_run.connect_errors++;
            continue;
        }

        if (readers_post_send(poster, readers_run.next) == 0) {
            readers_run.next++;
            busy = 1;
        }
    }

    return over && !busy;
}


/* The connect blocks, which takes some microseconds on the same machine. */

static int
readers_post_connect(readers_poster_t *poster)
{
    int                 on;
    struct epoll_event  event;

    poster->fd = socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, 0);

    if (poster->fd == -1) {
        return -1;
    }

    on = 1;
    (void) setsockopt(poster->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));

    event.events = EPOLLIN|EPOLLRDHUP;
    event.data.ptr = &poster->event;

    if (connect(poster->fd, (struct sockaddr *) &readers_settings.post.addr,
                sizeof(struct sockaddr_in)) == -1
        || epoll_ctl(readers_epoll, EPOLL_CTL_ADD, poster->fd, &event) == -1)
    {
        close(poster->fd);
        poster->fd = -1;
        return -1;
    }

    return 0;
}


/* Event-Id is for push-stream, which sends it to its readers as id:. */

static int
readers_post_send(readers_poster_t *poster, uint32_t n)
{
    int   len, body;
    char  text[READERS_POST_MAX], request[READERS_POST_MAX * 2];

    body = snprintf(text, sizeof(text), "{\"n\":%u,\"pad\":\"", n);

    while (body < (int) readers_settings.size - 2) {
        text[body++] = 'x';
    }

    text[body++] = '"';
    text[body++] = '}';

    len = snprintf(request, sizeof(request),
                   "POST %s HTTP/1.1\r\n"
                   "Host: %s\r\n"
                   "User-Agent: pgq_readers\r\n"
                   "Content-Type: application/json\r\n"
                   "Event-Id: %u\r\n"
                   "Content-Length: %d\r\n\r\n%.*s",
                   readers_settings.post.path, readers_settings.post.host,
                   n, body, body, text);

    if (send(poster->fd, request, (size_t) len, MSG_NOSIGNAL) != len) {
        close(poster->fd);
        poster->fd = -1;
        return -1;
    }

    load_answer_reset(&poster->answer, 0);

    poster->busy = 1;
    poster->n = n;
    readers_run.messages[n].sent = load_now();

    return 0;
}


static void
readers_post_event(readers_event_t *event, uint32_t what)
{
    u_char                buffer[READERS_POST_MAX];
    ssize_t               n;
    readers_poster_t     *poster;
    readers_message_t    *message;
    load_answer_result_t  result;

    (void) what;

    poster = (readers_poster_t *) event;
    n = recv(poster->fd, buffer, sizeof(buffer), MSG_DONTWAIT);

    if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }

    if (n <= 0 || !poster->busy) {
        readers_post_lost(poster);
        return;
    }

    result = load_answer_feed(&poster->answer, buffer, (size_t) n);

    if (result == LOAD_ANSWER_AGAIN) {
        return;
    }

    if (result == LOAD_ANSWER_BAD) {
        readers_post_lost(poster);
        return;
    }

    message = &readers_run.messages[poster->n];

    if (poster->answer.status / 100 == 2) {
        message->acked = 1;
        readers_run.acked++;
        load_hist_add(&readers_run.answer, load_now() - message->sent);

    } else {
        readers_run.post_refused++;
    }

    poster->busy = 0;

    if (poster->answer.close) {
        readers_post_lost(poster);
    }
}


static void
readers_post_lost(readers_poster_t *poster)
{
    readers_run.post_unknown += poster->busy;

    close(poster->fd);
    poster->fd = -1;
    poster->busy = 0;
}
