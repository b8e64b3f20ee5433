/* SPDX-License-Identifier: PostgreSQL */

/*
 * A connection to RabbitMQ with one channel, and durable queues.
 */

#ifndef RABBITMQ_H
#define RABBITMQ_H


#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_tcp_socket.h>
#endif


#define RABBITMQ_CHANNEL  1


/* These functions return -1 and report the error if they fail. */

int rabbitmq_open(amqp_connection_state_t conn, int port);

/* The type is classic or quorum. */

int rabbitmq_declare(amqp_connection_state_t conn, const char *queue,
    const char *type);

/* Asks for messages: at most prefetch that are not acknowledged. */

int rabbitmq_start(amqp_connection_state_t conn, const char *queue,
    int prefetch);

int rabbitmq_fail(const char *what);


#endif /* RABBITMQ_H */
