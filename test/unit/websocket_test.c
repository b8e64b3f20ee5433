/* SPDX-License-Identifier: PostgreSQL */

/*
 * The reader of WebSocket frames: each header, length, close code and cut, and
 * texts cut within characters.  Where the expected result is not written here
 * it is that of the reference parser.
 */

#include "ngx_pgq_websocket.h"
#include "tap.h"
#include "websocket_oracle.h"

#include <stdlib.h>
#include <string.h>


#define count(list)  (sizeof(list) / sizeof(list[0]))

#define INPUT_MAX  (256 * 1024)
#define MAX        (128 * 1024)


static unsigned char  input[INPUT_MAX];
static size_t         input_len;

static const unsigned char  mask[4] = { 0x37, 0xfa, 0x21, 0x3d };


/*
 * Adds a frame of a client.  The length has 7, 16 or 64 bits; 0: the shortest
 * form.
 */

static void
frame(unsigned first, const void *payload, size_t len, int form)
{
    int                   bits;
    size_t                i;
    unsigned char        *p;
    const unsigned char  *from = payload;

    if (form == 0) {
        form = len < 126 ? 7 : len < 65536 ? 16 : 64;
    }

    p = input + input_len;
    *p++ = (unsigned char) first;
    *p++ = (unsigned char) (0x80 | (form == 7 ? len : form == 16 ? 126 : 127));

    for (bits = form - 8; bits >= 0; bits -= 8) {
        *p++ = (unsigned char) ((uint64_t) len >> bits);
    }

    memcpy(p, mask, 4);
    p += 4;

    for (i = 0; i < len; i++) {
        *p++ = from[i] ^ mask[i % 4];
    }

    input_len = (size_t) (p - input);
}


/* Whether both parsers agree on the input; a transcript is kept in *out. */

static int
agrees(size_t first, size_t piece, websocket_transcript_t *out)
{
    int                     good;
    websocket_transcript_t  oracle = { NULL, 0, 0, 0 };

    websocket_transcript_free(out);
    websocket_module(input, input_len, MAX, first, piece, out);
    websocket_oracle(input, input_len, MAX, &oracle);

    good = websocket_agrees(out, &oracle);
    websocket_transcript_free(&oracle);

    return good;
}


/* The close code of the error in the input; 0: none. */

static unsigned
error(void)
{
    unsigned                code;
    websocket_transcript_t  out = { NULL, 0, 0, 0 };

    websocket_module(input, input_len, MAX, 0, 0, &out);
    code = out.error;
    websocket_transcript_free(&out);

    return code;
}


static void
test_headers(void)
{
    int                     good, valid, open;
    unsigned                a, b, opcode, fin;
    websocket_transcript_t  out = { NULL, 0, 0, 0 };

    for (open = 0; open < 2; open++) {

        for (good = 1, valid = 0, a = 0; a < 256; a++) {

            for (b = 0; b < 256; b++) {
                input_len = 0;

                if (open) {
                    frame(NGX_PGQ_WEBSOCKET_TEXT, "a", 1, 0);
                }

                input[input_len++] = (unsigned char) a;
                input[input_len++] = (unsigned char) b;

                opcode = a & 15;
                fin = a >> 7;
                valid = (a & 0x70) == 0 && b >= 128
                        && (opcode == 0 ? open
                            : opcode < 3 ? !open
                            : opcode >= 8 && opcode <= 10 && fin
                              && b - 128 < 126);

                good &= agrees(0, 1, &out) && (error() == 0) == valid
                        && (valid || error() == 1002);
            }
        }

        ok(good, "of all first two bytes %s a message only the valid ones are"
           " accepted; the others are errors of protocol",
           open ? "within" : "before");
    }

    websocket_transcript_free(&out);
}


static void
test_lengths(void)
{
    size_t                  i;
    static unsigned char    payload[MAX + 1];
    websocket_transcript_t  out = { NULL, 0, 0, 0 };

    static const struct {
        size_t    len;
        int       form;
        unsigned  error;
    } lengths[] = {
        { 0, 7, 0 }, { 1, 7, 0 }, { 125, 7, 0 },
        { 126, 16, 0 }, { 127, 16, 0 }, { 65535, 16, 0 },
        { 65536, 64, 0 }, { MAX, 64, 0 }, { MAX + 1, 64, 1009 },
        { 0, 16, 1002 }, { 125, 16, 1002 },
        { 0, 64, 1002 }, { 126, 64, 1002 }, { 65535, 64, 1002 }
    };

    memset(payload, 'a', sizeof(payload));

    for (i = 0; i < count(lengths); i++) {
        input_len = 0;
        frame(0x81, payload, lengths[i].len, lengths[i].form);

        ok(agrees(0, 0, &out) && agrees(0, 1000, &out) && agrees(3, 7, &out)
           && error() == lengths[i].error,
           "a length of %zu in %d bits is %s", lengths[i].len,
           lengths[i].form, lengths[i].error ? "refused" : "accepted");
    }

    for (i = 8; i < 64; i++) {
        input_len = 0;
        frame(0x82, payload, 0, 64);
        memset(input + 2, 0, 8);
        input[9 - i / 8] = (unsigned char) (1 << i % 8);

        ok(agrees(0, 0, &out)
           && error() == (i == 63 || i < 16 ? 1002
                          : ((uint64_t) 1 << i) > MAX ? 1009 : 0),
           "a length of 2^%zu is refused or accepted by its size", i);
    }

    websocket_transcript_free(&out);
}


/* The limit counts all frames of a message. */

static void
test_message_limit(void)
{
    int                   n, i;
    static unsigned char  payload[MAX / 4];

    memset(payload, 'a', sizeof(payload));

    for (n = 4; n <= 5; n++) {
        input_len = 0;

        for (i = 0; i < n; i++) {
            frame(i ? 0x00 : 0x01, payload, i < 4 ? sizeof(payload) : 1, 0);
        }

        frame(0x80, "", 0, 0);

        ok(error() == (n == 4 ? 0 : 1009), "a message of %d bytes in several"
           " frames is %s", n == 4 ? MAX : MAX + 1,
           n == 4 ? "accepted" : "too large");
    }

    input_len = 0;

    for (n = 0; n < 3; n++) {
        frame(0x81, payload, sizeof(payload), 0);
        frame(0x82, payload, sizeof(payload), 0);
    }

    ok(error() == 0, "the limit is that of one message, not of the"
       " connection");
}


static void
test_cuts(void)
{
    int                     good;
    size_t                  i, len;
    unsigned char           payload[300];
    websocket_transcript_t  whole = { NULL, 0, 0, 0 }, out = { NULL, 0, 0, 0 };

    for (i = 0; i < sizeof(payload); i++) {
        payload[i] = "\xf0\x9f\x98\x80z"[i % 5];
    }

    input_len = 0;
    frame(0x01, payload, 1, 0);
    frame(0x89, payload, 125, 0);
    frame(0x00, payload + 1, 1, 0);
    frame(0x8a, "", 0, 0);
    frame(0x00, "", 0, 0);
    frame(0x80, payload + 2, 298, 0);
    frame(0x82, payload, 200, 0);
    frame(0x81, "", 0, 0);
    frame(0x88, "\x03\xe8" "done", 6, 0);
    len = input_len;

    ok(agrees(0, 0, &whole) && error() == 0 && whole.len > 1000
       && memcmp(whole.data + whole.len - 4, "ne\x03\xe8", 4) == 0,
       "fragments with control frames between them are read to the Close"
       " frame");

    for (i = 1, good = 1; i < len; i++) {
        good &= agrees(i, 0, &out) && out.len == whole.len
                && memcmp(out.data, whole.data, out.len) == 0;
    }

    ok(good, "a cut at any of %zu positions changes nothing", len - 1);

    for (i = 1, good = 1; i < 40; i++) {
        good &= agrees(i % 7, i, &out) && out.len == whole.len
                && memcmp(out.data, whole.data, out.len) == 0;
    }

    ok(good, "pieces of 1 to 39 bytes change nothing");

    for (input_len = 0, good = 1; input_len < len; input_len++) {
        good &= agrees(0, 0, &out) && error() == 0
                && memcmp(out.data ? out.data : whole.data, whole.data,
                          out.len) == 0;
    }

    ok(good, "an input that ends early is no error");

    websocket_transcript_free(&whole);
    websocket_transcript_free(&out);
}


static void
test_close_codes(void)
{
    int            valid, good;
    unsigned       code;
    unsigned char  payload[2];

    for (code = 0, good = 1; code <= 5000; code++) {
        payload[0] = (unsigned char) (code >> 8);
        payload[1] = (unsigned char) code;

        input_len = 0;
        frame(0x88, payload, 2, 0);

        valid = (code >= 3000 && code < 5000)
                || (code >= 1000 && code <= 1014
                    && code != 1004 && code != 1005 && code != 1006);

        good &= error() == (valid ? 0 : 1002)
                && ngx_pgq_websocket_code_valid(code) == valid;
    }

    ok(good, "of the close codes 0 to 5000 only those of the RFC and its"
       " registry are accepted");

    input_len = 0;
    frame(0x88, "", 0, 0);
    ok(error() == 0, "a Close frame without a code is accepted");

    input_len = 0;
    frame(0x88, "\x03", 1, 0);
    ok(error() == 1002, "a Close frame of one byte is refused");

    input_len = 0;
    frame(0x88, "\x03\xe8\xc3", 3, 0);
    ok(error() == 1007, "a Close reason that ends within a character is"
       " refused");

    input_len = 0;
    frame(0x01, "\xc3", 1, 0);
    frame(0x88, "\x03\xe8\xa4", 3, 0);
    ok(error() == 1007, "a Close reason does not continue a text");
}


/* A text is cut at each byte: by frames, and by pieces of input. */

static void
text(const char *bytes, size_t len, unsigned wanted)
{
    int                     good;
    size_t                  cut;
    websocket_transcript_t  out = { NULL, 0, 0, 0 };

    for (cut = 0, good = 1; cut <= len; cut++) {
        input_len = 0;
        frame(0x01, bytes, cut, 0);
        frame(0x89, "\xff", 1, 0);
        frame(0x80, bytes + cut, len - cut, 0);

        good &= agrees(0, 0, &out) && agrees(0, 1, &out) && error() == wanted;
    }

    websocket_transcript_free(&out);

    ok(good, "a text of %zu bytes from 0x%02x 0x%02x 0x%02x is %s in any two"
       " frames", len, (unsigned char) bytes[0],
       len > 1 ? (unsigned char) bytes[1] : 0,
       len > 2 ? (unsigned char) bytes[2] : 0,
       wanted ? "refused" : "accepted");
}


static void
test_utf8(void)
{
    size_t  i;

    static const char *const  valid[] = {
        "a", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf",
        "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80",
        "\xf4\x8f\xbf\xbf", "eightbyt\xc3\xa4" "eightbyt\xe2\x82\xac!",
        "\xef\xbb\xbf" "a"
    };

    static const char *const  invalid[] = {
        "\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x7f",
        "\xc2\xc0", "\xe0\x9f\xbf", "\xe0\xa0", "\xed\xa0\x80",
        "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf0\x90\x80", "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80", "\xff", "\xfe", "\xf8\x88\x80\x80\x80",
        "eightbyteightby\xc3", "eightbyt\x80" "eightbyt"
    };

    for (i = 0; i < count(valid); i++) {
        text(valid[i], strlen(valid[i]), 0);
    }

    text("\0", 1, 0);

    for (i = 0; i < count(invalid); i++) {
        text(invalid[i], strlen(invalid[i]), 1007);
    }
}


/* All two-byte beginnings, and all third bytes after the critical ones. */

static void
test_utf8_generated(void)
{
    int                     good;
    unsigned                a, b, c;
    unsigned char           bytes[3];
    websocket_transcript_t  out = { NULL, 0, 0, 0 };

    for (a = 0, good = 1; a < 256; a++) {

        for (b = 0; b < 256; b++) {

            for (c = 0x7f; c < 0x100; c += a > 0xc0 ? 1 : 0x40) {
                bytes[0] = (unsigned char) a;
                bytes[1] = (unsigned char) b;
                bytes[2] = (unsigned char) c;

                input_len = 0;
                frame(0x01, bytes, 2, 0);
                frame(0x80, bytes + 2, 1, 0);

                good &= agrees(0, 0, &out);
            }
        }
    }

    websocket_transcript_free(&out);

    ok(good, "the reference parser agrees on all texts of three bytes");
}


static void
test_masks(void)
{
    int                     good;
    size_t                  len;
    unsigned char           payload[64];
    websocket_transcript_t  out = { NULL, 0, 0, 0 };

    memset(payload, 'm', sizeof(payload));

    for (len = 0, good = 1; len <= sizeof(payload); len++) {
        size_t  first, i;

        input_len = 0;
        frame(0x82, payload, len, 0);

        for (first = 1; first <= input_len; first++) {
            good &= agrees(first, 0, &out) && out.len == 2 * len + 1;

            for (i = 0; i < len; i++) {
                good &= out.data[2 * i + 1] == 'm';
            }
        }
    }

    websocket_transcript_free(&out);

    ok(good, "payloads of 0 to 64 bytes are unmasked, in two pieces of any"
       " length");
}


/* What is written is read again, with a mask added. */

static void
test_writer(void)
{
    size_t         i;
    unsigned char  out[128], *end;

    static const struct {
        uint64_t       len;
        size_t         header;
        unsigned char  bytes[10];
    } headers[] = {
        { 0, 2, { 0x81, 0 } },
        { 125, 2, { 0x81, 125 } },
        { 126, 4, { 0x81, 126, 0, 126 } },
        { 65535, 4, { 0x81, 126, 255, 255 } },
        { 65536, 10, { 0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0 } }
    };

    for (i = 0; i < count(headers); i++) {
        end = ngx_pgq_websocket_header(out, NGX_PGQ_WEBSOCKET_TEXT,
                                       headers[i].len);

        ok((size_t) (end - out) == headers[i].header
           && memcmp(out, headers[i].bytes, headers[i].header) == 0,
           "the header of a frame of %zu bytes has the shortest form",
           (size_t) headers[i].len);
    }

    end = ngx_pgq_websocket_close(out, NGX_PGQ_WEBSOCKET_TOO_LARGE, "too big");

    ok(end - out == 11 && memcmp(out, "\x88\x09\x03\xf1too big", 11) == 0,
       "a Close frame has its code and its reason");
}


int
main(void)
{
    test_headers();
    test_lengths();
    test_message_limit();
    test_cuts();
    test_close_codes();
    test_utf8();
    test_utf8_generated();
    test_masks();
    test_writer();

    return tap_done();
}
