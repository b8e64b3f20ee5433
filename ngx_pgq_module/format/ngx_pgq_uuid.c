/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file makes ids.  An id has 48 bits of milliseconds, a 12-bit counter
 * (RFC 9562, 6.2, method 1) and 62 random bits.  In a new millisecond the
 * counter starts at a random value in its lower half.  When the clock goes
 * back, the milliseconds of the last id are kept; when the counter overflows,
 * they are incremented.
 *
 * Random bytes are read in blocks: a system call costs more than an id.
 *
 * Invariants:
 *  - a byte of the block is used once, unless getrandom() fails;
 *  - ngx_pgq_uuid_ms and ngx_pgq_uuid_counter are those of the last id.
 */

#include "ngx_pgq_uuid.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>


#define NGX_PGQ_UUID_BLOCK        4096    /* random bytes per system call */
#define NGX_PGQ_UUID_COUNTER_MAX  0x0fff
#define NGX_PGQ_UUID_START_MASK   0x07ff


static int ngx_pgq_uuid_fill(void);
static void ngx_pgq_uuid_random(void *dst, size_t len);


static u_char    ngx_pgq_uuid_block[NGX_PGQ_UUID_BLOCK];
static size_t    ngx_pgq_uuid_used = NGX_PGQ_UUID_BLOCK;
static uint64_t  ngx_pgq_uuid_ms;
static uint16_t  ngx_pgq_uuid_counter;


static const char  ngx_pgq_uuid_hex[] =
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
    "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
    "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f"
    "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
    "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf"
    "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf"
    "e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";


int
ngx_pgq_uuid_init(void)
{
    ngx_pgq_uuid_ms = 0;
    ngx_pgq_uuid_counter = 0;

    return ngx_pgq_uuid_fill();
}


void
ngx_pgq_uuid_v7(u_char out[16], uint64_t unix_ms)
{
    int       i;
    uint64_t  ms;

    if (unix_ms > ngx_pgq_uuid_ms) {
        ngx_pgq_uuid_ms = unix_ms;
        ngx_pgq_uuid_random(&ngx_pgq_uuid_counter,
                            sizeof(ngx_pgq_uuid_counter));
        ngx_pgq_uuid_counter &= NGX_PGQ_UUID_START_MASK;

    } else if (ngx_pgq_uuid_counter == NGX_PGQ_UUID_COUNTER_MAX) {
        ngx_pgq_uuid_ms++;
        ngx_pgq_uuid_counter = 0;

    } else {
        ngx_pgq_uuid_counter++;
    }

    ms = ngx_pgq_uuid_ms;

    for (i = 5; i >= 0; i--) {
        out[i] = (u_char) ms;
        ms >>= 8;
    }

    out[6] = 0x70 | (ngx_pgq_uuid_counter >> 8);
    out[7] = (u_char) ngx_pgq_uuid_counter;

    ngx_pgq_uuid_random(out + 8, 8);
    out[8] = 0x80 | (out[8] & 0x3f);
}


void
ngx_pgq_uuid_v7_first(u_char out[16], uint64_t unix_ms)
{
    ngx_pgq_uuid_v7(out, unix_ms);
    out[8] &= 0x9f;
}


void
ngx_pgq_uuid_next(u_char out[16], const u_char first[16], uint64_t n)
{
    int  i;

    memcpy(out, first, 16);

    for (i = 15; i >= 8; i--) {
        n += out[i];
        out[i] = (u_char) n;
        n >>= 8;
    }
}


int
ngx_pgq_uuid_read(u_char out[16], const u_char *text)
{
    int          i, digit;
    const char  *p, digits[] = "0123456789abcdef";

    memset(out, 0, 16);

    for (i = 0, digit = 0; i < NGX_PGQ_UUID_TEXT_LEN; i++) {

        if (i == 8 || i == 13 || i == 18 || i == 23) {

            if (text[i] != '-') {
                return -1;
            }

            continue;
        }

        p = text[i] ? strchr(digits, text[i]) : NULL;

        if (p == NULL) {
            return -1;
        }

        out[digit / 2] = (u_char) (out[digit / 2] << 4 | (p - digits));
        digit++;
    }

    return 0;
}


u_char *
ngx_pgq_uuid_print(u_char *dst, const u_char uuid[16])
{
    int  i;

    for (i = 0; i < 16; i++) {

        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *dst++ = '-';
        }

        memcpy(dst, &ngx_pgq_uuid_hex[uuid[i] * 2], 2);
        dst += 2;
    }

    return dst;
}


static int
ngx_pgq_uuid_fill(void)
{
    size_t   len;
    ssize_t  n;

    for (len = 0; len < NGX_PGQ_UUID_BLOCK; len += n) {
        n = getrandom(ngx_pgq_uuid_block + len, NGX_PGQ_UUID_BLOCK - len, 0);

        if (n == -1) {

            if (errno != EINTR) {
                return -1;
            }

            n = 0;
        }
    }

    ngx_pgq_uuid_used = 0;

    return 0;
}


static void
ngx_pgq_uuid_random(void *dst, size_t len)
{
    if (NGX_PGQ_UUID_BLOCK - ngx_pgq_uuid_used < len
        && ngx_pgq_uuid_fill() != 0)
    {
        /*
         * Unlikely after init.  Ids with old random bytes still differ in
         * time and counter.
         */
        ngx_pgq_uuid_used = 0;
    }

    memcpy(dst, ngx_pgq_uuid_block + ngx_pgq_uuid_used, len);
    ngx_pgq_uuid_used += len;
}
