/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the reading of one answer that is a stream of server-sent events, which
 * arrives in pieces.  It does not know sockets.
 *
 *  - A line that is in one piece is passed on in place; only an incomplete one
 *    is copied.  A line longer than READERS_LINE_MAX makes the stream bad.
 *  - Lines end with LF or CR LF, as all servers measured here write them.  CR
 *    alone is no line end.
 */

#ifndef READERS_STREAM_H
#define READERS_STREAM_H


#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>


#define READERS_LINE_MAX  2048


typedef enum {
    READERS_STREAM_AGAIN = 0,
    READERS_STREAM_ENDED,           /* the server has ended the answer */
    READERS_STREAM_REFUSED,         /* a status other than 200 */
    READERS_STREAM_BAD
} readers_stream_result_t;


typedef enum {
    READERS_FIELD_ID = 0,
    READERS_FIELD_DATA,
    READERS_FIELD_EVENT,
    READERS_FIELD_RETRY,
    READERS_FIELD_END               /* the empty line after an event */
} readers_field_t;


/* The value is valid during the call only. */

typedef void (*readers_field_pt)(void *data, readers_field_t field,
    const u_char *value, size_t len);


typedef struct {
    unsigned   state;
    unsigned   status;              /* 0 before the first line */
    unsigned   chunked:1;
    unsigned   open:1;              /* the head has arrived */
    uint64_t   left;                /* of a chunk */
    size_t     have;                /* of line */
    u_char     line[READERS_LINE_MAX];
} readers_stream_t;


void readers_stream_reset(readers_stream_t *stream);

readers_stream_result_t readers_stream_feed(readers_stream_t *stream,
    const u_char *p, size_t len, readers_field_pt field, void *data);


#endif /* READERS_STREAM_H */
