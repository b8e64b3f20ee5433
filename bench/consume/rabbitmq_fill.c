/* SPDX-License-Identifier: PostgreSQL */

/*
 * The stock of consumer_rabbitmq:
 *
 *     rabbitmq_fill PORT TYPE QUEUES MESSAGES
 *
 * Makes new queues consume1, consume2, ... and a fan-out exchange, to which it
 * publishes persistent messages of 100 bytes.  Each queue has all of them when
 * it ends.
 */

#include "rabbitmq.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>


#define FILL_SIZE  100


static int fill_queue(amqp_connection_state_t conn, const char *queue,
    const char *type);
static int fill_publish(amqp_connection_state_t conn, unsigned n);
static int fill_wait(amqp_connection_state_t conn, const char *queue,
    unsigned messages);


static amqp_bytes_t  fill_exchange;


int
main(int argc, char **argv)
{
    int                      i, count, status;
    char                     queue[32];
    unsigned                 n, messages;
    amqp_connection_state_t  conn;

    if (argc != 5) {
        fprintf(stderr, "usage: rabbitmq_fill PORT TYPE QUEUES MESSAGES\n");
        return 2;
    }

    count = atoi(argv[3]);
    messages = (unsigned) atoi(argv[4]);
    fill_exchange = amqp_cstring_bytes("consume");
    conn = amqp_new_connection();
    status = rabbitmq_open(conn, atoi(argv[1]));

    for (i = 1; i <= count && status == 0; i++) {
        snprintf(queue, sizeof(queue), "consume%d", i);
        status = fill_queue(conn, queue, argv[2]);
    }

    for (n = 1; n <= messages && status == 0; n++) {
        status = fill_publish(conn, n);
    }

    for (i = 1; i <= count && status == 0; i++) {
        snprintf(queue, sizeof(queue), "consume%d", i);
        status = fill_wait(conn, queue, messages);
    }

    amqp_destroy_connection(conn);

    return status == 0 ? 0 : 1;
}


static int
fill_queue(amqp_connection_state_t conn, const char *queue, const char *type)
{
    amqp_bytes_t  name;

    name = amqp_cstring_bytes(queue);

    return (amqp_exchange_declare(conn, RABBITMQ_CHANNEL, fill_exchange,
                                  amqp_cstring_bytes("fanout"), 0, 1, 0, 0,
                                  amqp_empty_table)
            != NULL
            && amqp_queue_delete(conn, RABBITMQ_CHANNEL, name, 0, 0) != NULL
            && rabbitmq_declare(conn, queue, type) == 0
            && amqp_queue_bind(conn, RABBITMQ_CHANNEL, name, fill_exchange,
                               amqp_empty_bytes, amqp_empty_table)
               != NULL)
           ? 0 : rabbitmq_fail("make a queue");
}


static int
fill_publish(amqp_connection_state_t conn, unsigned n)
{
    int                      len;
    char                     text[FILL_SIZE + 1];
    amqp_bytes_t             body;
    amqp_basic_properties_t  properties;

    len = snprintf(text, sizeof(text), "{\"n\":%u,\"text\":\"", n);
    memset(text + len, 'x', FILL_SIZE - 2 - (size_t) len);
    memcpy(text + FILL_SIZE - 2, "\"}", 2);

    body.len = FILL_SIZE;
    body.bytes = text;
    properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG;
    properties.delivery_mode = AMQP_DELIVERY_PERSISTENT;

    return (amqp_basic_publish(conn, RABBITMQ_CHANNEL, fill_exchange,
                               amqp_empty_bytes, 0, 0, &properties, body)
            == AMQP_STATUS_OK)
           ? 0 : rabbitmq_fail("publish");
}


static int
fill_wait(amqp_connection_state_t conn, const char *queue, unsigned messages)
{
    amqp_queue_declare_ok_t  *declared;

    do {
        usleep(10000);
        declared = amqp_queue_declare(conn, RABBITMQ_CHANNEL,
                                      amqp_cstring_bytes(queue), 1, 0, 0, 0,
                                      amqp_empty_table);

        if (declared == NULL) {
            return rabbitmq_fail("count messages");
        }

    } while (declared->message_count < messages);

    return 0;
}
