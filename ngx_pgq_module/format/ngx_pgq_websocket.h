/* SPDX-License-Identifier: PostgreSQL */

/*
 * Reads the WebSocket frames of a client, and writes the header of a server's
 * frame (RFC 6455).  It depends on neither nginx nor PostgreSQL, allocates
 * nothing and is safe for threads.
 *
 * The caller's duty: it zeroes the state and sets max; gives the bytes of the
 * connection in any pieces, each byte once; and stops after an error or a
 * Close frame.  It joins the pieces of a message.
 *
 * Invariants:
 *  - the result does not depend on how the input is cut, except that a message
 *    can have more pieces;
 *  - a message of more than max bytes is refused by the header of the frame
 *    that exceeds it, before its payload is read;
 *  - each piece of a text, joined with the pieces before it, is the beginning
 *    of a UTF-8 text; the whole message is UTF-8;
 *  - a control frame is given in one piece, also between the frames of a
 *    message.
 */

#ifndef NGX_PGQ_WEBSOCKET_H
#define NGX_PGQ_WEBSOCKET_H


#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>


#define NGX_PGQ_WEBSOCKET_CONTROL_MAX  125     /* payload of a control frame */
#define NGX_PGQ_WEBSOCKET_HEADER_MAX   10      /* header of a server's frame */


/* opcodes */

#define NGX_PGQ_WEBSOCKET_CONTINUATION  0
#define NGX_PGQ_WEBSOCKET_TEXT          1
#define NGX_PGQ_WEBSOCKET_BINARY        2
#define NGX_PGQ_WEBSOCKET_CLOSE         8
#define NGX_PGQ_WEBSOCKET_PING          9
#define NGX_PGQ_WEBSOCKET_PONG          10


/* close codes */

#define NGX_PGQ_WEBSOCKET_NORMAL        1000
#define NGX_PGQ_WEBSOCKET_GOING_AWAY    1001
#define NGX_PGQ_WEBSOCKET_PROTOCOL      1002
#define NGX_PGQ_WEBSOCKET_UNSUPPORTED   1003
#define NGX_PGQ_WEBSOCKET_NO_CODE       1005    /* never in a frame */
#define NGX_PGQ_WEBSOCKET_BAD_TEXT      1007
#define NGX_PGQ_WEBSOCKET_POLICY        1008
#define NGX_PGQ_WEBSOCKET_TOO_LARGE     1009
#define NGX_PGQ_WEBSOCKET_FAILED        1011
#define NGX_PGQ_WEBSOCKET_TRY_LATER     1013


/* the state of UTF-8 that arrives in pieces; zeroes at its start */

typedef struct {
    u_char      need;       /* bytes that the character still needs */
    u_char      least;      /* limits of its next byte, if need > 0 */
    u_char      most;
} ngx_pgq_websocket_utf8_t;


typedef struct {
    uint64_t    max;        /* bytes of a message; set by the caller */

    /* used by ngx_pgq_websocket.c only */
    uint64_t    size;       /* of the message, with the current frame */
    uint64_t    rest;       /* unread bytes of the current payload */
    u_char      header[14];
    u_char      filled;     /* bytes in header */
    u_char      control_len;
    u_char      control[NGX_PGQ_WEBSOCKET_CONTROL_MAX];
    ngx_pgq_websocket_utf8_t  utf8;     /* of the message */
    unsigned    payload:1;  /* the header is complete */
    unsigned    message:1;  /* between the first and the last frame of one */
    unsigned    text:1;     /* the message is a text */
    unsigned    shift:2;    /* position in the mask */
} ngx_pgq_websocket_t;


typedef enum {
    NGX_PGQ_WEBSOCKET_MORE = 0,     /* the input is consumed */
    NGX_PGQ_WEBSOCKET_PIECE,        /* the next piece of a message */
    NGX_PGQ_WEBSOCKET_CONTROL,      /* a control frame */
    NGX_PGQ_WEBSOCKET_ERROR         /* code is the reason, for a Close frame */
} ngx_pgq_websocket_event_e;


/*
 * A piece is in the input, where it has been unmasked; a control frame is in
 * the state, and valid until the next call.
 */

typedef struct {
    u_char     *data;
    size_t      len;
    unsigned    opcode;     /* of a control frame; of the first of a message */
    unsigned    last;       /* the message ends with this piece */
    unsigned    code;       /* of a Close frame, or of an error */
} ngx_pgq_websocket_event_t;


/* Reads up to one event, and moves *p past the bytes that it used. */

ngx_pgq_websocket_event_e ngx_pgq_websocket_read(ngx_pgq_websocket_t *ws,
    u_char **p, u_char *end, ngx_pgq_websocket_event_t *event);


/*
 * Write the header of an unfragmented frame, or a whole Close frame with a
 * reason of at most 123 bytes; return the end.
 */

u_char *ngx_pgq_websocket_header(u_char *dst, unsigned opcode, uint64_t len);
u_char *ngx_pgq_websocket_close(u_char *dst, unsigned code,
    const char *reason);


/* Whether a Close frame may have the code. */

int ngx_pgq_websocket_code_valid(unsigned code);


#endif /* NGX_PGQ_WEBSOCKET_H */
