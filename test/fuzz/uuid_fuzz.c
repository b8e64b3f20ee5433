/* SPDX-License-Identifier: PostgreSQL */

/*
 * UUIDs are made at any time of a clock that is changed, and any 16 bytes are
 * printed as a UUID.  An input is a list of steps: a byte that changes the
 * clock, and 16 bytes that are printed.
 */

#include "fuzz.h"
#include "ngx_pgq_uuid.h"


#define START   (UINT64_C(1) << 40)
#define LATEST  (UINT64_C(1) << 47)


static int
digit(u_char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : -1;
}


/* Prints the UUID into memory of exactly its length, and reads the text. */

static void
print(const u_char uuid[16])
{
    int      i, at, high, low;
    u_char  *text;

    text = malloc(NGX_PGQ_UUID_TEXT_LEN);
    fuzz_check(text != NULL);
    fuzz_check(ngx_pgq_uuid_print(text, uuid) == text + NGX_PGQ_UUID_TEXT_LEN);

    for (i = 0, at = 0; i < 16; i++) {

        if (at == 8 || at == 13 || at == 18 || at == 23) {
            fuzz_check(text[at++] == '-');
        }

        high = digit(text[at++]);
        low = digit(text[at++]);
        fuzz_check(high >= 0 && low >= 0 && high * 16 + low == uuid[i]);
    }

    fuzz_check(at == NGX_PGQ_UUID_TEXT_LEN);
    free(text);
}


static uint64_t
milliseconds(const u_char uuid[16])
{
    int       i;
    uint64_t  ms;

    for (ms = 0, i = 0; i < 6; i++) {
        ms = ms * 256 + uuid[i];
    }

    return ms;
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    size_t          got;
    u_char          uuid[16], last[16], any[16];
    uint64_t        now, latest;
    unsigned        step;
    fuzz_input_t    in = { p, len };
    const uint8_t  *bytes;

    fuzz_check(ngx_pgq_uuid_init() == 0);

    memset(last, 0, sizeof(last));
    now = latest = START;

    while (in.len) {
        step = fuzz_byte(&in);

        /* forward, back, or unchanged; by 1 ms to years */

        if (step & 0x40 && now < LATEST) {
            now += UINT64_C(1) << (step & 0x1f);

        } else if (step & 0x80 && now > (UINT64_C(1) << (step & 0x1f))) {
            now -= UINT64_C(1) << (step & 0x1f);
        }

        latest = now > latest ? now : latest;

        ngx_pgq_uuid_v7(uuid, now);

        fuzz_check(uuid[6] >> 4 == 7 && uuid[8] >> 6 == 2);
        fuzz_check(memcmp(uuid, last, 16) > 0);
        fuzz_check(milliseconds(uuid) >= now);
        fuzz_check(milliseconds(uuid) <= latest + len / 2048 + 1);
        memcpy(last, uuid, 16);

        bytes = fuzz_bytes(&in, sizeof(any), &got);
        memset(any, 0, sizeof(any));
        memcpy(any, bytes, got);
        print(any);
    }

    return 0;
}
