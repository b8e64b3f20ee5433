/* SPDX-License-Identifier: PostgreSQL */

/*
 * Any bytes, parsed by the JSON parser and by the reference parser of the unit
 * tests.  They must agree, and an error must have an offset and a text.
 */

#include "fuzz.h"
#include "json_oracle.h"
#include "ngx_pgq_json.h"


#define DEPTH  32


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

    fuzz_check(result == json_oracle(p, len, DEPTH));
    fuzz_check(result == 0 || (err.problem != NULL && err.offset <= len));

    /* an exceeded depth ends the check before the rest is decoded */

    fuzz_check(result == 0
               || err.grammatical == (json_oracle_grammatical(p, len) == 0)
               || (err.grammatical && json_oracle_utf8(p, len) != 0));

    /* the text before the error is valid, or unfinished */

    rest = err.offset;

    fuzz_check(result == 0 || ngx_pgq_json_check(p, rest, DEPTH, &err) == 0
               || err.offset == rest);

    trimmed = p;
    rest = ngx_pgq_json_trim(&trimmed, len);

    fuzz_check(ngx_pgq_json_check(trimmed, rest, DEPTH, &err) == result);

    result = ngx_pgq_json_utf8(p, len, &err);

    fuzz_check(result == json_oracle_utf8(p, len));
    fuzz_check(result == 0 || (err.problem != NULL && err.offset < len));

    return 0;
}
