/* SPDX-License-Identifier: PostgreSQL */

/*
 * The parser of streams of pgq_readers: every answer is read whole, and in two
 * pieces with each possible cut, and byte by byte.
 */

#include "readers_stream.h"
#include "tap.h"

#include <string.h>


#define HEAD  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


static char    heard[8192];
static size_t  heard_len;


static void
hear(void *data, readers_field_t field, const u_char *value, size_t len)
{
    (void) data;

    if (field == READERS_FIELD_END) {
        heard[heard_len++] = '.';
        return;
    }

    heard[heard_len++] = "ider"[field];
    heard[heard_len++] = '=';
    memcpy(heard + heard_len, value, len);
    heard_len += len;
    heard[heard_len++] = '|';
}


/* Feeds the text in pieces; stops at the first result other than AGAIN. */

static readers_stream_result_t
feed(const char *text, size_t cut, size_t step)
{
    size_t                   n, len, done;
    readers_stream_t         stream;
    readers_stream_result_t  result;

    readers_stream_reset(&stream);
    heard_len = 0;
    len = strlen(text);
    result = READERS_STREAM_AGAIN;

    for (done = 0; done < len && result == READERS_STREAM_AGAIN; done += n) {
        n = (done == 0 && cut) ? cut : step;
        n = (n < len - done) ? n : len - done;

        result = readers_stream_feed(&stream, (const u_char *) text + done, n,
                                     hear, NULL);
    }

    heard[heard_len] = '\0';

    return result;
}


static void
check(const char *text, readers_stream_result_t result, const char *expected,
    const char *name)
{
    int     good;
    size_t  cut, len;

    len = strlen(text);
    good = (feed(text, 0, len) == result && strcmp(heard, expected) == 0);

    for (cut = 1; good && cut < len; cut++) {
        good = (feed(text, cut, len) == result
                && strcmp(heard, expected) == 0);
    }

    good = good && feed(text, 0, 1) == result && strcmp(heard, expected) == 0;

    if (!ok(good, "%s", name)) {
        printf("# heard: %s\n", heard);
    }
}


static void
test_long_lines(void)
{
    char    text[READERS_LINE_MAX * 2 + 200];
    size_t  len;

    len = (size_t) sprintf(text, HEAD "\r\ndata: ");
    memset(text + len, 'x', READERS_LINE_MAX * 2);
    strcpy(text + len + READERS_LINE_MAX * 2, "\n\n");

    ok(feed(text, 0, strlen(text)) == READERS_STREAM_AGAIN
       && heard_len == READERS_LINE_MAX * 2 + 4,
       "a line in one piece may be longer than the buffer");

    ok(feed(text, 0, 100) == READERS_STREAM_BAD,
       "a line in pieces that does not fit the buffer is an error");
}


int
main(void)
{
    check(HEAD "\r\nid: 7\ndata: {\"n\":1}\n\n", READERS_STREAM_AGAIN,
          "i=7|d={\"n\":1}|.", "an event has an id, data and an end");

    check(HEAD "Transfer-Encoding: chunked\r\n\r\n"
          "6\r\nid: 7\n\r\nb;x=1\r\ndata: hello\r\n1\r\n\n\r\n1\r\n\n\r\n",
          READERS_STREAM_AGAIN, "i=7|d=hello|.",
          "lines and chunks need not have the same boundaries");

    check(HEAD "transfer-encoding: CHUNKED\r\n\r\n"
          "B\r\ndata: a\r\n\r\n\r\n0\r\nTrailer: x\r\n\r\n", READERS_STREAM_ENDED,
          "d=a|.", "a chunk of length 0 and trailers end the stream");

    check(HEAD "Transfer-Encoding: chunked\r\n\r\n"
          "7\r\ndata: a\r\n0\r\n\r\n", READERS_STREAM_ENDED, "",
          "a line without an end is not read");

    check(HEAD "\r\n: comment\nretry: 2000\nid:8\nevent:reset\ndata\n\n",
          READERS_STREAM_AGAIN, "r=2000|i=8|e=reset|.",
          "comments are skipped, and the blank after the colon is optional");

    check(HEAD "\r\nid\nidx: 1\ndat: 2\n\n", READERS_STREAM_AGAIN, ".",
          "other fields are skipped");

    check("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno",
          READERS_STREAM_REFUSED, "", "another status refuses the stream");

    check("SSH-2.0-OpenSSH_9.2\r\n", READERS_STREAM_BAD, "",
          "another protocol is an error");

    check(HEAD "Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
          READERS_STREAM_BAD, "", "a chunk without a length is an error");

    check(HEAD "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
          READERS_STREAM_BAD, "", "a chunk longer than its length is an error");

    check(HEAD "Transfer-Encoding: chunked\r\n\r\n123456789\r\n\r\n",
          READERS_STREAM_BAD, "", "a length of more than 32 bits is an error");

    test_long_lines();

    return tap_done();
}
