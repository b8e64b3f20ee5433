/* SPDX-License-Identifier: PostgreSQL */

/*
 * Shared by the harnesses: the function that each defines, which libFuzzer or
 * replay.c calls with an input in separate memory; and the check that ends the
 * program on an error.
 */

#ifndef FUZZ_H
#define FUZZ_H


#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>


int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);


#define fuzz_check(good)                                                      \
    do {                                                                      \
        if (!(good)) {                                                        \
            fprintf(stderr, "%s:%d: false: %s\n", __FILE__, __LINE__, #good); \
            abort();                                                          \
        }                                                                     \
    } while (0)


/* A copy with limits that ASan knows, also of 0 bytes. */

static inline void *
fuzz_copy(const void *p, size_t len)
{
    void  *copy;

    copy = malloc(len ? len : 1);
    fuzz_check(copy != NULL);

    if (len) {
        memcpy(copy, p, len);
    }

    return copy;
}


/* An input is read from its start; after its end there are zeroes. */

typedef struct {
    const uint8_t  *p;
    size_t          len;
} fuzz_input_t;


static inline unsigned
fuzz_byte(fuzz_input_t *in)
{
    if (in->len == 0) {
        return 0;
    }

    in->len--;

    return *in->p++;
}


/* Returns up to wanted bytes, and their number in *got. */

static inline const uint8_t *
fuzz_bytes(fuzz_input_t *in, size_t wanted, size_t *got)
{
    const uint8_t  *p;

    p = in->p;
    *got = wanted < in->len ? wanted : in->len;
    in->p += *got;
    in->len -= *got;

    return p;
}


/* The value of an argument of a request and its length; NULL if it is missing. */

static inline const uint8_t *
fuzz_argument(const uint8_t *p, size_t len, const char *name, size_t *value)
{
    size_t  at, end, n;

    n = strlen(name);

    for (at = 0; at < len; at = end + 1) {

        for (end = at; end < len && p[end] != '&'; end++) { /* void */ }

        if (end - at > n && p[at + n] == '='
            && strncasecmp((const char *) p + at, name, n) == 0)
        {
            *value = end - at - n - 1;
            return p + at + n + 1;
        }
    }

    return NULL;
}


/* Returns -2 if the text is not a number. */

static inline long
fuzz_number(const uint8_t *p, size_t len)
{
    long    value;
    size_t  i;

    for (value = 0, i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9' || value > (INT64_MAX - (p[i] - '0')) / 10)
        {
            return -2;
        }

        value = value * 10 + (p[i] - '0');
    }

    return len ? value : -2;
}


#endif /* FUZZ_H */
