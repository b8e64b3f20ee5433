/* SPDX-License-Identifier: PostgreSQL */

/*
 * The parser of header fields: values of clients, and a comparison with the
 * reference parser for all short values of special characters.
 */

#include "guard.h"
#include "header_oracle.h"
#include "ngx_pgq_header.h"
#include "tap.h"

#include <string.h>


#define count(list)  (sizeof(list) / sizeof(list[0]))


/* Returns the parts of a Content-Type as text; NULL if it is malformed. */

static const char *
type(const char *value, size_t len)
{
    int                    rc;
    ngx_pgq_header_t       h;
    ngx_pgq_header_word_t  type, subtype, name, text;

    static char  out[512];

    ngx_pgq_header_start(&h, guard_after(value, len), len);

    if (ngx_pgq_header_media_type(&h, &type, &subtype) != 0) {
        return NULL;
    }

    snprintf(out, sizeof(out), "%.*s/%.*s", (int) type.len, type.data,
             (int) subtype.len, subtype.data);

    while ((rc = ngx_pgq_header_parameter(&h, &name, &text)) == 1) {
        snprintf(out + strlen(out), sizeof(out) - strlen(out), " %.*s=%.*s",
                 (int) name.len, name.data, (int) text.len, text.data);
    }

    return rc == 0 ? out : NULL;
}


static const char *
prefer(const char *value, size_t len)
{
    int                    rc;
    ngx_pgq_header_t       h;
    ngx_pgq_header_word_t  name, text;

    static char  out[512];

    out[0] = '\0';
    ngx_pgq_header_start(&h, guard_after(value, len), len);

    while ((rc = ngx_pgq_header_preference(&h, &name, &text)) == 1) {
        snprintf(out + strlen(out), sizeof(out) - strlen(out), "%.*s=%.*s ",
                 (int) name.len, name.data, (int) text.len, text.data);
    }

    return rc == 0 ? out : NULL;
}


static const char *
codings(const char *value, size_t len)
{
    int                    rc;
    ngx_pgq_header_t       h;
    ngx_pgq_header_word_t  coding;

    static char  out[512];

    out[0] = '\0';
    ngx_pgq_header_start(&h, guard_after(value, len), len);

    while ((rc = ngx_pgq_header_item(&h, &coding)) == 1) {
        snprintf(out + strlen(out), sizeof(out) - strlen(out), "%.*s ",
                 (int) coding.len, coding.data);
    }

    return rc == 0 ? out : NULL;
}


/* NULL: malformed */

static const struct {
    const char  *(*read)(const char *value, size_t len);
    const char  *value;
    const char  *wanted;
} values[] = {
    { type, "text/plain", "text/plain" },
    { type, "\ttext/plain \t", "text/plain" },
    { type, "a/b;", "a/b" },
    { type, "a/b ;\t; ;", "a/b" },
    { type, "a/b\t;\tc=d", "a/b c=d" },
    { type, "a/b;c=\"d; e=\\\"f\\\"\"; g=h", "a/b c=d; e=\\\"f\\\" g=h" },
    { type, "a/b;c=\"\"", "a/b c=" },
    { type, "a/b;c=\"\xc3\xa4\t\"", "a/b c=\xc3\xa4\t" },
    { type, "application/vnd.x+json;v=1", "application/vnd.x+json v=1" },
    { type, "", NULL },
    { type, " ", NULL },
    { type, ";", NULL },
    { type, "json", NULL },
    { type, "a/", NULL },
    { type, "/b", NULL },
    { type, "a /b", NULL },
    { type, "a/ b", NULL },
    { type, "a/b c", NULL },
    { type, "a/b/c", NULL },
    { type, "a/b, a/b", NULL },
    { type, "a/b;c", NULL },
    { type, "a/b;c=", NULL },
    { type, "a/b;=d", NULL },
    { type, "a/b;c =d", NULL },
    { type, "a/b;c= d", NULL },
    { type, "a/b;c=\"d", NULL },
    { type, "a/b;c=\"d\\\"", NULL },
    { type, "a/b;c=\"d\\", NULL },
    { type, "a/b;c=\"d\"e", NULL },
    { type, "a/b;c=\"\x01\"", NULL },
    { type, "a/b;c=\"\\\x7f\"", NULL },
    { type, "\"a\"/b", NULL },
    { type, "a/\xc3\xa4", NULL },
    { prefer, "", "" },
    { prefer, " ,\t, ", "" },
    { prefer, "return=minimal", "return=minimal " },
    { prefer, "return=minimalist", "return=minimalist " },
    { prefer, "a, return = \"minimal\" ,", "a= return=minimal " },
    { prefer, "a;b;c=d; ;e=\"f,g\";, h=i", "a= h=i " },
    { prefer, "a=\"\"", "a= " },
    { prefer, "a=\"return=minimal\"", "a=return=minimal " },
    { prefer, "a;return=minimal", "a= " },
    { prefer, "x-return=minimal", "x-return=minimal " },
    { prefer, "a b", NULL },
    { prefer, "a=", NULL },
    { prefer, "a=;b", NULL },
    { prefer, "=a", NULL },
    { prefer, ";a", NULL },
    { prefer, "a;\"b\"", NULL },
    { prefer, "a=b c", NULL },
    { prefer, "a=\"b", NULL },
    { prefer, "return=minimal, a=b/c", NULL },
    { codings, "", "" },
    { codings, "identity", "identity " },
    { codings, "\tgzip ,, br,", "gzip br " },
    { codings, "gzip br", NULL },
    { codings, "gzip;q=1", NULL },
    { codings, "\"gzip\"", NULL }
};


static void
test_values(void)
{
    size_t       i;
    const char  *got;

    for (i = 0; i < count(values); i++) {
        got = values[i].read(values[i].value, strlen(values[i].value));

        ok(values[i].wanted == NULL ? got == NULL
           : got != NULL && strcmp(got, values[i].wanted) == 0,
           "the value %s is parsed as %s", values[i].value,
           values[i].wanted ? values[i].wanted : "malformed");
    }
}


static void
test_words(void)
{
    size_t                 i;
    ngx_pgq_header_word_t  word;

    static const struct {
        const char  *text;
        unsigned     quoted;
        const char  *name;
        int          is;
    } words[] = {
        { "utf-8", 0, "utf-8", 1 },
        { "UTF-8", 0, "utf-8", 1 },
        { "utf", 0, "utf-8", 0 },
        { "utf-8x", 0, "utf-8", 0 },
        { "", 0, "", 1 },
        { "u\\tf-\\8", 1, "utf-8", 1 },
        { "u\\tf-8", 0, "utf-8", 0 },
        { "utf-8\\", 0, "utf-8", 0 },
        { "@", 0, "`", 0 },
        { "\xc3\x84", 1, "\xc3\xa4", 0 }
    };

    for (i = 0; i < count(words); i++) {
        word.len = strlen(words[i].text);
        word.data = guard_after(words[i].text, word.len);
        word.quoted = words[i].quoted;

        ok(ngx_pgq_header_is(&word, words[i].name) == words[i].is,
           "the word %s is %s %s", words[i].text,
           words[i].is ? "equal to" : "different from", words[i].name);
    }
}


/* All values of up to six characters: special characters and a letter. */

static void
test_generated(void)
{
    int     i, len, utf8, good;
    long    n;
    char    text[8], name[HEADER_ORACLE_MAX];
    size_t  place[8];

    static const char  letters[] = "a=;,\"\\/\t";

    good = 1;
    n = 0;

    for (len = 0; len <= 6; len++) {
        memset(place, 0, sizeof(place));

        for ( ;; ) {

            for (i = 0; i < len; i++) {
                text[i] = letters[place[i]];
            }

            good &= (type(text, (size_t) len) == NULL)
                    == (header_oracle_type(text, (size_t) len, name, &utf8)
                        != 0);
            good &= (prefer(text, (size_t) len) == NULL)
                    == (header_oracle_prefer(text, (size_t) len, name) < 0);
            good &= (codings(text, (size_t) len) == NULL)
                    == (header_oracle_codings(text, (size_t) len) < 0);
            n++;

            for (i = 0; i < len && ++place[i] == count(letters) - 1; i++) {
                place[i] = 0;
            }

            if (i == len) {
                break;
            }
        }
    }

    ok(good, "the reference parser agrees on %ld short values", n);
}


int
main(void)
{
    guard_init();

    test_values();
    test_words();
    test_generated();

    return tap_done();
}
