/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the reading of one HTTP/1.x answer that arrives in pieces.  It does not
 * know sockets.  Only the beginning of the body is kept.
 */

#ifndef LOAD_ANSWER_H
#define LOAD_ANSWER_H


#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>


#define LOAD_ANSWER_HEAD_MAX  8192
#define LOAD_ANSWER_BODY_MAX  512


typedef enum {
    LOAD_ANSWER_AGAIN = 0,
    LOAD_ANSWER_WHOLE,
    LOAD_ANSWER_BAD
} load_answer_result_t;


typedef struct {
    unsigned   state;
    unsigned   status;
    unsigned   chunked:1;
    unsigned   close:1;             /* the server closes the connection */
    unsigned   endless:1;           /* the body ends with the connection */
    unsigned   bodiless:1;          /* answer to HEAD: set by the caller */
    int        retry_after;         /* seconds, -1: none */
    uint64_t   left;                /* of the body or of a chunk */
    size_t     have;                /* of head, while it is incomplete */
    size_t     kept;                /* of body */
    u_char     body[LOAD_ANSWER_BODY_MAX];
    u_char     head[LOAD_ANSWER_HEAD_MAX];
} load_answer_t;


void load_answer_reset(load_answer_t *answer, int bodiless);

/* Bytes after the end of an answer make it bad. */

load_answer_result_t load_answer_feed(load_answer_t *answer, const u_char *p,
    size_t len);

/* To be called at the end of the connection: ends an endless answer. */

load_answer_result_t load_answer_end(load_answer_t *answer);

/* Finds "id":"<uuid>" in the beginning of the body; -1: not found. */

int load_answer_id(const load_answer_t *answer, u_char id[16]);

/* Reads 36 characters; -1: not a UUID. */

int load_answer_uuid(const u_char *text, u_char id[16]);


#endif /* LOAD_ANSWER_H */
