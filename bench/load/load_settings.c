/* SPDX-License-Identifier: PostgreSQL */

/*
 * The command line: see load_settings.h.
 *
 * One table has all options, their types and their places in the settings;
 * --help is printed from it.
 */

#define _GNU_SOURCE

#include "load_settings.h"
#include "load_body.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>


typedef enum {
    LOAD_OPTION_FLAG = 0,
    LOAD_OPTION_COUNT,              /* unsigned */
    LOAD_OPTION_NUMBER,             /* uint64_t */
    LOAD_OPTION_SIZE,
    LOAD_OPTION_SECONDS,            /* int64_t, nanoseconds */
    LOAD_OPTION_RATE,
    LOAD_OPTION_TEXT,
    LOAD_OPTION_NO_IDS,
    LOAD_OPTION_STATUS,
    LOAD_OPTION_HEADER,
    LOAD_OPTION_RUN,
    LOAD_OPTION_HELP
} load_option_kind_e;


typedef struct {
    const char          *name;
    load_option_kind_e   kind;
    size_t               offset;
    const char          *help;
} load_option_t;


#define load_place(field)  offsetof(load_settings_t, field)


static const load_option_t  load_options[] = {

    { "connections", LOAD_OPTION_COUNT, load_place(connections),
      "N: keep-alive connections (64)" },

    { "messages", LOAD_OPTION_NUMBER, load_place(messages),
      "N: messages to be sent (10000; no limit with --seconds)" },

    { "seconds", LOAD_OPTION_SECONDS, load_place(seconds),
      "S: stop sending after S seconds" },

    { "warmup", LOAD_OPTION_SECONDS, load_place(warmup),
      "S: exclude the first S seconds from rate and latency" },

    { "rate", LOAD_OPTION_RATE, load_place(rate),
      "R: open loop, R messages a second; else closed loop" },

    { "size", LOAD_OPTION_SIZE, load_place(size),
      "N: bytes of a body (100)" },

    { "bodies", LOAD_OPTION_TEXT, load_place(bodies),
      "FILE: one body in each line, repeatedly" },

    { "once", LOAD_OPTION_FLAG, load_place(once),
      "each line of --bodies once" },

    { "method", LOAD_OPTION_TEXT, load_place(method),
      "M: POST; GET, HEAD, OPTIONS and DELETE send no body" },

    { "type", LOAD_OPTION_TEXT, load_place(type),
      "T: Content-Type (application/json)" },

    { "header", LOAD_OPTION_HEADER, 0,
      "\"NAME: VALUE\": a further header" },

    { "status-ok", LOAD_OPTION_STATUS, 0,
      "LIST: statuses that acknowledge (202; 200 without a body)" },

    { "no-ids", LOAD_OPTION_NO_IDS, 0,
      "acknowledgements have no id" },

    { "timeout", LOAD_OPTION_SECONDS, load_place(timeout),
      "S: without an answer the outcome is unknown (30)" },

    { "retry", LOAD_OPTION_COUNT, load_place(retry),
      "N: send a refused (503) or lost message again (0)" },

    { "retry-max-wait", LOAD_OPTION_SECONDS, load_place(retry_max_wait),
      "S: maximum of Retry-After and of the back-off (1)" },

    { "give-up", LOAD_OPTION_SECONDS, load_place(give_up),
      "S: stop after S without any connection (10)" },

    { "run", LOAD_OPTION_RUN, 0,
      "TAG: 8 hexadecimal digits in each body (random)" },

    { "quiet", LOAD_OPTION_FLAG, load_place(quiet),
      "no progress line" },

    { "all-ok", LOAD_OPTION_FLAG, load_place(all_ok),
      "fail unless every message was acknowledged" },

    { "check", LOAD_OPTION_TEXT, load_place(check),
      "CONNINFO: compare with posts when the queue is empty" },

    { "check-only", LOAD_OPTION_FLAG, load_place(check_only),
      "no load: compare --record with posts" },

    { "drain", LOAD_OPTION_SECONDS, load_place(drain),
      "S: maximum time until the queue is empty (60)" },

    { "settle", LOAD_OPTION_SECONDS, load_place(settle),
      "S: time for which it has to stay empty (0.2)" },

    { "exclusive", LOAD_OPTION_FLAG, load_place(exclusive),
      "rows of other runs are unexpected" },

    { "dead-ok", LOAD_OPTION_FLAG, load_place(dead_ok),
      "dead letters are not a failure" },

    { "record", LOAD_OPTION_TEXT, load_place(record),
      "FILE: write the record; with --check-only: read it" },

    { "visible", LOAD_OPTION_TEXT, load_place(visible),
      "CONNINFO: measure the time from POST to posts" },

    { "help", LOAD_OPTION_HELP, 0, "this text" }
};


#define LOAD_NOPTIONS  (sizeof(load_options) / sizeof(load_options[0]))


static void load_settings_defaults(load_settings_t *settings);
static int load_settings_set(load_settings_t *settings,
    const load_option_t *option, const char *value);
static int load_settings_status(load_settings_t *settings, const char *value);
static int load_settings_finish(load_settings_t *settings, int argc,
    char **argv);
static int load_settings_target(load_target_t *target, char *url);
static int load_settings_resolve(load_target_t *target, const char *host,
    const char *port);
static int load_settings_wrong(const char *what, const char *value);
static void load_settings_help(void);


static int    load_status_given;
static char  *load_headers;


int
load_settings_read(load_settings_t *settings, int argc, char **argv)
{
    int            i;
    size_t         n;
    struct option  options[LOAD_NOPTIONS + 1];

    memset(options, 0, sizeof(options));

    for (n = 0; n < LOAD_NOPTIONS; n++) {
        options[n].name = load_options[n].name;
        options[n].has_arg = load_options[n].kind != LOAD_OPTION_FLAG
                             && load_options[n].kind != LOAD_OPTION_NO_IDS
                             && load_options[n].kind != LOAD_OPTION_HELP;
        options[n].val = (int) n + 1;
    }

    load_settings_defaults(settings);

    while ((i = getopt_long(argc, argv, "", options, NULL)) != -1) {

        if (i == '?') {
            fprintf(stderr, "pgq_load: see --help\n");
            return -1;
        }

        if (load_settings_set(settings, &load_options[i - 1], optarg) != 0) {
            return load_settings_wrong(load_options[i - 1].name, optarg);
        }
    }

    return load_settings_finish(settings, argc - optind, argv + optind);
}


static void
load_settings_defaults(load_settings_t *settings)
{
    uint32_t  run;

    memset(settings, 0, sizeof(load_settings_t));

    settings->connections = 64;
    settings->method = "POST";
    settings->type = "application/json";
    settings->headers = "";
    settings->size = 100;
    settings->ids = 1;
    settings->timeout = 30 * LOAD_SECOND;
    settings->retry_max_wait = LOAD_SECOND;
    settings->give_up = 10 * LOAD_SECOND;
    settings->drain = 60 * LOAD_SECOND;
    settings->settle = LOAD_SECOND / 5;

    if (getrandom(&run, sizeof(run), 0) != sizeof(run)) {
        run = (uint32_t) load_now();
    }

    snprintf(settings->run, sizeof(settings->run), "%08" PRIx32, run);
}


static int
load_settings_set(load_settings_t *settings, const load_option_t *option,
    const char *value)
{
    char    *end, *headers;
    double   number;
    u_char  *place;

    place = (u_char *) settings + option->offset;
    number = 0;

    if (option->kind >= LOAD_OPTION_COUNT && option->kind <= LOAD_OPTION_RATE)
    {
        number = strtod(value, &end);

        if (end == value || *end || !(number >= 0 && number < 4e9)) {
            return -1;
        }
    }

    switch (option->kind) {

    case LOAD_OPTION_FLAG:
        *(int *) (void *) place = 1;
        return 0;

    case LOAD_OPTION_COUNT:
        *(unsigned *) (void *) place = (unsigned) number;
        return 0;

    case LOAD_OPTION_NUMBER:
        *(uint64_t *) (void *) place = (uint64_t) number;
        return 0;

    case LOAD_OPTION_SIZE:
        *(size_t *) (void *) place = (size_t) number;
        return 0;

    case LOAD_OPTION_SECONDS:
        *(int64_t *) (void *) place = (int64_t) (number
                                                 * (double) LOAD_SECOND);
        return 0;

    case LOAD_OPTION_RATE:
        *(double *) (void *) place = number;
        return 0;

    case LOAD_OPTION_TEXT:
        *(const char **) (void *) place = value;
        return 0;

    case LOAD_OPTION_NO_IDS:
        settings->ids = 0;
        return 0;

    case LOAD_OPTION_STATUS:
        load_status_given = 1;
        return load_settings_status(settings, value);

    case LOAD_OPTION_HEADER:
        if (strchr(value, ':') == NULL || strpbrk(value, "\r\n")
            || asprintf(&headers, "%s%s\r\n", settings->headers, value) == -1)
        {
            return -1;
        }

        free(load_headers);
        load_headers = headers;
        settings->headers = headers;
        return 0;

    case LOAD_OPTION_RUN:
        if (strlen(value) != 8
            || strspn(value, "0123456789abcdef") != 8)
        {
            return -1;
        }

        memcpy(settings->run, value, 8);
        return 0;

    case LOAD_OPTION_HELP:
        load_settings_help();
        exit(0);
    }

    return -1;
}


static int
load_settings_status(load_settings_t *settings, const char *value)
{
    char           *end;
    unsigned long   status;

    for ( ;; ) {
        status = strtoul(value, &end, 10);

        if (end == value || status < 100 || status >= LOAD_STATUS_MAX
            || (*end && *end != ','))
        {
            return -1;
        }

        settings->status_ok[status] = 1;

        if (*end == '\0') {
            return 0;
        }

        value = end + 1;
    }
}


static int
load_settings_finish(load_settings_t *settings, int argc, char **argv)
{
    int  i, bodiless;

    bodiless = load_body_none(settings->method);

    if (bodiless) {
        settings->ids = 0;
    }

    if (!load_status_given) {
        settings->status_ok[bodiless ? 200 : 202] = 1;
    }

    if (settings->messages == 0 && settings->seconds == 0 && !settings->once)
    {
        settings->messages = 10000;
    }

    if (settings->check_only) {
        if (settings->check && settings->record && argc == 0) {
            return 0;
        }

        fprintf(stderr, "pgq_load: --check-only needs --check and --record,"
                        " and no URL\n");
        return -1;
    }

    settings->recorded = settings->ids || (settings->record && !bodiless);

    if (((settings->check || settings->visible) && !settings->ids)
        || (settings->record && !settings->recorded))
    {
        fprintf(stderr, "pgq_load: without ids nothing can be checked\n");
        return -1;
    }

    if (settings->check && strncmp(settings->type, "text/", 5) == 0) {
        fprintf(stderr, "pgq_load: text becomes JSON and cannot be checked\n");
        return -1;
    }

    if (settings->size < LOAD_BODY_SIZE_MIN) {
        return load_settings_wrong("size", "less than 45");
    }

    if (settings->connections == 0) {
        return load_settings_wrong("connections", "0");
    }

    if (argc == 0) {
        load_settings_help();
        return -1;
    }

    settings->ntargets = (unsigned) argc;
    settings->targets = calloc((size_t) argc, sizeof(load_target_t));

    if (settings->targets == NULL) {
        return -1;
    }

    for (i = 0; i < argc; i++) {
        if (load_settings_target(&settings->targets[i], argv[i]) != 0) {
            return -1;
        }
    }

    return 0;
}


/* http://host[:port]/path, the host in brackets when it is an IPv6 address */

static int
load_settings_target(load_target_t *target, char *url)
{
    int      bad;
    char    *p, *end, *colon, *memory, *host, *port;
    size_t   len;

    target->name = url;

    if (strncmp(url, "http://", 7) != 0) {
        return load_settings_wrong("URL", url);
    }

    p = url + 7;
    end = p + strcspn(p, "/");
    len = (size_t) (end - p);

    if (len == 0 || len >= sizeof(target->host)) {
        return load_settings_wrong("URL", url);
    }

    memcpy(target->host, p, len);
    target->path = *end ? end : "/";

    memory = strndup(p, len);

    if (memory == NULL) {
        return -1;
    }

    host = memory;
    port = (char *) "80";

    if (*host == '[') {
        host++;
        end = strchr(host, ']');

        if (end == NULL || (end[1] && end[1] != ':')) {
            free(memory);
            return load_settings_wrong("URL", url);
        }

        *end = '\0';
        colon = end + 1;

    } else {
        colon = host + strcspn(host, ":");
    }

    if (*colon == ':') {
        *colon = '\0';
        port = colon + 1;
    }

    bad = load_settings_resolve(target, host, port);
    free(memory);

    return bad;
}


static int
load_settings_resolve(load_target_t *target, const char *host,
    const char *port)
{
    int               error;
    struct addrinfo   hints, *list, *entry;
    load_address_t   *address;

    memset(&hints, 0, sizeof(hints));
    hints.ai_socktype = SOCK_STREAM;

    error = getaddrinfo(host, port, &hints, &list);

    if (error) {
        return load_settings_wrong(target->name, gai_strerror(error));
    }

    for (entry = list;
         entry && target->naddresses < LOAD_ADDRESSES_MAX;
         entry = entry->ai_next)
    {
        address = &target->addresses[target->naddresses++];

        memcpy(&address->addr, entry->ai_addr, entry->ai_addrlen);
        address->len = entry->ai_addrlen;
        address->family = entry->ai_family;
    }

    freeaddrinfo(list);

    return 0;
}


static int
load_settings_wrong(const char *what, const char *value)
{
    fprintf(stderr, "pgq_load: invalid %s: %s\n", what,
            value ? value : "nothing");

    return -1;
}


static void
load_settings_help(void)
{
    size_t  n;

    printf("usage: pgq_load [options] http://host[:port]/path ...\n");

    for (n = 0; n < LOAD_NOPTIONS; n++) {
        printf("  --%-16s %s\n", load_options[n].name, load_options[n].help);
    }
}
