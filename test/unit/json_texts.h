/* SPDX-License-Identifier: PostgreSQL */

/*
 * Shared by the tests of the JSON parser: valid texts, and functions that
 * check a text between two inaccessible pages.
 */

#ifndef JSON_TEXTS_H
#define JSON_TEXTS_H


#include "guard.h"
#include "json_oracle.h"
#include "ngx_pgq_json.h"
#include "tap.h"


#define DEPTH  64


typedef struct {
    const char  *text;
    size_t       len;
} text_t;


#define good(text)   { text, sizeof(text) - 1 }
#define count(list)  (sizeof(list) / sizeof(list[0]))


/* none is a number alone, since a prefix of a number is a number */

static const text_t  good_texts[] = {
    good("{}"),
    good("[]"),
    good("\"\""),
    good("true"),
    good("false"),
    good("null"),
    good(" \t\r\n[ \t\r\n] \t\r\n"),
    good("[0]"),
    good("[-0]"),
    good("[0,1,-1,12,123456789012345678901234567890]"),
    good("[0.0,-0.5,1.25,10.001]"),
    good("[1e1,1E1,1e+1,1e-1,0e0,-0E-0,1.5e400,1e-400]"),
    good("[true,false,null]"),
    good("[ true , false , null ]"),
    good("[[],{},[[]],[{}]]"),
    good("{\"\":0}"),
    good("{\"a\":1,\"a\":2,\"a\":3}"),
    good("{ \"a\" : { \"b\" : [ { \"c\" : null } , 7 ] } }"),
    good("\"plain text of more than sixteen bytes\""),
    good("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""),
    good("\"\\u0001\\u001f\\u0020\\u00e9\\uABCD\\uabcd\\uFFFF\""),
    good("\"\\ud800\\udc00\\uDBFF\\uDFFF\""),
    good("\"\\ud83d\\ude00 and \\uD83D\\uDE00\""),
    good("\"\\ud7ff\\ue000\""),
    good("\"\\\\u0000\""),
    good("\"\x7f\""),
    good("\"\xc2\x80\xdf\xbf\""),
    good("\"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\""),
    good("\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\""),
    good("\"\xef\xbb\xbf\""),
    good("\"a\xc3\xa4" "bcdefgh\xe4\xb8\xad\xe6\x96\x87ijklmnop"
         "\xf0\x9f\x98\x80q\""),
    good("{\"\xe5\x90\x8d\":\"\xd8\xb9\xd8\xb1\xd8\xa8\"}"),
    good("{\"run\":\"0123abcd\",\"n\":42,\"pad\":\"xxxxxxxxxxxxxxxxxxx\"}"),
    good("[\"12345678\",\"1234567\",\"123456\\u0039\",\"\"]")
};


static long  checked;


/* Checks a text at both ends of the memory; the results must be equal. */

static inline int
check(const void *text, size_t len, unsigned depth, ngx_pgq_json_error_t *err)
{
    int                   result;
    ngx_pgq_json_error_t  again;

    again.offset = 0;
    again.problem = NULL;
    *err = again;

    result = ngx_pgq_json_check(guard_after(text, len), len, depth, err);

    if (ngx_pgq_json_check(guard_before(text, len), len, depth, &again)
        != result
        || again.offset != err->offset || again.problem != err->problem
        || (result != 0 && again.grammatical != err->grammatical)
        || (result != 0 && (err->problem == NULL || err->offset > len)))
    {
        abort();
    }

    checked++;

    return result;
}


/* Whether the reference parser agrees; a difference is printed. */

static inline int
agree(const void *text, size_t len)
{
    int                   result;
    size_t                i;
    ngx_pgq_json_error_t  err;

    result = check(text, len, DEPTH, &err);

    if (result == json_oracle(text, len, DEPTH)
        && (result == 0
            || err.grammatical == (json_oracle_grammatical(text, len) == 0)))
    {
        return 1;
    }

    printf("# different results (%s at %zu):",
           err.problem ? err.problem : "valid", err.offset);

    for (i = 0; i < len; i++) {
        printf(" %02x", ((const unsigned char *) text)[i]);
    }

    printf("\n");

    return 0;
}


#endif /* JSON_TEXTS_H */
