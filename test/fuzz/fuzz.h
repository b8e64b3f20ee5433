/* SPDX-License-Identifier: PostgreSQL */

/*
 * What each harness shares: the one function it defines, which libFuzzer (or
 * replay.c) calls with an input in memory of its own, and the check by which
 * it says that something is wrong.
 */

#ifndef FUZZ_H
#define FUZZ_H


#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);


#define fuzz_check(good)                                                      \
    do {                                                                      \
        if (!(good)) {                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #good);\
            abort();                                                          \
        }                                                                     \
    } while (0)


/* Memory that ASan knows the ends of; of no bytes, too. */

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


/* An input is eaten from its front; past its end there are zeroes. */

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


/* Up to so many bytes; where they are, and in *got how many there were. */

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


#endif /* FUZZ_H */
