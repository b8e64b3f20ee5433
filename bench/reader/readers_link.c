/* SPDX-License-Identifier: PostgreSQL */

/*
 * The readers: see readers_link.h.
 *
 * Events are edge-triggered and registered once for each connection.  A read
 * that does not fill the buffer has emptied the socket, so that a wake-up costs
 * one recv.  All messages of one read arrive at the same time.
 */

#define _GNU_SOURCE

#include "readers_link.h"
#include "readers_record.h"
#include "readers_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>


#define READERS_BUFFER        65536
#define READERS_CONNECT_TIME  (10 * LOAD_SECOND)
#define READERS_RETRY         (1 * LOAD_SECOND)
#define READERS_NO_MESSAGE    UINT32_MAX
#define READERS_STALL_BUFFER  2048


typedef enum {
    READERS_LINK_DOWN = 0,
    READERS_LINK_CONNECTING,
    READERS_LINK_ASKED,
    READERS_LINK_OPEN
} readers_state_t;


typedef struct {
    readers_event_t    event;
    int                fd;
    readers_state_t    state;
    int64_t            due;             /* to connect, or to give up */
    int64_t            began;
    int64_t            retry;

    unsigned           id_len;          /* of the last event */
    unsigned           next_len;        /* of the event that arrives */
    uint32_t           n;               /* of the event that arrives */
    int                resumes;         /* it has sent Last-Event-ID */
    readers_url_t     *url;
    char               id[READERS_ID_MAX];
    char               next[READERS_ID_MAX];

    readers_stream_t   stream;
} readers_link_t;


static void readers_link_connect(readers_link_t *link, int64_t now);
static void readers_link_event(readers_event_t *event, uint32_t what);
static int readers_link_send(readers_link_t *link);
static void readers_link_read(readers_link_t *link);
static void readers_link_opened(readers_link_t *link);
static void readers_link_close(readers_link_t *link, int64_t wait);
static void readers_link_field(void *data, readers_field_t field,
    const u_char *value, size_t len);
static void readers_link_data(readers_link_t *link, const u_char *p,
    size_t len);
static void readers_link_dispatch(readers_link_t *link);
static int64_t readers_link_at(const u_char *p, size_t len);
static int64_t readers_link_number(const char *p, size_t len);


static readers_link_t  *readers_links;
static unsigned         readers_nopen;
static unsigned         readers_connected;  /* readers that have begun */
static int64_t          readers_began;
static int64_t          readers_arrival;    /* of the bytes being read */
static int64_t          readers_realtime;   /* minus monotonic */
static u_char           readers_buffer[READERS_BUFFER];


int
readers_link_init(void)
{
    unsigned         i;
    struct timespec  ts;

    readers_links = calloc(readers_settings.readers, sizeof(readers_link_t));

    if (readers_links == NULL) {
        return -1;
    }

    for (i = 0; i < readers_settings.readers; i++) {
        readers_links[i].event.handler = readers_link_event;
        readers_links[i].fd = -1;
        readers_links[i].retry = READERS_RETRY;
    }

    clock_gettime(CLOCK_REALTIME, &ts);

    readers_began = load_now();
    readers_realtime = ts.tv_sec * LOAD_SECOND + ts.tv_nsec - readers_began;

    return 0;
}


unsigned
readers_link_open(void)
{
    return readers_nopen;
}


void
readers_link_tick(int64_t now)
{
    double           due;
    unsigned         i, begin;
    readers_link_t  *link;

    begin = readers_settings.readers;

    if (readers_nopen == begin) {
        return;
    }

    due = (double) (now - readers_began) / LOAD_SECOND
          * readers_settings.open_rate;

    if (readers_settings.open_rate > 0 && due < begin) {
        begin = (unsigned) due;
    }

    for (i = 0; i < begin; i++) {
        link = &readers_links[i];

        if (link->state == READERS_LINK_DOWN && now >= link->due) {
            readers_link_connect(link, now);

        } else if (link->state == READERS_LINK_CONNECTING
                   && now >= link->due)
        {
            readers_run.connect_errors++;
            readers_link_close(link, 0);
        }
    }
}


/*
 * URLs and sources are used in turn.  A source has some 28,000 ports for one
 * server.  The kernel chooses the port when it connects.
 */

static void
readers_link_connect(readers_link_t *link, int64_t now)
{
    int                 on;
    unsigned            n;
    struct epoll_event  event;
    struct sockaddr_in  source;

    n = readers_connected++;

    link->url = &readers_settings.streams[n % readers_settings.nstreams];
    link->state = READERS_LINK_CONNECTING;
    link->began = now;
    link->due = now + READERS_CONNECT_TIME;
    link->fd = socket(AF_INET, SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC, 0);

    if (link->fd == -1) {
        goto failed;
    }

    if (readers_settings.sources) {
        memset(&source, 0, sizeof(source));
        source.sin_family = AF_INET;
        source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1
                                       + n % readers_settings.sources);
        on = 1;
        (void) setsockopt(link->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on,
                          sizeof(on));

        if (bind(link->fd, (struct sockaddr *) &source, sizeof(source)) == -1)
        {
            goto failed;
        }
    }

    if (readers_settings.stall) {
        on = READERS_STALL_BUFFER;
        (void) setsockopt(link->fd, SOL_SOCKET, SO_RCVBUF, &on, sizeof(on));
    }

    if (connect(link->fd, (struct sockaddr *) &link->url->addr,
                sizeof(struct sockaddr_in)) == -1 && errno != EINPROGRESS)
    {
        goto failed;
    }

    event.events = EPOLLIN|EPOLLOUT|EPOLLRDHUP|EPOLLET;
    event.data.ptr = &link->event;

    if (epoll_ctl(readers_epoll, EPOLL_CTL_ADD, link->fd, &event) == 0) {
        return;
    }

failed:

    readers_run.connect_errors++;
    readers_link_close(link, LOAD_SECOND);
}


static void
readers_link_event(readers_event_t *event, uint32_t what)
{
    int              error;
    socklen_t        len;
    readers_link_t  *link;

    link = (readers_link_t *) event;

    if (link->state == READERS_LINK_CONNECTING) {
        len = sizeof(error);

        if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1
            || error || readers_link_send(link) != 0)
        {
            readers_run.connect_errors++;
            readers_link_close(link, LOAD_SECOND);
            return;
        }

        link->state = READERS_LINK_ASKED;
        link->n = READERS_NO_MESSAGE;
        link->next_len = 0;
        readers_stream_reset(&link->stream);

        if (readers_settings.stall) {
            readers_link_opened(link);
        }
    }

    if (readers_settings.stall) {
        if (what & (EPOLLRDHUP|EPOLLHUP|EPOLLERR)) {
            readers_run.closed++;
            readers_link_close(link, link->retry);
        }

    } else if (link->state != READERS_LINK_DOWN
               && (what & (EPOLLIN|EPOLLRDHUP|EPOLLHUP|EPOLLERR)))
    {
        readers_link_read(link);
    }
}


/* The request fits into the buffer of a new socket. */

static int
readers_link_send(readers_link_t *link)
{
    int   len;
    char  request[1024];

    link->resumes = (link->id_len != 0);

    len = snprintf(request, sizeof(request),
                   "GET %s HTTP/1.1\r\n"
                   "Host: %s\r\n"
                   "User-Agent: pgq_readers\r\n"
                   "Accept: text/event-stream\r\n"
                   "%s%.*s%s\r\n",
                   link->url->path, link->url->host,
                   link->id_len ? "Last-Event-ID: " : "",
                   (int) link->id_len, link->id, link->id_len ? "\r\n" : "");

    if (len < 0 || (size_t) len >= sizeof(request)) {
        return -1;
    }

    return send(link->fd, request, (size_t) len, MSG_NOSIGNAL) == len ? 0 : -1;
}


static void
readers_link_read(readers_link_t *link)
{
    ssize_t                  n;
    readers_stream_result_t  result;

    for ( ;; ) {
        n = recv(link->fd, readers_buffer, sizeof(readers_buffer), 0);

        if (n == -1 && errno == EINTR) {
            continue;
        }

        if (n == -1 && errno == EAGAIN) {
            return;
        }

        if (n <= 0) {
            break;
        }

        readers_arrival = load_now();

        result = readers_stream_feed(&link->stream, readers_buffer, (size_t) n,
                                     readers_link_field, link);

        if (result == READERS_STREAM_BAD) {
            readers_run.bad++;

        } else if (result == READERS_STREAM_REFUSED) {
            readers_run.refused++;
            readers_link_close(link, link->retry);
            return;
        }

        if (link->stream.open && link->state == READERS_LINK_ASKED) {
            readers_link_opened(link);
        }

        if (result != READERS_STREAM_AGAIN) {
            break;
        }

        if ((size_t) n < sizeof(readers_buffer)) {
            return;
        }
    }

    readers_run.closed++;
    readers_link_close(link, link->retry);
}


static void
readers_link_opened(readers_link_t *link)
{
    link->state = READERS_LINK_OPEN;

    readers_nopen++;
    readers_run.resumed += (unsigned) link->resumes;
    load_hist_add(&readers_run.open, load_now() - link->began);
}


static void
readers_link_close(readers_link_t *link, int64_t wait)
{
    if (link->fd != -1) {
        close(link->fd);
        link->fd = -1;
    }

    readers_nopen -= (link->state == READERS_LINK_OPEN);

    if (wait > readers_settings.retry_max) {
        wait = readers_settings.retry_max;
    }

    link->state = READERS_LINK_DOWN;
    link->due = load_now() + wait;
}


static void
readers_link_field(void *data, readers_field_t field, const u_char *value,
    size_t len)
{
    int64_t          number;
    readers_link_t  *link;

    link = data;

    switch (field) {

    case READERS_FIELD_ID:
        if (len < READERS_ID_MAX) {
            memcpy(link->next, value, len);
            link->next_len = (unsigned) len;
        }

        break;

    case READERS_FIELD_DATA:
        readers_link_data(link, value, len);
        break;

    case READERS_FIELD_EVENT:
        readers_run.resets += (len == 5 && memcmp(value, "reset", 5) == 0);
        break;

    case READERS_FIELD_RETRY:
        number = readers_link_number((const char *) value, len);

        if (number > 0) {
            link->retry = number * LOAD_MS;
        }

        break;

    case READERS_FIELD_END:
        readers_link_dispatch(link);
        break;
    }
}


/*
 * A message of this run begins with {"n": and its number.  The time is the last
 * "at":" of the data, and is read once for each message.
 */

static void
readers_link_data(readers_link_t *link, const u_char *p, size_t len)
{
    uint32_t            n;
    const u_char       *end, *found;
    readers_message_t  *message;

    end = p + len;
    found = memmem(p, len, "{\"n\":", 5);

    if (found == NULL) {
        return;
    }

    for (n = 0, found += 5; found < end && *found == ' '; found++) {
        /* void */
    }

    for ( /* void */ ; found < end && *found >= '0' && *found <= '9'; found++) {
        n = n * 10 + (uint32_t) (*found - '0');
    }

    if (n >= readers_run.max || readers_run.messages[n].sent == 0) {
        return;
    }

    link->n = n;
    message = &readers_run.messages[n];

    if (message->seen) {
        return;
    }

    message->seen = 1;

    if (readers_run.fresh
        && readers_arrival - readers_run.fresh > readers_run.pause)
    {
        readers_run.pause = readers_arrival - readers_run.fresh;
    }

    readers_run.fresh = readers_arrival;

    found = memmem(found, (size_t) (end - found), "\"at\":\"", 6);

    if (found) {
        message->at = readers_link_at(found + 6, (size_t) (end - found - 6));
    }
}


static void
readers_link_dispatch(readers_link_t *link)
{
    uint32_t            n;
    int64_t             id;
    readers_message_t  *message;

    id = -1;
    n = link->n;
    link->n = READERS_NO_MESSAGE;

    if (link->next_len) {
        id = readers_link_number(link->next, link->next_len);
        memcpy(link->id, link->next, link->next_len);
        link->id_len = link->next_len;
        link->next_len = 0;
    }

    if (n == READERS_NO_MESSAGE) {
        return;
    }

    readers_run.arrived = readers_arrival;

    if (!readers_record_add((unsigned) (link - readers_links), n, id)) {
        return;
    }

    message = &readers_run.messages[n];

    load_hist_add(&readers_run.from_post, readers_arrival - message->sent);

    if (message->at) {
        load_hist_add(&readers_run.from_commit,
                      readers_arrival + readers_realtime - message->at);
    }
}


/* Reads 2026-11-22T05:33:06.240617Z; the fraction may be shorter. */

static int64_t
readers_link_at(const u_char *p, size_t len)
{
    int        n;
    char       text[40];
    double     seconds;
    struct tm  tm;

    if (len >= sizeof(text)) {
        len = sizeof(text) - 1;
    }

    memcpy(text, p, len);
    text[len] = '\0';
    memset(&tm, 0, sizeof(tm));

    n = sscanf(text, "%d-%d-%dT%d:%d:%lfZ", &tm.tm_year, &tm.tm_mon,
               &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &seconds);

    if (n != 6) {
        return 0;
    }

    tm.tm_year -= 1900;
    tm.tm_mon -= 1;

    return timegm(&tm) * LOAD_SECOND + (int64_t) (seconds * 1e9);
}


/* Returns -1 if the text is not a number. */

static int64_t
readers_link_number(const char *p, size_t len)
{
    size_t   i;
    int64_t  number;

    if (len == 0 || len > 18) {
        return -1;
    }

    for (number = 0, i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return -1;
        }

        number = number * 10 + p[i] - '0';
    }

    return number;
}
