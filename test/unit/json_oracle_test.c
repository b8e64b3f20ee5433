/* SPDX-License-Identifier: PostgreSQL */

/*
 * The JSON parser compared with the reference parser, for texts that differ
 * little from valid ones.
 */

#include "json_texts.h"


/* A byte is changed, inserted or removed, at each offset. */

static void
test_corrupted(void)
{
    int            c, good;
    char           copy[256];
    size_t         i, at;
    const text_t  *text;

    for (i = 0; i < count(good_texts); i++) {
        text = &good_texts[i];
        good = 1;

        for (at = 0; at <= text->len; at++) {
            memcpy(copy, text->text, at);
            memcpy(copy + at, text->text + at + 1,
                   at < text->len ? text->len - at - 1 : 0);

            if (at < text->len) {
                good &= agree(copy, text->len - 1);
            }

            for (c = 0; c < 256; c++) {
                copy[at] = (char) c;

                if (at < text->len) {
                    memcpy(copy + at + 1, text->text + at + 1,
                           text->len - at - 1);
                    good &= agree(copy, text->len);
                }

                memcpy(copy + at + 1, text->text + at, text->len - at);
                good &= agree(copy, text->len + 1);
            }
        }

        ok(good,
           "valid text %zu with a byte changed, inserted or removed:"
           " the parsers agree", i);
    }
}


/* All short texts of an alphabet. */

static void
test_short(const char *name, const char *before, const char *letters,
    size_t nletters, int len_max, const char *after)
{
    int     i, len, good;
    char    text[64];
    size_t  place[8], start;

    start = strlen(before);
    good = 1;

    memcpy(text, before, start);

    for (len = 0; len <= len_max; len++) {
        memset(place, 0, sizeof(place));
        memcpy(text + start + len, after, strlen(after));

        for ( ;; ) {

            for (i = 0; i < len; i++) {
                text[start + (size_t) i] = letters[place[i]];
            }

            good &= agree(text, start + (size_t) len + strlen(after));

            for (i = 0; i < len && ++place[i] == nletters; i++) {
                place[i] = 0;
            }

            if (i == len) {
                break;
            }
        }
    }

    ok(good, "%s: the parsers agree", name);
}


static void
test_generated(void)
{
    int   c;
    char  all[256];

    static const char  grammar[] = "{}[]\",:0-1.eE+\\utn \n";
    static const char  tail[] = "\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc2\xe0\xed"
                                "\xef\xf0\xf4\xf5\"";

    for (c = 0; c < 256; c++) {
        all[c] = (char) c;
    }

    test_short("all texts of up to 2 bytes", "", all, 256, 2, "");
    test_short("all strings of up to 2 bytes", "\"", all, 256, 2, "\"");
    test_short("all texts of up to 4 characters of the grammar", "", grammar,
               sizeof(grammar) - 1, 4, "");
    test_short("all arrays of up to 3 characters of the grammar", "[", grammar,
               sizeof(grammar) - 1, 3, "]");
    test_short("all objects of up to 3 characters of the grammar", "{\"\":",
               grammar, sizeof(grammar) - 1, 3, "}");
    test_short("all strings of 4 bytes at the limits of UTF-8", "\"", tail,
               sizeof(tail) - 1, 4, "\"");
    test_short("all escapes of 4 digits at the limits of surrogates", "\"\\u",
               "0dDcC8bBfF9", 11, 4, "\"");
    test_short("all escapes after a high surrogate", "\"\\ud800\\u",
               "0dDcC8bBfFg", 11, 4, "\"");
}


/* Each special byte at each offset of a string of each length. */

static void
test_offsets(void)
{
    int     good;
    char    text[48];
    size_t  i, len, at;

    static const char  special[] = "\"\\\n\0\x1f\x20\x7f\x80\xc3\xff!#[]";

    good = 1;

    for (len = 0; len <= 40; len++) {
        for (at = 0; at < len; at++) {
            for (i = 0; i < sizeof(special) - 1; i++) {
                memset(text, 'x', sizeof(text));
                text[0] = '"';
                text[1 + at] = special[i];
                text[1 + len] = '"';
                good &= agree(text, len + 2);
                good &= agree(text, len + 1);
            }
        }
    }

    ok(good,
       "strings of up to 40 bytes with a special byte: the parsers agree");
}


static void
test_random(void)
{
    int            good;
    char           copy[256];
    size_t         len;
    unsigned       i, n;
    const text_t  *text;

    srandom(20260102);
    good = 1;

    for (i = 0; i < 200000; i++) {
        text = &good_texts[(size_t) random() % count(good_texts)];
        len = text->len;
        memcpy(copy, text->text, len);

        for (n = 1 + (unsigned) random() % 3; n; n--) {
            text = &good_texts[(size_t) random() % count(good_texts)];
            copy[(size_t) random() % len] =
                                    text->text[(size_t) random() % text->len];
        }

        good &= agree(copy, len);
    }

    ok(good,
       "200,000 texts with bytes of other texts: the parsers agree");
}


int
main(void)
{
    guard_init();

    test_corrupted();
    test_generated();
    test_offsets();
    test_random();

    printf("# %ld texts checked\n", checked);

    return tap_done();
}
