/* SPDX-License-Identifier: PostgreSQL */

/*
 * Consumers by HTTP: for each batch a GET of a subscription and a POST of its
 * acknowledgement, over one connection.
 */

#define _GNU_SOURCE

#include "consumer.h"
#include "load_answer.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>


#define HTTP_SIZE  (4 * 1024 * 1024)


typedef struct {
    int             fd;
    size_t          used;
    long            generation;     /* 0: not known yet */
    load_answer_t   answer;
    char            data[HTTP_SIZE];
} http_link_t;


static int http_call(consumer_t *consumer, unsigned status);
static long http_number(const http_link_t *link, const char *name);


const char *consumer_usage = "PORT";


int
consumer_open(consumer_t *consumer, char **argv)
{
    http_link_t         *link;
    struct sockaddr_in   address = { 0 };

    consumer->link = link = calloc(1, sizeof(http_link_t));

    if (link == NULL) {
        return consumer_fail(consumer, "no memory");
    }

    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t) atoi(argv[0]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    link->fd = socket(AF_INET, SOCK_STREAM, 0);

    return (connect(link->fd, (struct sockaddr *) &address, sizeof(address))
            == 0)
           ? 0 : consumer_fail(consumer, "could not connect");
}


int
consumer_batch(consumer_t *consumer, int most)
{
    int           len;
    long          next;
    char         *p, *end, text[128];
    http_link_t  *link = consumer->link;

    snprintf(text, sizeof(text), link->generation ? "&generation=%ld" : "",
             link->generation);
    snprintf(link->data, HTTP_SIZE, "GET /sub/consume%u?limit=%d&part=1%s"
             " HTTP/1.1\r\nHost: localhost\r\n\r\n", consumer->number, most,
             text);

    if (http_call(consumer, 200) != 0) {
        return -1;
    }

    p = link->data;
    end = p + link->used;

    while ((p = memmem(p, (size_t) (end - p), "\"data\":", 7)) != NULL) {
        p += 7;
        consumer_post(consumer, p);
    }

    next = http_number(link, "\"next\":");
    link->generation = http_number(link, "\"generation\":");

    if (next == 0 || link->generation == 0) {
        return consumer_fail(consumer, "no posts");
    }

    len = snprintf(text, sizeof(text), "{\"upto\":%ld,\"generation\":%ld}",
                   next, link->generation);
    snprintf(link->data, HTTP_SIZE, "POST /sub/consume%u/ack HTTP/1.1\r\n"
             "Host: localhost\r\nContent-Type: application/json\r\n"
             "Content-Length: %d\r\n\r\n%s", consumer->number, len, text);

    return http_call(consumer, 204);
}


/* Sends the request in data and reads the answer to that place. */

static int
http_call(consumer_t *consumer, unsigned status)
{
    ssize_t                n;
    http_link_t           *link = consumer->link;
    load_answer_result_t   result;

    n = (ssize_t) strlen(link->data);

    if (send(link->fd, link->data, (size_t) n, MSG_NOSIGNAL) != n) {
        return consumer_fail(consumer, "could not send");
    }

    load_answer_reset(&link->answer, 0);
    link->used = 0;

    do {
        n = recv(link->fd, link->data + link->used,
                 HTTP_SIZE - 1 - link->used, 0);

        if (n <= 0) {
            return consumer_fail(consumer, "could not receive");
        }

        result = load_answer_feed(&link->answer,
                                  (u_char *) link->data + link->used,
                                  (size_t) n);
        link->used += (size_t) n;

    } while (result == LOAD_ANSWER_AGAIN);

    link->data[link->used] = '\0';

    return (result == LOAD_ANSWER_WHOLE && link->answer.status == status)
           ? 0 : consumer_fail(consumer, link->data);
}


/* The number after this name at the end of the answer; 0 if there is none. */

static long
http_number(const http_link_t *link, const char *name)
{
    const char  *p, *end;

    end = link->data + link->used;
    p = (link->used > 128) ? end - 128 : link->data;
    p = memmem(p, (size_t) (end - p), name, strlen(name));

    return p ? strtol(p + strlen(name), NULL, 10) : 0;
}


int
consumer_close(consumer_t *consumer)
{
    http_link_t  *link = consumer->link;

    close(link->fd);
    free(link);

    return 0;
}
