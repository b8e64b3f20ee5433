/* SPDX-License-Identifier: PostgreSQL */

/*
 * Any value of an Idempotency-Key header: the key that the room reads has to
 * be the one that a plain reading of RFC 8941 gives, or none.
 */

#include "fuzz.h"
#include "ngx_pgq_key.h"


/*
 * Takes white space, then a string or a bare word, then white space; what
 * follows has to be nothing, or parameters.  Returns the length, -1 if it is
 * none.
 */

static long
plain(const char *text, size_t len, char *key)
{
    int     quoted;
    long    n;
    size_t  at, end;

    for (at = 0; at < len && text[at] == ' '; at++) {
        /* void */
    }

    quoted = at < len && text[at] == '"';
    n = 0;

    for (at += (size_t) quoted; at < len; at++) {

        if (quoted ? text[at] == '"' : text[at] == ' ' || text[at] == ';') {
            break;
        }

        if (text[at] < ' ' || text[at] > '~') {
            return -1;
        }

        if (!quoted && (text[at] == '"' || text[at] == ',' || text[at] == '\\'))
        {
            return -1;
        }

        if (text[at] == '\\') {
            at++;

            if (at == len || (text[at] != '\\' && text[at] != '"')) {
                return -1;
            }
        }

        key[n++] = text[at];
    }

    if (quoted && at++ >= len) {
        return -1;
    }

    for (end = at; end < len && text[end] == ' '; end++) {
        /* void */
    }

    return n > 0 && n <= NGX_PGQ_KEY_MAX && (end == len || text[end] == ';')
           ? n : -1;
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    long     n;
    char    *wanted;
    u_char  *key;

    key = malloc(NGX_PGQ_KEY_MAX);
    wanted = malloc(len + 1);
    fuzz_check(key != NULL && wanted != NULL);

    n = plain((const char *) p, len, wanted);

    fuzz_check(ngx_pgq_key_read(key, p, len) == n);
    fuzz_check(n < 0 || memcmp(key, wanted, (size_t) n) == 0);

    free(key);
    free(wanted);

    return 0;
}
