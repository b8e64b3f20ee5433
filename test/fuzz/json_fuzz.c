/* SPDX-License-Identifier: PostgreSQL */

/*
 * For libFuzzer: any bytes at all, judged by the JSON room and by the second
 * opinion of the unit tests.  They must agree; the room must say where and
 * what; nothing else may happen.
 */

#include "json_oracle.h"
#include "ngx_pgq_json.h"

#include <stdlib.h>


#define DEPTH  32


int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    int                   result;
    size_t                rest;
    const u_char         *trimmed;
    ngx_pgq_json_error_t  err;

    err.offset = 0;
    err.problem = NULL;

    result = ngx_pgq_json_check(p, len, DEPTH, &err);

    if (result != json_oracle(p, len, DEPTH)
        || (result != 0 && (err.problem == NULL || err.offset > len)))
    {
        abort();
    }

    /* what went before the offence is good, or only not at its end */

    rest = err.offset;

    if (result != 0 && ngx_pgq_json_check(p, rest, DEPTH, &err) != 0
        && err.offset != rest)
    {
        abort();
    }

    trimmed = p;
    rest = ngx_pgq_json_trim(&trimmed, len);

    if (ngx_pgq_json_check(trimmed, rest, DEPTH, &err) != result) {
        abort();
    }

    if (ngx_pgq_json_utf8(p, len, &err) != json_oracle_utf8(p, len)) {
        abort();
    }

    return 0;
}
