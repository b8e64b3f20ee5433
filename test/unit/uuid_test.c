/* SPDX-License-Identifier: PostgreSQL */

/*
 * UUIDs: their format, their order, and that processes make different ones.
 */

#include "ngx_pgq_uuid.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>


#define MANY   1000000
#define NOW    1767322984678
#define CHILD  2000


static int
compare(const void *one, const void *two)
{
    return memcmp(one, two, 16);
}


static uint64_t
milliseconds(const u_char uuid[16])
{
    int       i;
    uint64_t  ms;

    for (i = 0, ms = 0; i < 6; i++) {
        ms = ms << 8 | uuid[i];
    }

    return ms;
}


static void
test_format(void)
{
    int             good, i;
    u_char          uuid[16], text[40];
    static u_char   seen[16];

    for (good = 1, i = 0; i < 10000; i++) {
        ngx_pgq_uuid_v7(uuid, NOW + (uint64_t) i);
        good &= (uuid[6] >> 4) == 7 && (uuid[8] >> 6) == 2
                && milliseconds(uuid) == NOW + (uint64_t) i;
        seen[uuid[15] & 15] = 1;
    }

    ok(good, "a UUID has version 7, variant 2 and the given milliseconds");
    ok(memchr(seen, 0, 16) == NULL, "all values of the last digit occur");

    for (i = 0; i < 16; i++) {
        uuid[i] = (u_char) (i * 17);
    }

    memset(text, '#', sizeof(text));
    ok(ngx_pgq_uuid_print(text, uuid) == text + 36
       && memcmp(text, "00112233-4455-6677-8899-aabbccddeeff####", 40) == 0,
       "a UUID is printed as 36 characters");

    for (good = 1, i = 0; i < 256; i++) {
        memset(uuid, i, 16);
        ngx_pgq_uuid_print(text, uuid);
        snprintf((char *) text + 37, 3, "%02x", (unsigned) i);
        good &= memcmp(text, text + 37, 2) == 0
                && memcmp(text + 34, text + 37, 2) == 0;
    }

    ok(good, "each value of a byte is printed");
}


static void
test_read(void)
{
    int     good, i;
    u_char  uuid[16], again[16], text[37];

    static const char  *bad[] = {
        "00112233-4455-6677-8899-aabbccddeefg",
        "00112233-4455-6677-8899_aabbccddeeff",
        "00112233445566778899aabbccddeeff0000",
        "00112233-4455-6677-8899-AABBCCDDEEFF",
        "00112233-4455-6677-8899-aabbccddee-f"
    };

    text[36] = '\0';

    for (good = 1, i = 0; i < 10000; i++) {
        ngx_pgq_uuid_v7(uuid, NOW + (uint64_t) i);
        ngx_pgq_uuid_print(text, uuid);
        good &= ngx_pgq_uuid_read(again, text) == 0
                && memcmp(uuid, again, 16) == 0;
    }

    ok(good, "a printed UUID is read");

    for (i = 0; i < (int) (sizeof(bad) / sizeof(bad[0])); i++) {
        ok(ngx_pgq_uuid_read(again, (const u_char *) bad[i]) == -1,
           "%s is rejected", bad[i]);
    }

    ngx_pgq_uuid_print(text, uuid);
    text[20] = '\0';
    ok(ngx_pgq_uuid_read(again, text) == -1,
       "a UUID with a zero byte is rejected");
}


/*
 * The UUID at a given distance from a first one.  The extension computes the
 * same UUIDs.
 */

static void
test_next(void)
{
    int       good, i;
    u_char    first[16], last[16], next[16];

    for (good = 1, i = 0; i < 10000; i++) {
        ngx_pgq_uuid_v7_first(first, NOW + (uint64_t) i);
        ngx_pgq_uuid_next(last, first, (uint64_t) 1 << 61);
        ngx_pgq_uuid_v7(next, NOW + (uint64_t) i);
        good &= (last[8] >> 6) == 2 && memcmp(first, last, 8) == 0
                && compare(first, last) < 0 && compare(last, next) < 0;
    }

    ok(good, "2^61 UUIDs follow a first one");

    memset(first, 0xff, 16);
    first[8] = 0x9f;
    ngx_pgq_uuid_next(next, first, 1);
    ok(next[8] == 0xa0 && next[9] == 0 && next[15] == 0,
       "the next UUID carries over byte borders");
    ngx_pgq_uuid_next(next, first, 0);
    ok(memcmp(next, first, 16) == 0, "the UUID at distance 0 is the same");
}


/* Makes a million UUIDs, a fixed number in each millisecond. */

static void
test_order(unsigned per_ms, const char *name)
{
    int       rising, i;
    u_char   *ids;
    uint64_t  greatest;

    static uint64_t  start = NOW;

    ids = malloc((size_t) MANY * 16);
    start += 10 * MANY;

    for (rising = 1, i = 0; i < MANY; i++) {
        ngx_pgq_uuid_v7(ids + i * 16, start + (uint64_t) i / per_ms);
        rising &= (i == 0 || compare(ids + (i - 1) * 16, ids + i * 16) < 0);
    }

    greatest = milliseconds(ids + (MANY - 1) * 16);

    ok(rising, "%s: each UUID is greater than the one before", name);
    ok(greatest - start <= (uint64_t) MANY / per_ms + MANY / 2048 + 1,
       "%s: the UUIDs stay close to the clock", name);

    for (rising = 1, i = 1; i < MANY; i++) {
        rising &= memcmp(ids + (i - 1) * 16 + 8, ids + i * 16 + 8, 8) != 0;
    }

    ok(rising, "%s: the random parts differ", name);

    free(ids);
}


static void
test_clock(void)
{
    int     good, i;
    u_char  last[16], uuid[16];

    ngx_pgq_uuid_v7(last, NOW + 100000000);

    for (good = 1, i = 0; i < 10000; i++) {
        ngx_pgq_uuid_v7(uuid, NOW + 100000000 - (uint64_t) i * 1000);
        good &= compare(last, uuid) < 0;
        memcpy(last, uuid, 16);
    }

    ok(good, "the order is kept when the clock goes back");
}


/* A parent and its two children make UUIDs in the same milliseconds. */

static void
test_fork(void)
{
    int       n, i, good, status;
    pid_t     pid;
    u_char   *ids;
    size_t    len;
    ssize_t   got;
    int       ends[2];

    ids = malloc((size_t) 3 * CHILD * 16);

    for (n = 0; n < 2; n++) {

        if (pipe(ends) != 0) {
            abort();
        }

        fflush(stdout);
        pid = fork();

        if (pid == 0) {
            good = (ngx_pgq_uuid_init() == 0);

            for (i = 0; i < CHILD; i++) {
                ngx_pgq_uuid_v7(ids + i * 16, NOW + (uint64_t) i / 10);
            }

            good &= write(ends[1], ids, (size_t) CHILD * 16) == CHILD * 16;
            _exit(!good);
        }

        close(ends[1]);

        for (len = 0; len < (size_t) CHILD * 16; len += (size_t) got) {
            got = read(ends[0], ids + (size_t) n * CHILD * 16 + len,
                       (size_t) CHILD * 16 - len);

            if (got <= 0) {
                break;
            }
        }

        close(ends[0]);
        waitpid(pid, &status, 0);
        ok(len == (size_t) CHILD * 16 && status == 0,
           "process %d makes its UUIDs", n);
    }

    ngx_pgq_uuid_init();

    for (i = 0; i < CHILD; i++) {
        ngx_pgq_uuid_v7(ids + (2 * CHILD + i) * 16, NOW + (uint64_t) i / 10);
    }

    /* only the random parts */

    for (i = 0; i < 3 * CHILD; i++) {
        memset(ids + i * 16, 0, 8);
    }

    qsort(ids, 3 * CHILD, 16, compare);

    for (good = 1, i = 1; i < 3 * CHILD; i++) {
        good &= compare(ids + (i - 1) * 16, ids + i * 16) != 0;
    }

    ok(good, "a parent and two children have different random bits");

    free(ids);
}


int
main(void)
{
    ok(ngx_pgq_uuid_init() == 0, "the generator is initialized");

    test_format();
    test_read();
    test_next();
    test_order(1000, "1000 in each millisecond");
    test_order(MANY, "a million in one millisecond");
    test_order(1, "one in each millisecond");
    test_clock();
    test_fork();

    return tap_done();
}
