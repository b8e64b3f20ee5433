/* SPDX-License-Identifier: PostgreSQL */

/*
 * Topics: which texts are topics and patterns, which topics a pattern matches,
 * and the regular expression of patterns.  The expected results are tables;
 * each regular expression is also tried with the regex functions of the C
 * library.
 */

#include "guard.h"
#include "ngx_pgq_topic.h"
#include "tap.h"

#include <regex.h>
#include <string.h>


static const char  name_bytes[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-";


static const struct {
    const char  *text;
    int          topic;
    int          pattern;
} texts[] = {
    { "a", 1, 1 },
    { "a/b", 1, 1 },
    { "orders/2026/eu-west.1~x_y", 1, 1 },
    { ".", 1, 1 },
    { "..", 1, 1 },
    { "~", 1, 1 },
    { "-", 1, 1 },
    { "a_", 1, 1 },
    { "a/_b", 1, 1 },
    { "", 0, 0 },
    { "_", 0, 0 },
    { "_a", 0, 0 },
    { "_a/b", 0, 0 },
    { "/", 0, 0 },
    { "/a", 0, 0 },
    { "a/", 0, 0 },
    { "a//b", 0, 0 },
    { "a\\b", 0, 0 },
    { "\xc3\xbc", 0, 0 },
    { "a%2fb", 0, 0 },
    { "*", 0, 1 },
    { "**", 0, 1 },
    { "*/a", 0, 1 },
    { "a/*", 0, 1 },
    { "a/**", 0, 1 },
    { "*/**", 0, 1 },
    { "*/*/*", 0, 1 },
    { "a/*/b", 0, 1 },
    { "**/a", 0, 0 },
    { "a/**/b", 0, 0 },
    { "***", 0, 0 },
    { "a/***", 0, 0 },
    { "a*", 0, 0 },
    { "*a", 0, 0 },
    { "a/b*", 0, 0 },
    { "a/*b", 0, 0 },
    { "a**", 0, 0 },
    { "*/", 0, 0 },
    { "**/", 0, 0 },
    { "/*", 0, 0 },
    { "_*", 0, 0 }
};


static const struct {
    const char  *list;
    const char  *topic;
    int          matches;
} matches[] = {
    { "a", "a", 1 },
    { "a", "b", 0 },
    { "a", "A", 0 },
    { "a", "ab", 0 },
    { "ab", "a", 0 },
    { "a", "a/b", 0 },
    { "a/b", "a", 0 },
    { "a/b", "a/b", 1 },
    { "a/b", "a/bc", 0 },
    { "a.b", "a.b", 1 },
    { "a.b", "axb", 0 },
    { ".", ".", 1 },
    { ".", "a", 0 },
    { "~-_", "x", 0 },
    { "a~-_", "a~-_", 1 },
    { "*", "a", 1 },
    { "*", "abc", 1 },
    { "*", "a/b", 0 },
    { "*", "", 0 },
    { "*/b", "a/b", 1 },
    { "*/b", "a/c", 0 },
    { "*/b", "b", 0 },
    { "*/b", "x/a/b", 0 },
    { "a/*", "a", 0 },
    { "a/*", "a/b", 1 },
    { "a/*", "a/b/c", 0 },
    { "a/*", "a/", 0 },
    { "a/*/c", "a/b/c", 1 },
    { "a/*/c", "a/c", 0 },
    { "a/*/c", "a//c", 0 },
    { "a/*/c", "a/b/c/d", 0 },
    { "*/*", "a/b", 1 },
    { "*/*", "a", 0 },
    { "**", "a", 1 },
    { "**", "a/b/c", 1 },
    { "**", "", 0 },
    { "a/**", "a", 0 },
    { "a/**", "a/b", 1 },
    { "a/**", "a/b/c/d", 1 },
    { "a/**", "a/", 0 },
    { "a/**", "b/a", 0 },
    { "a/**", "ab/c", 0 },
    { "*/**", "a/b", 1 },
    { "*/**", "a/b/c", 1 },
    { "*/**", "a", 0 },
    { "a,b", "b", 1 },
    { "a,b", "a,b", 0 },
    { "a b", "a", 1 },
    { "a,b/*,c/**", "c/d/e", 1 },
    { "a,b/*,c/**", "b/d/e", 0 },
    { "*/b", "\xc3\xbc/b", 1 },
    { "a/**", "a/ /", 1 }
};


static ngx_pgq_topic_pattern_t  patterns[NGX_PGQ_TOPIC_PATTERNS];
static ngx_pgq_topic_pattern_t  others[NGX_PGQ_TOPIC_PATTERNS];


static int
valid(const char *text, size_t len)
{
    return ngx_pgq_topic_valid(guard_after(text, len), len);
}


static long
list(const char *text, size_t len)
{
    return ngx_pgq_topic_list(guard_after(text, len), len, patterns,
                              NGX_PGQ_TOPIC_PATTERNS);
}


/* The result of the regular expression of one list. */

static int
regex_matches(size_t n, const char *topic)
{
    int      rc;
    char     text[1024];
    u_char  *end;
    regex_t  regex;

    end = ngx_pgq_topic_regex((u_char *) text, patterns, n, NULL, 0);
    *end = '\0';

    if (regcomp(&regex, text, REG_EXTENDED|REG_NOSUB) != 0) {
        return -1;
    }

    rc = regexec(&regex, topic, 0, NULL, 0) == 0;
    regfree(&regex);

    return rc;
}


static void
test_bytes(void)
{
    int   c, good;
    char  text[3];

    for (c = 0; c < 256; c++) {
        good = c && strchr(name_bytes, c);
        text[0] = 'a';
        text[1] = (char) c;
        text[2] = 'b';

        ok(valid(text, 3) == (good || c == '/'),
           "a topic %s byte 0x%02x", good || c == '/' ? "may have"
           : "may not have", c);
        ok(valid(text + 1, 1) == (good && c != '_'),
           "a topic %s the byte 0x%02x", good && c != '_' ? "may be"
           : "may not be", c);
    }
}


static void
test_texts(void)
{
    size_t  i, len;

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        len = strlen(texts[i].text);

        ok(valid(texts[i].text, len) == texts[i].topic,
           "\"%s\" is %s topic", texts[i].text, texts[i].topic ? "a" : "no");

        /* a list without patterns is not malformed */

        ok(list(texts[i].text, len)
           == (texts[i].pattern ? 1 : len ? -1 : 0),
           "\"%s\" is %s pattern", texts[i].text,
           texts[i].pattern ? "a" : "no");
    }
}


static void
test_lengths(void)
{
    size_t  i;
    char    text[NGX_PGQ_TOPIC_MAX + 1];

    for (i = 0; i < sizeof(text); i++) {
        text[i] = i % 2 ? '/' : 'a';
    }

    ok(valid(text, 255), "a topic may have 255 bytes");
    ok(list(text, 255) == 1, "a pattern may have 255 bytes");

    text[254] = 'b';
    text[255] = 'b';

    ok(!valid(text, 256), "a topic may not have 256 bytes");
    ok(list(text, 256) == -1, "a pattern may not have 256 bytes");
}


static void
test_lists(void)
{
    int   i;
    char  text[2 * (NGX_PGQ_TOPIC_PATTERNS + 1)];

    ok(list("", 0) == 0, "an empty list has no pattern");
    ok(ngx_pgq_topic_list(NULL, 0, patterns, 1) == 0,
       "a list without data has no pattern");
    ok(list(" , ,", 4) == 0, "a list of separators has no pattern");
    ok(list("a,b", 3) == 2, "a comma separates patterns");
    ok(list("a b", 3) == 2, "a space separates patterns");
    ok(list(" a, ,b ", 7) == 2 && patterns[1].len == 1
       && *patterns[1].data == 'b',
       "several separators separate two patterns");
    ok(list("a;b", 3) == -1, "a semicolon does not separate patterns");
    ok(list("a\tb", 3) == -1, "a tab does not separate patterns");
    ok(list("a,_b,c", 6) == -1, "a list with a malformed pattern is malformed");

    for (i = 0; i < NGX_PGQ_TOPIC_PATTERNS + 1; i++) {
        text[2 * i] = 'a';
        text[2 * i + 1] = ',';
    }

    ok(list(text, 2 * 64) == 64, "a list may have 64 patterns");
    ok(list(text, 2 * 65) == -1, "a list may not have 65 patterns");
}


static void
test_matches(void)
{
    int      good;
    long     n;
    size_t   i, len;
    u_char  *topic;

    for (i = 0; i < sizeof(matches) / sizeof(matches[0]); i++) {
        n = ngx_pgq_topic_list((const u_char *) matches[i].list,
                               strlen(matches[i].list), patterns,
                               NGX_PGQ_TOPIC_PATTERNS);
        len = strlen(matches[i].topic);
        topic = guard_after(matches[i].topic, len);

        good = n > 0 && ngx_pgq_topic_matches(patterns, (size_t) n, topic, len)
                        == matches[i].matches;
        ok(good, "\"%s\" %s the topic \"%s\"", matches[i].list,
           matches[i].matches ? "matches" : "does not match",
           matches[i].topic);

        ok(regex_matches((size_t) n, matches[i].topic) == matches[i].matches,
           "the regular expression of \"%s\" %s \"%s\"", matches[i].list,
           matches[i].matches ? "matches" : "does not match",
           matches[i].topic);
    }

    (void) list("a,b/**", 6);

    ok(!ngx_pgq_topic_matches(patterns, 2, (u_char *) "a\n", 2)
       && regex_matches(2, "a\n") == 0,
       "a topic with a newline is another topic");
    ok(ngx_pgq_topic_matches(patterns, 2, (u_char *) "b/\n", 3)
       && regex_matches(2, "b/\n") == 1,
       "two asterisks match a newline");
    ok(!ngx_pgq_topic_matches(patterns, 0, (u_char *) "a", 1),
       "an empty list matches no topic");
}


static void
test_regex(const char *asked, const char *permitted, const char *wanted)
{
    long     n, m;
    size_t   size;
    u_char   text[1024], *end;

    n = ngx_pgq_topic_list((const u_char *) asked, strlen(asked), patterns,
                           NGX_PGQ_TOPIC_PATTERNS);
    m = ngx_pgq_topic_list((const u_char *) permitted, strlen(permitted),
                           others, NGX_PGQ_TOPIC_PATTERNS);

    size = ngx_pgq_topic_regex_size(patterns, (size_t) n)
           + ngx_pgq_topic_regex_size(others, (size_t) m);

    end = ngx_pgq_topic_regex(text, patterns, (size_t) n, others, (size_t) m);

    ok((size_t) (end - text) == strlen(wanted)
       && memcmp(text, wanted, strlen(wanted)) == 0,
       "\"%s\" within \"%s\" is the regular expression %s", asked, permitted,
       wanted);

    ok((size_t) (end - text) <= size,
       "the regular expression of \"%s\" within \"%s\" fits its size", asked,
       permitted);
}


int
main(void)
{
    guard_init();

    test_bytes();
    test_texts();
    test_lengths();
    test_lists();
    test_matches();

    test_regex("a", "", "^(a)$");
    test_regex("a.b,c/*,d/**", "", "^(a\\.b|c/[^/]+|d/.+)$");
    test_regex("*/*/*/*/*/*", "*/*/*", "^(?=([^/]+/[^/]+/[^/]+)$)"
               "([^/]+/[^/]+/[^/]+/[^/]+/[^/]+/[^/]+)$");
    test_regex("**", "a/*,b", "^(?=(a/[^/]+|b)$)(.+)$");

    ok(list("a,*,b/**", 8) == 3 && ngx_pgq_topic_exact(&patterns[0])
       && !ngx_pgq_topic_exact(&patterns[1])
       && !ngx_pgq_topic_exact(&patterns[2]),
       "a pattern without an asterisk is exact");

    return tap_done();
}
