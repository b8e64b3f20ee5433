/* SPDX-License-Identifier: PostgreSQL */

/*
 * Consumers of queues of RabbitMQ, which rabbitmq_fill has made.  The last
 * message of a batch is acknowledged with all before it; a batch of 1 is an
 * acknowledgement of each message.  Acknowledgements have no answer: the next
 * batch is received while they are on their way.
 */

#include "consumer.h"
#include "rabbitmq.h"

#include <stdio.h>
#include <stdlib.h>


const char *consumer_usage = "PORT PREFETCH";


static int  rabbitmq_prefetch;


int
consumer_open(consumer_t *consumer, char **argv)
{
    consumer->link = amqp_new_connection();
    rabbitmq_prefetch = argv[1] ? atoi(argv[1]) : 0;

    return rabbitmq_open(consumer->link, atoi(argv[0]));
}


int
consumer_batch(consumer_t *consumer, int most)
{
    int               i;
    char              queue[32];
    uint64_t          tag;
    amqp_envelope_t   message;
    amqp_rpc_reply_t  reply;

    if (consumer->posts == 0) {
        snprintf(queue, sizeof(queue), "consume%u", consumer->number);

        if (rabbitmq_start(consumer->link, queue, rabbitmq_prefetch) != 0) {
            return -1;
        }
    }

    for (i = 0, tag = 0; i < most; i++) {
        amqp_maybe_release_buffers(consumer->link);
        reply = amqp_consume_message(consumer->link, &message, NULL, 0);

        if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
            return consumer_fail(consumer, "could not receive");
        }

        tag = message.delivery_tag;
        consumer_post(consumer, message.message.body.bytes);
        amqp_destroy_envelope(&message);
    }

    return (amqp_basic_ack(consumer->link, RABBITMQ_CHANNEL, tag, 1)
            == AMQP_STATUS_OK)
           ? 0 : consumer_fail(consumer, "could not acknowledge");
}


/* The channel handles its methods in their order. */

int
consumer_close(consumer_t *consumer)
{
    int  status;

    status = (amqp_channel_close(consumer->link, RABBITMQ_CHANNEL,
                                 AMQP_REPLY_SUCCESS).reply_type
              == AMQP_RESPONSE_NORMAL)
             ? 0 : consumer_fail(consumer, "could not close the channel");
    amqp_destroy_connection(consumer->link);

    return status;
}
