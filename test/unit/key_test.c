/* SPDX-License-Identifier: PostgreSQL */

/*
 * Idempotency keys: which values are valid, and their keys.
 */

#include "guard.h"
#include "ngx_pgq_key.h"
#include "tap.h"

#include <string.h>


/* NULL: the value is malformed */

static const struct {
    const char  *value;
    const char  *key;
} values[] = {
    { "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"",
      "8e03978e-40d5-43dd-bc93-6894a57f9324" },
    { "8e03978e-40d5-43dd-bc93-6894a57f9324",
      "8e03978e-40d5-43dd-bc93-6894a57f9324" },
    { "\"with a space\"", "with a space" },
    { "  \"a\"  ", "a" },
    { "\t\"a\"\t", "a" },
    { "\ta \t", "a" },
    { "\"a\";b=c", "a" },
    { "\"a\"\t;\tb=\"c;d\\\"\"; e=?1;f=:Zg==:;g=-1.5;h=a/b", "a" },
    { "\"a\" ; b", "a" },
    { "a;b", "a" },
    { "a ;b", "a" },
    { "\"a\\\"b\\\\c\"", "a\"b\\c" },
    { "\"a,b;c\"", "a,b;c" },
    { "!#$%&'()*+-./:<=>?@[]^_`{|}~", "!#$%&'()*+-./:<=>?@[]^_`{|}~" },
    { "", NULL },
    { " ", NULL },
    { "\"", NULL },
    { "\"\"", NULL },
    { "\"a", NULL },
    { "a\"", NULL },
    { "\"a\"b", NULL },
    { "\"a\" b", NULL },
    { "\"a\", \"b\"", NULL },
    { "a b", NULL },
    { "a,b", NULL },
    { "a\\b", NULL },
    { ";a", NULL },
    { "\"a\";", NULL },
    { "\"a\";b=", NULL },
    { "\"a\";b=\"c", NULL },
    { "\"a\";b c", NULL },
    { "\"a\";b,\"c\"", NULL },
    { "\"a\";\"b\"", NULL },
    { "a;b=\xc3\xbc", NULL },
    { "\"a\\", NULL },
    { "\"a\\b\"", NULL },
    { "\"a\tb\"", NULL },
    { "a\tb", NULL },
    { "\"\x7f\"", NULL },
    { "\"\xc3\xbc\"", NULL },
    { "\xc3\xbc", NULL }
};


int
main(void)
{
    u_char      key[NGX_PGQ_KEY_MAX], text[NGX_PGQ_KEY_MAX + 3];
    size_t      i, len, wanted;
    ssize_t     n;

    guard_init();

    for (i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        len = strlen(values[i].value);
        n = ngx_pgq_key_read(key, guard_after(values[i].value, len), len);

        if (values[i].key == NULL) {
            ok(n == -1, "the value %s is malformed", values[i].value);
            continue;
        }

        wanted = strlen(values[i].key);
        ok(n == (ssize_t) wanted && memcmp(key, values[i].key, wanted) == 0,
           "the value %s has the key %s", values[i].value, values[i].key);
    }

    memset(text, 'k', sizeof(text));
    ok(ngx_pgq_key_read(key, text, NGX_PGQ_KEY_MAX) == NGX_PGQ_KEY_MAX,
       "a token of the maximum length is a key");
    ok(ngx_pgq_key_read(key, text, NGX_PGQ_KEY_MAX + 1) == -1,
       "a longer token is malformed");
    text[0] = '"';
    text[NGX_PGQ_KEY_MAX + 1] = '"';
    ok(ngx_pgq_key_read(key, text, NGX_PGQ_KEY_MAX + 2) == NGX_PGQ_KEY_MAX,
       "a string of the maximum length is a key");
    text[NGX_PGQ_KEY_MAX + 1] = 'k';
    text[NGX_PGQ_KEY_MAX + 2] = '"';
    ok(ngx_pgq_key_read(key, text, NGX_PGQ_KEY_MAX + 3) == -1,
       "a longer string is malformed");
    ok(ngx_pgq_key_read(key, (u_char *) "\"a\0b\"", 5) == -1,
       "a string with a zero byte is malformed");
    ok(ngx_pgq_key_read(key, (u_char *) "a\0b", 3) == -1,
       "a token with a zero byte is malformed");

    return tap_done();
}
