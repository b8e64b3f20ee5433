/* SPDX-License-Identifier: PostgreSQL */

/*
 * The requests of the load client: size, content, and hashes of bodies.
 */

#include "load_body.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>


static load_settings_t  settings;
static load_target_t    targets[2];


/* The text of a request, to be freed by the caller. */

static char *
text_of(unsigned target, uint64_t n, uint64_t line)
{
    char            *text;
    load_request_t   request;

    load_body_request(&request, target, n, line);

    text = malloc(request.len + 1);
    memcpy(text, request.iov[0].iov_base, request.iov[0].iov_len);

    if (request.niov == 2) {
        memcpy(text + request.iov[0].iov_len, request.iov[1].iov_base,
               request.iov[1].iov_len);
    }

    text[request.len] = '\0';

    return text;
}


static int
is_text(unsigned target, uint64_t n, uint64_t line, const char *expected)
{
    int    good;
    char  *text;

    text = text_of(target, n, line);
    good = strcmp(text, expected) == 0;

    if (!good) {
        printf("# %s\n", text);
    }

    free(text);

    return good;
}


static void
test_generated(void)
{
    int              good;
    char            *text, *again, *body;
    size_t           i;
    load_request_t   request;

    static const uint64_t  numbers[] = {
        1, 9, 10, 1, 99, 100, 12345678901, 7, 4294967296, 1000000
    };

    ok(is_text(0, 42, 0,
               "POST /post HTTP/1.1\r\nHost: one:80\r\nA: b\r\n"
               "Content-Type: application/json\r\nContent-Length: 45\r\n\r\n"
               "{\"run\":\"0123abcd\",\"n\":42,\"pad\":\"xxxxxxxxxxx\"}"),
       "a request has the headers and the body of its number");
    ok(is_text(1, 1000, 0,
               "POST /other HTTP/1.1\r\nHost: two\r\nA: b\r\n"
               "Content-Type: application/json\r\nContent-Length: 45\r\n\r\n"
               "{\"run\":\"0123abcd\",\"n\":1000,\"pad\":\"xxxxxxxxx\"}"),
       "a request has the path and the host of its target");

    for (good = 1, i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        text = text_of(0, numbers[i], 0);
        load_body_request(&request, 0, numbers[(i + 3) % 10], 0);
        again = text_of(0, numbers[i], 0);
        body = strstr(text, "{");

        load_body_request(&request, 0, numbers[i], 0);

        good &= strcmp(text, again) == 0 && strlen(body) == 45
                && strtoull(body + 22, NULL, 10) == numbers[i]
                && strcmp(body + 43, "\"}") == 0
                && request.body_len == 45
                && memcmp(request.body, body, 45) == 0;

        free(text);
        free(again);
    }

    ok(good, "a number makes the same request after any other one");
}


static void
test_file(void)
{
    int   fd;
    char  name[] = "/tmp/load_body_test.XXXXXX";

    static const char  lines[] = "{\"a\":1}\n[2]\n\n\"the last\"";

    fd = mkstemp(name);

    ok(write(fd, lines, sizeof(lines) - 1) == sizeof(lines) - 1
       && close(fd) == 0, "the file of bodies is written");

    settings.bodies = name;

    ok(load_body_init(&settings) == 0 && load_body_lines() == 4,
       "a file with an empty line and an unfinished one has four lines");
    ok(is_text(0, 1, 0,
               "POST /post HTTP/1.1\r\nHost: one:80\r\nA: b\r\n"
               "Content-Type: application/json\r\n"
               "Content-Length: 0000000007\r\n\r\n{\"a\":1}"),
       "the first line is a body");
    ok(is_text(0, 2, 2,
               "POST /post HTTP/1.1\r\nHost: one:80\r\nA: b\r\n"
               "Content-Type: application/json\r\n"
               "Content-Length: 0000000000\r\n\r\n"),
       "the empty line is an empty body");
    ok(is_text(0, 3, 3,
               "POST /post HTTP/1.1\r\nHost: one:80\r\nA: b\r\n"
               "Content-Type: application/json\r\n"
               "Content-Length: 0000000010\r\n\r\n\"the last\""),
       "the unfinished line is a body");

    unlink(name);
}


static void
test_hash(void)
{
    int       good;
    char      text[100];
    size_t    len, at;
    uint64_t  hash;

    for (good = 1, len = 1; len < 70; len++) {
        memset(text, 'x', sizeof(text));
        hash = load_body_hash(text, len);

        good &= hash != load_body_hash(text, len + 1);

        for (at = 0; at < len; at++) {
            text[at] ^= 1;
            good &= hash != load_body_hash(text, len);
            text[at] ^= 1;
        }

        good &= hash == load_body_hash(text, len);
    }

    ok(good, "a changed bit or another byte changes the hash");
    ok(load_body_hash(" \t{\"a\": 1}\r\n", 12)
       == load_body_hash("{\"a\": 1}", 8)
       && load_body_hash("{\"a\": 1}", 8) != load_body_hash("{\"a\":1}", 7),
       "the hash ignores white space around a body, not within");
    ok(load_body_hash(" ", 1) == load_body_hash("", 0),
       "white space has the hash of an empty body");
}


int
main(void)
{
    targets[0].path = "/post";
    strcpy(targets[0].host, "one:80");
    targets[1].path = "/other";
    strcpy(targets[1].host, "two");

    settings.targets = targets;
    settings.ntargets = 2;
    settings.method = "POST";
    settings.type = "application/json";
    settings.headers = "A: b\r\n";
    settings.size = 45;
    strcpy(settings.run, "0123abcd");

    if (!ok(load_body_init(&settings) == 0, "the bodies are initialized")) {
        return tap_done();
    }

    test_generated();
    test_file();
    test_hash();

    return tap_done();
}
