/* SPDX-License-Identifier: PostgreSQL */

/*
 * Any value of an Idempotency-Key header.  The key must be the one that the
 * reference parser of the unit tests finds.
 */

#include "fuzz.h"
#include "header_oracle.h"
#include "ngx_pgq_key.h"


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    long     n;
    char     wanted[HEADER_ORACLE_MAX];
    u_char  *key;

    key = malloc(NGX_PGQ_KEY_MAX);
    fuzz_check(key != NULL);

    n = header_oracle_key((const char *) p, len, wanted);
    n = n > NGX_PGQ_KEY_MAX ? -1 : n;

    fuzz_check(ngx_pgq_key_read(key, p, len) == n);
    fuzz_check(n < 0 || memcmp(key, wanted, (size_t) n) == 0);

    free(key);

    return 0;
}
