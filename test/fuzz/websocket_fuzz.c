/* SPDX-License-Identifier: PostgreSQL */

/*
 * Any bytes of a WebSocket client, cut in any way, give the events that the
 * reference parser of the unit tests finds in the uncut bytes.  An input is
 * three bytes and the frames: the limit of a message, in units of 16 bytes;
 * the length of the first piece; the length of the others.
 */

#include "fuzz.h"
#include "websocket_oracle.h"


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    size_t                  first, piece;
    uint64_t                max;
    fuzz_input_t            in = { p, len };
    websocket_transcript_t  module = { NULL, 0, 0, 0 };
    websocket_transcript_t  oracle = { NULL, 0, 0, 0 };

    max = 16 * fuzz_byte(&in);
    first = fuzz_byte(&in);
    piece = fuzz_byte(&in);

    websocket_module(in.p, in.len, max, first, piece, &module);
    websocket_oracle(in.p, in.len, max, &oracle);

    fuzz_check(websocket_agrees(&module, &oracle));

    websocket_transcript_free(&module);
    websocket_transcript_free(&oracle);

    return 0;
}
