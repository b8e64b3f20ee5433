/* SPDX-License-Identifier: PostgreSQL */

/*
 * The worker behind RabbitMQ: inserts the messages of a queue into a table.
 *
 *     rabbitmq_posts PORT QUEUE TYPE PREFETCH CONNINFO TABLE
 *
 * TYPE is classic or quorum.  It declares the queue as durable, and prints
 * "consuming" when it does.  A batch is what has arrived when the one before
 * is committed, at most half of PREFETCH; it is acknowledged after its commit.
 * After an error it begins again with new connections.
 */

#include "rows.h"

#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_tcp_socket.h>
#endif

#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>


#define CHANNEL  1


static int rabbitmq_open(amqp_connection_state_t conn, int port,
    const char *queue, const char *type, int prefetch);
static int rabbitmq_open_queue(amqp_connection_state_t conn,
    const char *queue, const char *type, int prefetch);
static void rabbitmq_consume(amqp_connection_state_t conn, int most);
static int rabbitmq_fail(const char *what);


int
main(int argc, char **argv)
{
    amqp_connection_state_t  conn;

    if (argc != 7) {
        fprintf(stderr, "usage: rabbitmq_posts PORT QUEUE TYPE PREFETCH"
                " CONNINFO TABLE\n");
        return 2;
    }

    setvbuf(stdout, NULL, _IOLBF, 0);

    for ( ;; ) {
        conn = amqp_new_connection();

        if (rows_open(argv[5], argv[6]) == 0
            && rabbitmq_open(conn, atoi(argv[1]), argv[2], argv[3],
                             atoi(argv[4]))
               == 0)
        {
            printf("consuming\n");
            rabbitmq_consume(conn, atoi(argv[4]) / 2);
        }

        amqp_destroy_connection(conn);
        rows_close();
        usleep(100000);
    }
}


static int
rabbitmq_open(amqp_connection_state_t conn, int port, const char *queue,
    const char *type, int prefetch)
{
    amqp_socket_t     *sock;
    amqp_rpc_reply_t   reply;

    sock = amqp_tcp_socket_new(conn);

    if (amqp_socket_open(sock, "127.0.0.1", port) != AMQP_STATUS_OK) {
        return rabbitmq_fail("connect");
    }

    reply = amqp_login(conn, "/", 0, AMQP_DEFAULT_FRAME_SIZE, 0,
                       AMQP_SASL_METHOD_PLAIN, "guest", "guest");

    if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
        return rabbitmq_fail("log in");
    }

    return rabbitmq_open_queue(conn, queue, type, prefetch);
}


/* These functions return NULL if the broker refuses. */

static int
rabbitmq_open_queue(amqp_connection_state_t conn, const char *queue,
    const char *type, int prefetch)
{
    amqp_bytes_t        name;
    amqp_table_t        arguments;
    amqp_table_entry_t  entry;

    name = amqp_cstring_bytes(queue);

    entry.key = amqp_cstring_bytes("x-queue-type");
    entry.value.kind = AMQP_FIELD_KIND_UTF8;
    entry.value.value.bytes = amqp_cstring_bytes(type);

    arguments.num_entries = 1;
    arguments.entries = &entry;

    if (amqp_channel_open(conn, CHANNEL) == NULL
        || amqp_queue_declare(conn, CHANNEL, name, 0, 1, 0, 0, arguments)
           == NULL
        || amqp_basic_qos(conn, CHANNEL, 0, (uint16_t) prefetch, 0) == NULL
        || amqp_basic_consume(conn, CHANNEL, name, amqp_empty_bytes, 0, 0, 0,
                              amqp_empty_table)
           == NULL)
    {
        return rabbitmq_fail("consume");
    }

    return 0;
}


/* Returns when a connection is lost. */

static void
rabbitmq_consume(amqp_connection_state_t conn, int most)
{
    int               count;
    uint64_t          tag;
    struct timeval    now = { 0, 0 };
    amqp_envelope_t   message;
    amqp_rpc_reply_t  reply;

    count = 0;
    tag = 0;

    for ( ;; ) {
        amqp_maybe_release_buffers(conn);
        reply = amqp_consume_message(conn, &message, count ? &now : NULL, 0);

        if (reply.reply_type == AMQP_RESPONSE_NORMAL) {
            rows_add(message.message.body.bytes, message.message.body.len);
            tag = message.delivery_tag;
            amqp_destroy_envelope(&message);

            if (++count < most) {
                continue;
            }

        } else if (reply.library_error != AMQP_STATUS_TIMEOUT) {
            rabbitmq_fail("consume");
            return;
        }

        if (rows_commit() != 0
            || amqp_basic_ack(conn, CHANNEL, tag, 1) != AMQP_STATUS_OK)
        {
            rabbitmq_fail("commit");
            return;
        }

        count = 0;
    }
}


static int
rabbitmq_fail(const char *what)
{
    fprintf(stderr, "could not %s\n", what);

    return -1;
}
