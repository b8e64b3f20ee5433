/* SPDX-License-Identifier: PostgreSQL */

/*
 * A reference parser of the WebSocket frames of a client, to compare with the
 * module's.  It has the whole input, reads one byte at a time, and shares no
 * code with the module.
 *
 * Both parsers write a transcript that does not depend on pieces:
 *
 *   t byte, b byte          a byte of a text, of a binary message
 *   T, B                    the end of a message
 *   c opcode len payload    a control frame; a Close frame has its code, in
 *                           two bytes, after it
 */

#ifndef WEBSOCKET_ORACLE_H
#define WEBSOCKET_ORACLE_H


#include <stddef.h>
#include <stdint.h>


typedef struct {
    unsigned char  *data;
    size_t          len;
    size_t          size;
    unsigned        error;      /* close code of the error; 0: none */
} websocket_transcript_t;


void websocket_transcript_add(websocket_transcript_t *out, unsigned c);
void websocket_transcript_free(websocket_transcript_t *out);

void websocket_oracle(const unsigned char *in, size_t len, uint64_t max,
    websocket_transcript_t *out);

/*
 * The transcript of the module's parser.  The first piece has `first` bytes,
 * each other one `piece` bytes; 0: all.
 */
void websocket_module(const unsigned char *in, size_t len, uint64_t max,
    size_t first, size_t piece, websocket_transcript_t *out);

/*
 * Whether the module's transcript is correct: equal to the reference, except
 * that the module gives no byte of a piece in which a text becomes wrong.
 */
int websocket_agrees(const websocket_transcript_t *module,
    const websocket_transcript_t *oracle);


#endif /* WEBSOCKET_ORACLE_H */
