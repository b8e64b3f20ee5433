/* SPDX-License-Identifier: PostgreSQL */

/*
 * The settings and the clock, shared by all files of pgq_load.
 *
 * main() writes the settings before anything starts; afterwards they are
 * read-only.  Times and durations are nanoseconds of the monotonic clock.
 */

#ifndef LOAD_H
#define LOAD_H


#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/socket.h>
#include <time.h>


#define LOAD_ADDRESSES_MAX  4
#define LOAD_STATUS_MAX     600

#define LOAD_MS             ((int64_t) 1000000)
#define LOAD_SECOND         ((int64_t) 1000000000)


typedef struct {
    struct sockaddr_storage  addr;
    socklen_t                len;
    int                      family;
} load_address_t;


typedef struct {
    const char      *name;          /* as given */
    char             host[256];     /* of the Host header */
    const char      *path;
    unsigned         naddresses;
    unsigned         good;          /* the address that answered last */
    load_address_t   addresses[LOAD_ADDRESSES_MAX];
} load_target_t;


typedef struct {
    load_target_t   *targets;
    unsigned         ntargets;

    unsigned         connections;
    uint64_t         messages;      /* 0: no limit */
    int64_t          seconds;       /* 0: no limit */
    int64_t          warmup;
    double           rate;          /* 0: closed loop */

    const char      *method;
    const char      *type;
    const char      *headers;       /* complete lines */
    size_t           size;
    const char      *bodies;        /* the name of a file, or NULL */
    int              once;

    u_char           status_ok[LOAD_STATUS_MAX];
    int              ids;           /* acknowledgements carry an id */
    int              recorded;      /* each attempt is in the record */
    int64_t          timeout;
    unsigned         retry;
    int64_t          retry_max_wait;
    int64_t          give_up;
    int              quiet;
    int              all_ok;

    char             run[9];
    const char      *record;
    const char      *check;
    const char      *visible;
    int              check_only;
    int              exclusive;
    int              dead_ok;
    int64_t          drain;
    int64_t          settle;
} load_settings_t;


static inline int64_t
load_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec * LOAD_SECOND + ts.tv_nsec;
}


#endif /* LOAD_H */
