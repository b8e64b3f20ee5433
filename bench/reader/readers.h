/* SPDX-License-Identifier: PostgreSQL */

/*
 * The settings, the counters and the event loop, shared by all files of
 * pgq_readers.
 *
 * main() writes the settings before anything starts; afterwards they are
 * read-only.  Message n of a run is the one whose body has "n":<n>; the arrays
 * of readers_run_t are indexed by it.
 */

#ifndef READERS_H
#define READERS_H


#include "load.h"
#include "load_hist.h"

#include <netinet/in.h>


#define READERS_ID_MAX   64
#define READERS_URL_MAX  8


typedef struct {
    struct sockaddr_in  addr;
    char                host[32];       /* of the Host header */
    const char         *path;
} readers_url_t;


typedef struct {
    readers_url_t    streams[READERS_URL_MAX];   /* used in turn */
    unsigned         nstreams;
    readers_url_t    post;

    unsigned         readers;
    double           open_rate;         /* readers a second; 0: all at once */
    int64_t          open_timeout;
    unsigned         sources;           /* addresses, from 127.0.0.2 on */
    int              stall;             /* send the request, read nothing */
    int              hold;              /* SIGUSR1 ends the wait */

    double           rate;              /* messages a second */
    int64_t          seconds;
    unsigned         posters;
    size_t           size;
    int64_t          grace;             /* for what is missing at the end */
    int64_t          retry_max;
} readers_settings_t;


typedef struct {
    int64_t          sent;              /* monotonic; 0: not sent */
    int64_t          at;                /* of the post, realtime; 0: unknown */
    unsigned         acked:1;
    unsigned         seen:1;            /* by a reader */
} readers_message_t;


typedef struct {
    uint32_t            max;            /* of messages */
    uint32_t            next;           /* the message to be sent next */
    readers_message_t  *messages;

    int64_t             began;          /* of posting */
    int64_t             arrived;        /* the last message */
    int64_t             fresh;          /* the last that was new to all */
    int64_t             pause;          /* longest between two such */

    uint64_t            deliveries;
    uint64_t            twice;
    uint64_t            descending;     /* ids that are not ascending */
    uint64_t            foreign;        /* posts of others */
    uint64_t            resets;         /* of event: reset */
    uint64_t            closed;         /* streams ended by the server */
    uint64_t            resumed;        /* with Last-Event-ID */
    uint64_t            refused;        /* answers other than 200 */
    uint64_t            connect_errors;
    uint64_t            bad;            /* streams that are no SSE */

    uint64_t            acked;
    uint64_t            post_refused;
    uint64_t            post_unknown;

    load_hist_t         open;           /* connect to the head of the answer */
    load_hist_t         from_commit;    /* at of the post to arrival */
    load_hist_t         from_post;      /* request sent to arrival */
    load_hist_t         answer;         /* request sent to its answer */
} readers_run_t;


/*
 * An epoll event's pointer is the first member of a link: the handler of the
 * link gets the event.
 */

typedef struct readers_event_s  readers_event_t;

struct readers_event_s {
    void           (*handler)(readers_event_t *event, uint32_t what);
};


extern int                 readers_epoll;
extern readers_settings_t  readers_settings;
extern readers_run_t       readers_run;


#endif /* READERS_H */
