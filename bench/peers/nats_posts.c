/* SPDX-License-Identifier: PostgreSQL */

/*
 * The worker behind NATS: inserts the messages of a stream into a table.
 *
 *     nats_posts PORT STREAM BATCH CONNINFO TABLE
 *
 * It creates the stream (in files, for a day; its subject has its name) and
 * the durable pull consumer "posts", unless they exist, and prints
 * "consuming".  It asks for BATCH messages, and for more when half of them have
 * arrived.  What has arrived when the transaction before is committed is
 * inserted in the next one, and each message is acknowledged after the commit.
 * After an error, or a message of the server about the request, it begins
 * again with new connections.
 */

#define _GNU_SOURCE

#include "rows.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>


#define NATS_BATCH  1000        /* the most in a transaction */


typedef struct {
    int         fd;
    size_t      at, have;
    char        in[1 << 20];
} nats_t;


typedef struct {
    char        reply[256];
    size_t      size;
    const char *data;
} nats_message_t;


static int nats_open(nats_t *nats, int port, const char *stream, int batch);
static int nats_request(nats_t *nats, const char *subject,
    const char *config);
static void nats_consume(nats_t *nats, const char *stream, int batch);
static int nats_receive(nats_t *nats, nats_message_t *message, int wait);
static size_t nats_parse(nats_t *nats, char *line, char *end,
    nats_message_t *message);
static int nats_send(nats_t *nats, const char *text, size_t size);


int
main(int argc, char **argv)
{
    int            batch;
    static nats_t  nats;

    if (argc != 6) {
        fprintf(stderr, "usage: nats_posts PORT STREAM BATCH CONNINFO"
                " TABLE\n");
        return 2;
    }

    batch = atoi(argv[3]);
    setvbuf(stdout, NULL, _IOLBF, 0);

    for ( ;; ) {
        if (rows_open(argv[4], argv[5]) == 0
            && nats_open(&nats, atoi(argv[1]), argv[2], batch) == 0)
        {
            printf("consuming\n");
            nats_consume(&nats, argv[2], batch);
            printf("a connection is lost\n");
        }

        close(nats.fd);
        rows_close();
        usleep(100000);
    }
}


static int
nats_open(nats_t *nats, int port, const char *stream, int batch)
{
    char                subject[256], config[512];
    struct sockaddr_in  address;
    static const char   hello[] = "CONNECT {\"verbose\":false}\r\n"
                                  "SUB inbox 1\r\n";

    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t) port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    nats->at = nats->have = 0;
    nats->fd = socket(AF_INET, SOCK_STREAM, 0);

    if (connect(nats->fd, (struct sockaddr *) &address, sizeof(address)) != 0
        || nats_send(nats, hello, sizeof(hello) - 1) != 0)
    {
        perror("connect");
        return -1;
    }

    snprintf(subject, sizeof(subject), "$JS.API.STREAM.CREATE.%s", stream);
    snprintf(config, sizeof(config),
             "{\"name\":\"%s\",\"subjects\":[\"%s\"],\"storage\":\"file\","
             "\"retention\":\"limits\",\"max_age\":86400000000000,"
             "\"num_replicas\":1}",
             stream, stream);

    if (nats_request(nats, subject, config) != 0) {
        return -1;
    }

    snprintf(subject, sizeof(subject),
             "$JS.API.CONSUMER.DURABLE.CREATE.%s.posts", stream);
    snprintf(config, sizeof(config),
             "{\"stream_name\":\"%s\",\"config\":{\"durable_name\":\"posts\","
             "\"ack_policy\":\"explicit\",\"max_ack_pending\":%d}}",
             stream, 4 * batch);

    return nats_request(nats, subject, config);
}


static int
nats_request(nats_t *nats, const char *subject, const char *config)
{
    char            text[1024];
    nats_message_t  answer;

    snprintf(text, sizeof(text), "PUB %s inbox %zu\r\n%s\r\n",
             subject, strlen(config), config);

    if (nats_send(nats, text, strlen(text)) != 0
        || nats_receive(nats, &answer, 1) != 1
        || memmem(answer.data, answer.size, "\"error\"", 7) != NULL)
    {
        fprintf(stderr, "%s failed\n", subject);
        return -1;
    }

    return 0;
}


/* Returns when a connection is lost. */

static void
nats_consume(nats_t *nats, const char *stream, int batch)
{
    int             n, count, asked;
    size_t          used;
    nats_message_t  message;
    static char     out[NATS_BATCH * 320 + 512];

    count = asked = 0;
    used = 0;

    for ( ;; ) {
        if (asked < batch / 2) {
            n = snprintf(NULL, 0, "{\"batch\":%d}", batch - asked);
            used += (size_t) sprintf(out + used,
                             "PUB $JS.API.CONSUMER.MSG.NEXT.%s.posts inbox"
                             " %d\r\n{\"batch\":%d}\r\n",
                             stream, n, batch - asked);
            asked = batch;
        }

        if (used && nats_send(nats, out, used) != 0) {
            return;
        }

        used = 0;

        while (count < NATS_BATCH
               && (n = nats_receive(nats, &message, count == 0)) == 1)
        {
            if (message.reply[0] != '$') {
                return;
            }

            rows_add(message.data, message.size);
            used += (size_t) sprintf(out + used, "PUB %s 4\r\n+ACK\r\n",
                                     message.reply);
            count++;
        }

        if ((count < NATS_BATCH && n == -1) || rows_commit() != 0) {
            return;
        }

        asked -= count;
        count = 0;
    }
}


/*
 * Returns 1 with a message, which is valid until the next call; 0 if none has
 * arrived and it is not to wait; -1 if the connection is lost.
 */

static int
nats_receive(nats_t *nats, nats_message_t *message, int wait)
{
    char     *line, *end;
    size_t    size;
    ssize_t   n;

    for ( ;; ) {
        line = nats->in + nats->at;
        end = memmem(line, nats->have - nats->at, "\r\n", 2);

        if (end != NULL) {
            *end = '\0';
            size = nats_parse(nats, line, end + 2, message);

            if (size != 0) {
                nats->at += size;

                if (message->data != NULL) {
                    return 1;
                }

                continue;
            }

            *end = '\r';
        }

        nats->have -= nats->at;
        memmove(nats->in, line, nats->have);
        nats->at = 0;

        n = recv(nats->fd, nats->in + nats->have,
                 sizeof(nats->in) - nats->have, wait ? 0 : MSG_DONTWAIT);

        if (n <= 0) {
            return (n == -1 && !wait) ? 0 : -1;
        }

        nats->have += (size_t) n;
    }
}


/*
 * Returns the size of the line with what belongs to it, or 0 if that has not
 * arrived.  Other lines than MSG carry no message.
 */

static size_t
nats_parse(nats_t *nats, char *line, char *end, nats_message_t *message)
{
    size_t  head;

    head = (size_t) (end - line);
    message->data = NULL;

    if (strncmp(line, "MSG ", 4) == 0) {
        if (sscanf(line, "MSG %*s %*s %255s %zu", message->reply,
                   &message->size)
            != 2)
        {
            message->size = strtoul(message->reply, NULL, 10);
        }

        if (line + head + message->size + 2 > nats->in + nats->have) {
            return 0;
        }

        message->data = end;

        return head + message->size + 2;
    }

    if (strcmp(line, "PING") == 0) {
        nats_send(nats, "PONG\r\n", 6);

    } else if (line[0] == '-') {
        fprintf(stderr, "%s\n", line);
    }

    return head;
}


static int
nats_send(nats_t *nats, const char *text, size_t size)
{
    ssize_t  n;

    while (size > 0) {
        n = send(nats->fd, text, size, MSG_NOSIGNAL);

        if (n <= 0) {
            return -1;
        }

        text += n;
        size -= (size_t) n;
    }

    return 0;
}
