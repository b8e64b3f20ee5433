/* SPDX-License-Identifier: PostgreSQL */

/*
 * The reference parser of JSON: see json_oracle.h.
 *
 * The bytes are decoded to code points.  Then a function for each rule of the
 * grammar consumes what matches and returns whether it did.
 */

#include "json_oracle.h"

#include <stdint.h>
#include <stdlib.h>


typedef struct {
    uint32_t  *code;                /* ends with END */
    size_t     at;
    int        depth_left;
    int        lenient;             /* only the grammar */
    int        deep;                /* the depth was exceeded */
} json_oracle_t;


#define END  0xffffffff


static int json_oracle_value(json_oracle_t *oracle);


/* Returns the number of code points, or -1 if the text is not UTF-8. */

static long
json_oracle_decode(const unsigned char *p, size_t len, uint32_t *out)
{
    int       more, i;
    long      n;
    size_t    at;
    uint32_t  code;

    static const uint32_t  least[] = { 0, 0x80, 0x800, 0x10000 };

    for (n = 0, at = 0; at < len; n++) {
        code = p[at++];
        more = 0;

        if (code >> 7 == 0) {
            more = 0;

        } else if (code >> 5 == 6) {
            more = 1;
            code &= 31;

        } else if (code >> 4 == 14) {
            more = 2;
            code &= 15;

        } else if (code >> 3 == 30) {
            more = 3;
            code &= 7;

        } else {
            return -1;
        }

        for (i = 0; i < more; i++) {

            if (at == len || p[at] / 64 != 2) {
                return -1;
            }

            code = code * 64 + p[at++] % 64;
        }

        if (code < least[more] || code > 0x10ffff
            || (code >= 0xd800 && code <= 0xdfff))
        {
            return -1;
        }

        out[n] = code;
    }

    out[n] = END;

    return n;
}


static int
json_oracle_match(json_oracle_t *oracle, uint32_t code)
{
    if (oracle->code[oracle->at] != code) {
        return 0;
    }

    oracle->at++;

    return 1;
}


static int
json_oracle_range(json_oracle_t *oracle, uint32_t first, uint32_t last)
{
    uint32_t  code;

    code = oracle->code[oracle->at];

    if (code < first || code > last) {
        return 0;
    }

    oracle->at++;

    return 1;
}


static void
json_oracle_space(json_oracle_t *oracle)
{
    while (json_oracle_match(oracle, 0x20) || json_oracle_match(oracle, 0x09)
           || json_oracle_match(oracle, 0x0a)
           || json_oracle_match(oracle, 0x0d))
    {
        /* void */
    }
}


static int
json_oracle_word(json_oracle_t *oracle, const char *word)
{
    for ( /* void */ ; *word; word++) {
        if (!json_oracle_match(oracle, (uint32_t) *word)) {
            return 0;
        }
    }

    return 1;
}


static int
json_oracle_digits(json_oracle_t *oracle)
{
    int  n;

    for (n = 0; json_oracle_range(oracle, '0', '9'); n++) {
        /* void */
    }

    return n > 0;
}


static int
json_oracle_number(json_oracle_t *oracle)
{
    (void) json_oracle_match(oracle, '-');

    if (!json_oracle_match(oracle, '0')
        && !(json_oracle_range(oracle, '1', '9')
             && (json_oracle_digits(oracle), 1)))
    {
        return 0;
    }

    if (json_oracle_match(oracle, '.') && !json_oracle_digits(oracle)) {
        return 0;
    }

    if (json_oracle_match(oracle, 'e') || json_oracle_match(oracle, 'E')) {

        if (!json_oracle_match(oracle, '+')) {
            (void) json_oracle_match(oracle, '-');
        }

        return json_oracle_digits(oracle);
    }

    return 1;
}


/* Returns the code unit after \u, or -1 if it is malformed. */

static long
json_oracle_unit(json_oracle_t *oracle)
{
    int   i;
    long  unit;

    for (i = 0, unit = 0; i < 4; i++) {

        if (json_oracle_range(oracle, '0', '9')) {
            unit = unit * 16 + (long) oracle->code[oracle->at - 1] - '0';

        } else if (json_oracle_range(oracle, 'a', 'f')) {
            unit = unit * 16 + (long) oracle->code[oracle->at - 1] - 'a' + 10;

        } else if (json_oracle_range(oracle, 'A', 'F')) {
            unit = unit * 16 + (long) oracle->code[oracle->at - 1] - 'A' + 10;

        } else {
            return -1;
        }
    }

    return unit;
}


static int
json_oracle_string(json_oracle_t *oracle)
{
    int          open;              /* a high surrogate precedes */
    long         unit;
    const char  *c;

    if (!json_oracle_match(oracle, '"')) {
        return 0;
    }

    for (open = 0; /* void */ ; /* void */ ) {

        if (json_oracle_match(oracle, '\\')) {

            if (json_oracle_match(oracle, 'u')) {
                unit = json_oracle_unit(oracle);

                if (oracle->lenient && unit >= 0) {
                    continue;
                }

                if (unit <= 0 || open != (unit >= 0xdc00 && unit <= 0xdfff)) {
                    return 0;
                }

                open = (unit >= 0xd800 && unit <= 0xdbff);
                continue;
            }

            for (c = "\"\\/bfnrt"; *c; c++) {
                if (json_oracle_match(oracle, (uint32_t) *c)) {
                    break;
                }
            }

            if (*c == '\0' || open) {
                return 0;
            }

            continue;
        }

        if (open) {
            return 0;
        }

        if (json_oracle_match(oracle, '"')) {
            return 1;
        }

        if (!json_oracle_range(oracle, 0x20, 0x10ffff)) {
            return 0;
        }
    }
}


static int
json_oracle_member(json_oracle_t *oracle, uint32_t close)
{
    if (close == '}') {
        json_oracle_space(oracle);

        if (!json_oracle_string(oracle)) {
            return 0;
        }

        json_oracle_space(oracle);

        if (!json_oracle_match(oracle, ':')) {
            return 0;
        }
    }

    return json_oracle_value(oracle);
}


static int
json_oracle_members(json_oracle_t *oracle, uint32_t close)
{
    if (oracle->depth_left == 0) {
        oracle->deep = 1;
        return 0;
    }

    oracle->depth_left--;
    json_oracle_space(oracle);

    if (!json_oracle_match(oracle, close)) {

        do {
            if (!json_oracle_member(oracle, close)) {
                return 0;
            }
        } while (json_oracle_match(oracle, ','));

        if (!json_oracle_match(oracle, close)) {
            return 0;
        }
    }

    oracle->depth_left++;

    return 1;
}


/* A value and the white space around it. */

static int
json_oracle_value(json_oracle_t *oracle)
{
    int  good;

    json_oracle_space(oracle);

    switch (oracle->code[oracle->at]) {

    case '{':
        oracle->at++;
        good = json_oracle_members(oracle, '}');
        break;

    case '[':
        oracle->at++;
        good = json_oracle_members(oracle, ']');
        break;

    case '"':
        good = json_oracle_string(oracle);
        break;

    case 't':
        good = json_oracle_word(oracle, "true");
        break;

    case 'f':
        good = json_oracle_word(oracle, "false");
        break;

    case 'n':
        good = json_oracle_word(oracle, "null");
        break;

    default:
        good = json_oracle_number(oracle);
        break;
    }

    json_oracle_space(oracle);

    return good;
}


int
json_oracle(const unsigned char *p, size_t len, int depth_max)
{
    int            good;
    json_oracle_t  oracle;

    oracle.code = malloc((len + 1) * sizeof(uint32_t));
    oracle.at = 0;
    oracle.depth_left = depth_max;
    oracle.lenient = 0;

    if (oracle.code == NULL) {
        abort();
    }

    good = json_oracle_decode(p, len, oracle.code) != -1
           && json_oracle_value(&oracle)
           && oracle.code[oracle.at] == END;

    free(oracle.code);

    return good ? 0 : -1;
}


int
json_oracle_grammatical(const unsigned char *p, size_t len)
{
    int            good;
    json_oracle_t  oracle;

    oracle.code = malloc((len + 1) * sizeof(uint32_t));
    oracle.at = 0;
    oracle.depth_left = 1024;
    oracle.lenient = 1;
    oracle.deep = 0;

    if (oracle.code == NULL) {
        abort();
    }

    good = json_oracle_decode(p, len, oracle.code) != -1
           && (json_oracle_match(&oracle, 0xfeff), 1)
           && ((json_oracle_value(&oracle) && oracle.code[oracle.at] == END)
               || oracle.deep);

    free(oracle.code);

    return good ? 0 : -1;
}


int
json_oracle_utf8(const unsigned char *p, size_t len)
{
    int        good;
    long       i, n;
    uint32_t  *code;

    code = malloc((len + 1) * sizeof(uint32_t));

    if (code == NULL) {
        abort();
    }

    n = json_oracle_decode(p, len, code);
    good = (n != -1);

    for (i = 0; i < n; i++) {
        good = good && code[i] != 0;
    }

    free(code);

    return good ? 0 : -1;
}
