/* SPDX-License-Identifier: PostgreSQL */

/*
 * A connection to RabbitMQ: see rabbitmq.h.  The functions of librabbitmq
 * return NULL if the broker refuses.
 */

#include "rabbitmq.h"

#include <stdio.h>


int
rabbitmq_open(amqp_connection_state_t conn, int port)
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

    return (amqp_channel_open(conn, RABBITMQ_CHANNEL) != NULL)
           ? 0 : rabbitmq_fail("open a channel");
}


int
rabbitmq_declare(amqp_connection_state_t conn, const char *queue,
    const char *type)
{
    amqp_table_t        arguments;
    amqp_table_entry_t  entry;

    entry.key = amqp_cstring_bytes("x-queue-type");
    entry.value.kind = AMQP_FIELD_KIND_UTF8;
    entry.value.value.bytes = amqp_cstring_bytes(type);

    arguments.num_entries = 1;
    arguments.entries = &entry;

    return (amqp_queue_declare(conn, RABBITMQ_CHANNEL,
                               amqp_cstring_bytes(queue), 0, 1, 0, 0,
                               arguments)
            != NULL)
           ? 0 : rabbitmq_fail("declare a queue");
}


int
rabbitmq_start(amqp_connection_state_t conn, const char *queue, int prefetch)
{
    return (amqp_basic_qos(conn, RABBITMQ_CHANNEL, 0, (uint16_t) prefetch, 0)
            != NULL
            && amqp_basic_consume(conn, RABBITMQ_CHANNEL,
                                  amqp_cstring_bytes(queue), amqp_empty_bytes,
                                  0, 0, 0, amqp_empty_table)
               != NULL)
           ? 0 : rabbitmq_fail("consume");
}


int
rabbitmq_fail(const char *what)
{
    fprintf(stderr, "could not %s\n", what);

    return -1;
}
