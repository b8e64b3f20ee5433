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

#include "rabbitmq.h"
#include "rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>


static void rabbitmq_consume(amqp_connection_state_t conn, int most);


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
            && rabbitmq_open(conn, atoi(argv[1])) == 0
            && rabbitmq_declare(conn, argv[2], argv[3]) == 0
            && rabbitmq_start(conn, argv[2], atoi(argv[4])) == 0)
        {
            printf("consuming\n");
            rabbitmq_consume(conn, atoi(argv[4]) / 2);
        }

        amqp_destroy_connection(conn);
        rows_close();
        usleep(100000);
    }
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
            || amqp_basic_ack(conn, RABBITMQ_CHANNEL, tag, 1) != AMQP_STATUS_OK)
        {
            rabbitmq_fail("commit");
            return;
        }

        count = 0;
    }
}
