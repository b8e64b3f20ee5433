/* SPDX-License-Identifier: PostgreSQL */

/*
 * The JSON parser: result, error and offset for lists of valid and invalid
 * texts; its limits; UTF-8 and trimming.
 */

#include "json_texts.h"


typedef struct {
    const char  *text;
    size_t       len;
    size_t       offset;
    const char  *problem;
} bad_t;


#define bad(text, offset, problem)                                           \
    { text, sizeof(text) - 1, offset, problem }


static const text_t  good_numbers[] = {
    good("0"), good("-0"), good("7"), good("-7"), good("10"), good("0.1"),
    good("-0.1e+10"), good("1E400"), good(" 1 "), good("\n1.50\n")
};


static const bad_t  bad_texts[] = {
    bad("", 0, "empty"),
    bad(" \n", 2, "empty"),
    bad("\xef\xbb\xbf{}", 0, "byte order mark"),
    bad("\xef\xbb\xbf", 0, "byte order mark"),
    bad("{} {}", 3, "more text after the JSON value"),
    bad("1 2", 2, "more text after the JSON value"),
    bad("nullx", 4, "more text after the JSON value"),
    bad("[]]", 2, "more text after the JSON value"),
    bad("\"\"\"", 2, "more text after the JSON value"),
    bad("0x10", 1, "more text after the JSON value"),
    bad("{}\xff", 2, "not UTF-8"),
    bad("{}\0", 2, "more text after the JSON value"),
    bad("[1 2]", 3, "neither comma nor ] in array"),
    bad("[1}", 2, "neither comma nor ] in array"),
    bad("[\"a\":1]", 4, "neither comma nor ] in array"),
    bad("{\"a\":1]", 6, "neither comma nor } in object"),
    bad("{\"a\":1 \"b\":2}", 7, "neither comma nor } in object"),
    bad("[[1}]", 3, "neither comma nor ] in array"),
    bad("{\"a\":[1],]", 9, "object key is not a string"),
    bad("[1,]", 3, "not a JSON value"),
    bad("[,1]", 1, "not a JSON value"),
    bad("[,]", 1, "not a JSON value"),
    bad("]", 0, "not a JSON value"),
    bad("}", 0, "not a JSON value"),
    bad(",", 0, "not a JSON value"),
    bad(":", 0, "not a JSON value"),
    bad("'a'", 0, "not a JSON value"),
    bad("a", 0, "not a JSON value"),
    bad("True", 0, "not a JSON value"),
    bad("NaN", 0, "not a JSON value"),
    bad("nan", 1, "not a JSON value"),
    bad("Infinity", 0, "not a JSON value"),
    bad("// no\n1", 0, "not a JSON value"),
    bad("/**/1", 0, "not a JSON value"),
    bad("[1 /* no */]", 3, "neither comma nor ] in array"),
    bad("\f1", 0, "not a JSON value"),
    bad("\v1", 0, "not a JSON value"),
    bad("\xc2\xa0" "1", 0, "not a JSON value"),
    bad("\xe2\x80\xa8" "1", 0, "not a JSON value"),
    bad("\0", 0, "not a JSON value"),
    bad("\xff\xfe[\0]\0", 0, "not UTF-8"),
    bad("tru", 3, "unfinished literal"),
    bad("trUe", 2, "not a JSON value"),
    bad("fals\xff", 4, "not UTF-8"),
    bad("nul", 3, "unfinished literal"),
    bad("+1", 0, "not a JSON value"),
    bad(".5", 0, "not a JSON value"),
    bad("-", 1, "unfinished number"),
    bad("-x", 1, "no digit in a number"),
    bad("--1", 1, "no digit in a number"),
    bad("-Infinity", 1, "no digit in a number"),
    bad("01", 1, "number with a leading zero"),
    bad("-01", 2, "number with a leading zero"),
    bad("[00]", 2, "number with a leading zero"),
    bad("1.", 2, "unfinished number"),
    bad("1.e1", 2, "no digit in a number"),
    bad("[1.]", 3, "no digit in a number"),
    bad("1e", 2, "unfinished number"),
    bad("1e+", 3, "unfinished number"),
    bad("1e+-1", 3, "no digit in a number"),
    bad("[1e]", 3, "no digit in a number"),
    bad("1.2.3", 3, "more text after the JSON value"),
    bad("1e5.2", 3, "more text after the JSON value"),
    bad("\xef\xbc\x91", 0, "not a JSON value"),
    bad("{1:2}", 1, "object key is not a string"),
    bad("{a:1}", 1, "object key is not a string"),
    bad("{,}", 1, "object key is not a string"),
    bad("{\"a\":1,}", 7, "object key is not a string"),
    bad("{\"a\":1,,\"b\":2}", 7, "object key is not a string"),
    bad("{\"a\"}", 4, "no colon after an object key"),
    bad("{\"a\",\"b\"}", 4, "no colon after an object key"),
    bad("{\"a\" 1}", 5, "no colon after an object key"),
    bad("{\"a\"::1}", 5, "not a JSON value"),
    bad("{\"a\":}", 5, "not a JSON value"),
    bad("{\"a\":,}", 5, "not a JSON value"),
    bad("{", 1, "unfinished object"),
    bad("{\"a\"", 4, "unfinished object"),
    bad("{\"a\":", 5, "unfinished object"),
    bad("{\"a\":[]", 7, "unfinished object"),
    bad("[", 1, "unfinished array"),
    bad("[1,", 3, "unfinished array"),
    bad("[{}", 3, "unfinished array"),
    bad("\"", 1, "unfinished string"),
    bad("\"abc", 4, "unfinished string"),
    bad("\"abcdefghijklmnopq", 18, "unfinished string"),
    bad("\"\\\"", 3, "unfinished string"),
    bad("\"\\", 2, "unfinished string"),
    bad("\"\\u12", 5, "unfinished string"),
    bad("\"\\ud800", 7, "unfinished string"),
    bad("\"\\ud800\\", 8, "unfinished string"),
    bad("\"\\ud800\\udc", 11, "unfinished string"),
    bad("\"\\x41\"", 2, "unknown escape"),
    bad("\"\\a\"", 2, "unknown escape"),
    bad("\"\\'\"", 2, "unknown escape"),
    bad("\"\\U0041\"", 2, "unknown escape"),
    bad("\"\\\0\"", 2, "unknown escape"),
    bad("\"\\\n\"", 2, "unknown escape"),
    bad("\"\\\xff\"", 2, "not UTF-8"),
    bad("\"\\\xc3\xa4\"", 2, "unknown escape"),
    bad("\"\\u00g0\"", 5, "no hexadecimal digit in \\u"),
    bad("\"\\u\"", 3, "no hexadecimal digit in \\u"),
    bad("\"\\u 041\"", 3, "no hexadecimal digit in \\u"),
    bad("\"\\u00\x01\x30\"", 5, "no hexadecimal digit in \\u"),
    bad("\"a\\u0000\"", 2, "escape \\u0000"),
    bad("{\"a\\u0000\":1}", 3, "escape \\u0000"),
    bad("\"\\ud800\"", 1, "lone surrogate escape"),
    bad("\"\\udc00\"", 1, "lone surrogate escape"),
    bad("\"\\udfff\\ud800\"", 1, "lone surrogate escape"),
    bad("\"\\ud800x\"", 1, "lone surrogate escape"),
    bad("\"\\ud800\\n\"", 1, "lone surrogate escape"),
    bad("\"\\ud800\\ud800\\udc00\"", 1, "lone surrogate escape"),
    bad("\"\\ud800\\u0041\"", 1, "lone surrogate escape"),
    bad("\"\\ud800\\udc00\\udc00\"", 13, "lone surrogate escape"),
    bad("\"a\nb\"", 2, "control character in a string"),
    bad("\"a\tb\"", 2, "control character in a string"),
    bad("\"a\0b\"", 2, "control character in a string"),
    bad("\"12345678\x1f\"", 9, "control character in a string"),
    bad("\"\x80\"", 1, "not UTF-8"),
    bad("\"\xc0\x80\"", 1, "not UTF-8"),
    bad("\"\xc1\xbf\"", 1, "not UTF-8"),
    bad("\"\xc3\"", 1, "not UTF-8"),
    bad("\"\xe0\x9f\xbf\"", 1, "not UTF-8"),
    bad("\"\xe4\xb8\"", 1, "not UTF-8"),
    bad("\"\xed\xa0\x80\"", 1, "not UTF-8"),
    bad("\"\xed\xbf\xbf\"", 1, "not UTF-8"),
    bad("\"\xf0\x8f\xbf\xbf\"", 1, "not UTF-8"),
    bad("\"\xf4\x90\x80\x80\"", 1, "not UTF-8"),
    bad("\"\xf5\x80\x80\x80\"", 1, "not UTF-8"),
    bad("\"\xf8\x88\x80\x80\x80\"", 1, "not UTF-8"),
    bad("\"\xff\"", 1, "not UTF-8"),
    bad("\"J\xf6rg\"", 2, "not UTF-8"),
    bad("\"12345678\xc3\xa4\xe4\"", 11, "not UTF-8"),
    bad("\"\xe4\xb8", 1, "not UTF-8"),
    bad("{\"\xff\":1}", 2, "not UTF-8")
};


static void
test_lists(void)
{
    size_t                i;
    const bad_t          *text;
    ngx_pgq_json_error_t  err;

    for (i = 0; i < count(good_texts); i++) {
        ok(check(good_texts[i].text, good_texts[i].len, DEPTH, &err) == 0
           && agree(good_texts[i].text, good_texts[i].len),
           "valid text %zu is accepted", i);
    }

    for (i = 0; i < count(good_numbers); i++) {
        ok(check(good_numbers[i].text, good_numbers[i].len, DEPTH, &err) == 0
           && agree(good_numbers[i].text, good_numbers[i].len),
           "valid number %zu is accepted", i);
    }

    for (i = 0; i < count(bad_texts); i++) {
        text = &bad_texts[i];

        if (!ok(check(text->text, text->len, DEPTH, &err) == -1
                && err.offset == text->offset
                && strcmp(err.problem, text->problem) == 0
                && agree(text->text, text->len),
                "invalid text %zu: %s", i, text->problem))
        {
            printf("# got: %s at %zu\n",
                   err.problem ? err.problem : "valid",
                   err.offset);
        }
    }
}


/* Texts that match the JSON grammar but that PostgreSQL does not store. */

static void
test_grammatical(void)
{
    char                 *text;
    size_t                i;
    ngx_pgq_json_error_t  err;

    static const struct {
        const char  *text;
        size_t       offset;
        unsigned     grammatical;
    } texts[] = {
        { "{\"a\":\"x\\u0000y\"}", 7, 1 },
        { "{\"\\u0000\":1} ", 2, 1 },
        { "[\"\\ud800\",\"\\u0000\"]", 2, 1 },
        { "\"\\udc00\\ud800\"", 1, 1 },
        { "\"\\ud800\\ud800\\udc00\"", 1, 1 },
        { "\"\\ud800\\n\"", 1, 1 },
        { "\xef\xbb\xbf{\"a\":1}", 0, 1 },
        { "\xef\xbb\xbf\"\\u0000\"", 0, 1 },
        { "{\"a\":\"\\u0000\"", 6, 0 },
        { "\"\\u0000\" and more", 1, 0 },
        { "\"\\ud800\\x\"", 1, 0 },
        { "\"\\ud800\\u12\"", 11, 0 },
        { "\xef\xbb\xbfhello", 0, 0 },
        { "\xef\xbb\xbf", 0, 0 },
        { "\xef\xbb\xbf\xef\xbb\xbf{}", 0, 0 },
        { "hello", 0, 0 },
        { "{\"a\":1,}", 7, 0 }
    };

    for (i = 0; i < count(texts); i++) {
        ok(check(texts[i].text, strlen(texts[i].text), DEPTH, &err) == -1
           && err.offset == texts[i].offset
           && err.grammatical == texts[i].grammatical,
           "%s %s the grammar", texts[i].text,
           texts[i].grammatical ? "matches" : "does not match");
    }

    ok(check("[[1]]", 5, 1, &err) == -1 && err.grammatical == 1
       && err.offset == 1,
       "JSON that is nested too deeply matches the grammar");
    ok(check("[[1]", 4, 1, &err) == -1 && err.grammatical == 0
       && err.offset == 1,
       "an unfinished text that is nested too deeply does not match");

    text = malloc(1025);
    memset(text, '[', 1025);
    ok(check(text, 1025, 1000, &err) == -1 && err.grammatical == 1
       && err.offset == 1000,
       "a text of 1025 open arrays is reported as too deep JSON");
    ok(check(text, 1024, 1000, &err) == -1 && err.grammatical == 0,
       "an unfinished text of 1024 levels is not reported as JSON");
    free(text);
}


/* A truncated text is rejected at its end, or where a character begins. */

static void
test_truncated(void)
{
    int                   wrong;
    size_t                i, len, end;
    const text_t         *text;
    ngx_pgq_json_error_t  err;

    wrong = 0;

    for (i = 0; i < count(good_texts); i++) {
        text = &good_texts[i];

        for (end = text->len; strchr(" \t\r\n", text->text[end - 1]); end--) {
            /* void */
        }

        for (len = 0; len < end; len++) {

            if (check(text->text, len, DEPTH, &err) == 0) {
                wrong++;
                continue;
            }

            while (err.offset < len
                   && ((unsigned char) text->text[err.offset]) >= 0x80)
            {
                err.offset++;
            }

            wrong += (err.offset != len);
        }
    }

    ok(wrong == 0, "each truncated text is rejected at its end");
}


static void
test_depth(void)
{
    int                   good;
    char                 *text;
    size_t                i, n;
    ngx_pgq_json_error_t  err;

    text = malloc(200001);

    for (i = 0; i < 20000; i++) {
        text[i] = '[';
        text[20000 + i] = ']';
    }

    ok(check(text + 19000, 2000, 1000, &err) == 0, "1000 levels are accepted");
    ok(check(text + 18999, 2002, 1000, &err) == -1 && err.offset == 1000
       && strcmp(err.problem, "nested too deeply") == 0,
       "1001 levels are rejected at the last one");
    ok(check(text, 40000, 1000, &err) == -1 && err.offset == 1000,
       "20000 levels are rejected at the 1001st");
    ok(check(text, 20000, 1024, &err) == -1 && err.offset == 1024,
       "20000 open arrays are rejected");
    ok(check(text + 20000 - 1025, 2050, 5000, &err) == -1
       && err.offset == 1024, "a limit above 1024 is reduced to 1024");
    ok(check("[]", 2, 0, &err) == -1 && err.offset == 0,
       "an array is rejected with a limit of 0");
    ok(check("1", 1, 0, &err) == 0, "a number is accepted with a limit of 0");

    for (n = 1, good = 1; n <= 300; n++) {

        for (i = 0; i < n; i++) {
            memcpy(text + i * 6, i % 3 ? "{\"a\":[" : "[{\"a\":", 6);
            memcpy(text + n * 6 + (n - 1 - i) * 2, i % 3 ? "]}" : "}]", 2);
        }

        memmove(text + n * 6 + 1, text + n * 6, n * 2);
        text[n * 6] = '7';

        good &= check(text, n * 8 + 1, (unsigned) n * 2, &err) == 0
                && check(text, n * 8 + 1, (unsigned) n * 2 - 1, &err) == -1;

        text[n * 6 + 1] = (text[n * 6 + 1] == ']') ? '}' : ']';

        good &= check(text, n * 8 + 1, (unsigned) n * 2, &err) == -1
                && err.offset == n * 6 + 1;
    }

    ok(good, "up to 600 levels of arrays and objects are counted");

    free(text);
}


static void
test_long(void)
{
    char                 *text;
    size_t                i, len;
    ngx_pgq_json_error_t  err;

    len = 1 << 20;
    text = malloc(len + 2);

    memset(text, 'x', len);
    text[0] = '"';
    text[len - 1] = '"';
    ok(check(text, len, DEPTH, &err) == 0, "a string of 1 MB is accepted");
    ok(check(text, len - 1, DEPTH, &err) == -1 && err.offset == len - 1,
       "a string of 1 MB without its end is rejected");

    text[len - 2] = '\x01';
    ok(check(text, len, DEPTH, &err) == -1 && err.offset == len - 2,
       "a string of 1 MB that ends with a control character is rejected");

    for (i = 1; i + 3 < len - 1; i += 3) {
        memcpy(text + i, "\xe4\xb8\xad", 3);
    }

    memset(text + i, 'x', len - 1 - i);
    ok(check(text, len, DEPTH, &err) == 0,
       "a string of 1 MB of Chinese is accepted");

    memset(text, '7', 1000);
    ok(check(text, 1000, DEPTH, &err) == 0,
       "a number of 1000 digits is accepted");
    text[999] = '.';
    ok(check(text, 1000, DEPTH, &err) == -1 && err.offset == 1000,
       "a number of 1000 digits that ends with a dot is rejected");

    free(text);
}


static void
test_utf8(void)
{
    int                   good, c;
    char                  text[32];
    size_t                i, at, len;
    ngx_pgq_json_error_t  err;

    static const char  letters[] = "a\0\x7f\x80\x8f\x90\x9f\xa0\xbf\xc1\xc2"
                                   "\xdf\xe0\xed\xf0\xf4\xf5";

    good = 1;

    for (i = 0; i < 17 * 17 * 17 * 17; i++) {
        for (at = 0; at < 12; at += 5) {
            memset(text, 'x', sizeof(text));
            text[at] = letters[i % 17];
            text[at + 1] = letters[i / 17 % 17];
            text[at + 2] = letters[i / 17 / 17 % 17];
            text[at + 3] = letters[i / 17 / 17 / 17];

            good &= ngx_pgq_json_utf8(guard_after(text, at + 4), at + 4, &err)
                    == json_oracle_utf8((unsigned char *) text, at + 4);
            good &= ngx_pgq_json_utf8(guard_before(text, 20), 20, &err)
                    == json_oracle_utf8((unsigned char *) text, 20);
        }
    }

    ok(good,
       "UTF-8: the reference parser agrees on all texts of 4 bytes at limits");

    for (good = 1, len = 1; len < 30; len++) {
        for (at = 0; at < len; at++) {
            for (c = 0; c < 2; c++) {
                memset(text, 'x', sizeof(text));
                text[at] = c ? '\0' : '\xe4';
                good &= ngx_pgq_json_utf8(guard_after(text, len), len, &err)
                        == -1
                        && err.offset == at
                        && strcmp(err.problem, c ? "zero byte" : "not UTF-8")
                           == 0;
            }
        }
    }

    ok(good, "UTF-8: the offset of the error is found at each offset");
    ok(ngx_pgq_json_utf8(guard_after("", 0), 0, &err) == 0,
       "UTF-8: an empty text is valid");
}


static void
test_trim(void)
{
    size_t          i, len;
    const u_char   *p;

    static const struct {
        const char  *text;
        size_t       first;
        size_t       len;
    } cases[] = {
        { "", 0, 0 }, { " ", 1, 0 }, { " \t\r\n ", 5, 0 }, { "1", 0, 1 },
        { " 1", 1, 1 }, { "1\n", 0, 1 }, { "\r\n\t [ ] \n", 4, 3 },
        { "\v1\f", 0, 3 }, { "\xc2\xa0" "1", 0, 3 }
    };

    for (i = 0; i < count(cases); i++) {
        len = strlen(cases[i].text);
        p = guard_after(cases[i].text, len);
        len = ngx_pgq_json_trim(&p, len);

        ok(len == cases[i].len
           && p == guard_after(cases[i].text, strlen(cases[i].text))
                   + cases[i].first,
                   "white space around text %zu is removed", i);
    }
}


int
main(void)
{
    guard_init();

    test_lists();
    test_grammatical();
    test_truncated();
    test_depth();
    test_long();
    test_utf8();
    test_trim();

    printf("# %ld texts checked\n", checked);

    return tap_done();
}
