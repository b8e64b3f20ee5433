/* SPDX-License-Identifier: PostgreSQL */

/*
 * The HTTP parser of the load client: whole, truncated and malformed answers.
 */

#include "load_answer.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>


#define UUID  "01234567-89ab-7cde-8f01-23456789abcd"
#define BODY  "{\"status\":\"queued\",\"id\":\"" UUID "\"}"


typedef struct {
    const char  *name;
    const char  *text;
    int          bodiless;
    unsigned     status;
    int          close;
    int          retry_after;
    size_t       kept;
    int          id;
} answer_t;


static const answer_t  answers[] = {

    { "with a length",
      "HTTP/1.1 202 Accepted\r\nServer: x\r\nContent-Length: 63\r\n\r\n" BODY,
      0, 202, 0, -1, 63, 1 },

    { "with a header in mixed case",
      "HTTP/1.1 202 Accepted\r\ncontent-LENGTH:63\r\n\r\n" BODY,
      0, 202, 0, -1, 63, 1 },

    { "without carriage returns",
      "HTTP/1.1 202 Accepted\nContent-Length: 63\n\n" BODY,
      0, 202, 0, -1, 63, 1 },

    { "without a body",
      "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
      0, 202, 0, -1, 0, 0 },

    { "with status 204",
      "HTTP/1.1 204 No Content\r\nAllow: POST\r\n\r\n", 0, 204, 0, -1, 0, 0 },

    { "with status 304",
      "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n",
      0, 304, 0, -1, 0, 0 },

    { "to HEAD",
      "HTTP/1.1 200 OK\r\nContent-Length: 700\r\n\r\n", 1, 200, 0, -1, 0, 0 },

    { "with Connection: close",
      "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n"
      "Connection: close\r\nContent-Length: 2\r\n\r\nno",
      0, 503, 1, 7, 2, 0 },

    { "with a date in Retry-After",
      "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n"
      "Retry-After: Fri, 31 Dec 2027 23:59:59 GMT\r\n\r\nno",
      0, 503, 0, -1, 2, 0 },

    { "of HTTP/1.0",
      "HTTP/1.0 202 Accepted\r\nContent-Length: 2\r\n\r\nok",
      0, 202, 1, -1, 2, 0 },

    { "in chunks",
      "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n"
      "10\r\n{\"status\":\"queue\r\n"
      "2f;name=value\r\nd\",\"id\":\"" UUID "\"}\r\n"
      "0\r\n\r\n",
      0, 202, 0, -1, 63, 1 },

    { "in chunks with a trailer",
      "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n"
      "A\r\n0123456789\r\n000\r\nOne: two\r\nThree: four\r\n\r\n",
      0, 202, 0, -1, 10, 0 },

    { "after interim answers",
      "HTTP/1.1 100 Continue\r\n\r\n"
      "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
      "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok",
      0, 202, 0, -1, 2, 0 },
};


static const char *const  bad_answers[] = {
    "GET / HTTP/1.1\r\n\r\n",
    "HTTP/2 202 Accepted\r\n\r\n",
    "HTTP/1.1 20x Accepted\r\n\r\n",
    "HTTP/1.1 099 Accepted\r\n\r\n",
    "HTTP/1.1 700 Accepted\r\n\r\n",
    "HTTP/1.1 202\r\nno header\r\n\r\n",
    "HTTP/1.1 202 Accepted\r\nno header\r\n\r\n",
    "HTTP/1.1 202 Accepted\r\nContent-Length: 2x\r\n\r\n",
    "HTTP/1.1 202 Accepted\r\nContent-Length: -2\r\n\r\n",
    "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok, and more",
    "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n12\r\n"
};


static load_answer_t  answer;


/* Parses the text in two pieces, or byte by byte if cut is 0. */

static load_answer_result_t
feed(const char *text, size_t len, size_t cut)
{
    size_t                at;
    u_char               *piece;
    load_answer_result_t  result;

    result = LOAD_ANSWER_AGAIN;

    for (at = 0; at < len && result == LOAD_ANSWER_AGAIN; /* void */ ) {
        size_t  n;

        n = (cut == 0) ? 1 : (at < cut) ? cut - at : len - at;

        /* separate memory, so that the sanitizer finds an overread */

        piece = malloc(n);
        memcpy(piece, text + at, n);
        result = load_answer_feed(&answer, piece, n);
        free(piece);

        at += n;
    }

    return at == len ? result : LOAD_ANSWER_BAD;
}


static int
as_expected(const answer_t *expected)
{
    u_char  id[16];

    return answer.status == expected->status
           && answer.close == (unsigned) expected->close
           && answer.retry_after == expected->retry_after
           && answer.kept == expected->kept
           && (load_answer_id(&answer, id) == 0) == expected->id
           && (!expected->id
               || memcmp(id, "\x01\x23\x45\x67\x89\xab\x7c\xde"
                             "\x8f\x01\x23\x45\x67\x89\xab\xcd", 16) == 0);
}


static void
test_good(void)
{
    int              good;
    size_t           i, cut, len;
    const answer_t  *expected;

    for (i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        expected = &answers[i];
        len = strlen(expected->text);
        good = 1;

        for (cut = 0; cut <= len; cut++) {
            load_answer_reset(&answer, expected->bodiless);
            good &= feed(expected->text, len, cut) == LOAD_ANSWER_WHOLE
                    && as_expected(expected);
        }

        ok(good,
           "an answer %s is parsed in two pieces of any length",
           expected->name);

        for (good = 1, cut = 1; cut < len; cut++) {
            load_answer_reset(&answer, expected->bodiless);
            good &= feed(expected->text, cut, cut) == LOAD_ANSWER_AGAIN
                    && load_answer_end(&answer) == LOAD_ANSWER_BAD;
        }

        ok(good,
           "an answer %s is not complete before its end", expected->name);
    }
}


static void
test_endless(void)
{
    const char  *text;

    text = "HTTP/1.1 202 Accepted\r\n\r\n" BODY;

    load_answer_reset(&answer, 0);
    ok(feed(text, strlen(text), 0) == LOAD_ANSWER_AGAIN,
       "an answer without a length is not complete while it is open");
    ok(load_answer_end(&answer) == LOAD_ANSWER_WHOLE && answer.kept == 63,
       "an answer without a length is complete at the end");
}


static void
test_bad(void)
{
    int                   good;
    char                 *text;
    size_t                i, cut, len;
    load_answer_result_t  result;

    for (i = 0; i < sizeof(bad_answers) / sizeof(bad_answers[0]); i++) {
        len = strlen(bad_answers[i]);

        for (good = 1, cut = 0; cut < len; cut++) {
            load_answer_reset(&answer, 0);
            good &= feed(bad_answers[i], len, cut) == LOAD_ANSWER_BAD;
        }

        ok(good, "malformed answer %zu is rejected", i);
    }

    len = LOAD_ANSWER_HEAD_MAX + 100;
    text = malloc(len);
    memset(text, 'x', len);
    memcpy(text, "HTTP/1.1 202 Accepted\r\nA: ", 26);

    load_answer_reset(&answer, 0);
    ok(feed(text, len, len) == LOAD_ANSWER_BAD,
       "a header that is too long is rejected in one piece");

    load_answer_reset(&answer, 0);

    for (i = 0; i < len; i++) {
        result = load_answer_feed(&answer, (u_char *) text + i, 1);

        if (result != LOAD_ANSWER_AGAIN) {
            break;
        }
    }

    ok(result == LOAD_ANSWER_BAD && i < len,
       "a header that is too long is rejected byte by byte");

    load_answer_reset(&answer, 0);
    ok(load_answer_end(&answer) == LOAD_ANSWER_BAD,
       "the end of the connection without an answer is rejected");

    free(text);
}


static void
test_uuid(void)
{
    char    text[40];
    u_char  id[16];
    size_t  i;
    int     good;

    for (good = 1, i = 0; i < 36; i++) {
        strcpy(text, UUID);
        text[i] = 'g';
        good &= load_answer_uuid((u_char *) text, id) == -1;
    }

    ok(good, "a UUID with a wrong character is rejected");
}


int
main(void)
{
    test_good();
    test_endless();
    test_bad();
    test_uuid();

    return tap_done();
}
