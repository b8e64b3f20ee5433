/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file knows the syntax of topics and of patterns.  It owns no memory.
 *
 * Invariants:
 *  - a topic has a pattern of the same text, and that matches it;
 *  - the regular expression of patterns matches exactly the topics that
 *    ngx_pgq_topic_matches() matches, also those that are malformed: other
 *    programs may write into the table of posts.
 */

#include "ngx_pgq_topic.h"

#include <string.h>


static int ngx_pgq_topic_check(const u_char *p, size_t len, int wildcards);
static int ngx_pgq_topic_segment(const u_char *p, const u_char *end,
    int wildcards, int final);
static int ngx_pgq_topic_name(u_char c);
static int ngx_pgq_topic_separator(u_char c);
static int ngx_pgq_topic_match(const ngx_pgq_topic_pattern_t *pattern,
    const u_char *topic, const u_char *end);
static u_char *ngx_pgq_topic_alternatives(u_char *p,
    const ngx_pgq_topic_pattern_t *patterns, size_t n);
static u_char *ngx_pgq_topic_copy(u_char *p, const char *text);


int
ngx_pgq_topic_valid(const u_char *p, size_t len)
{
    return ngx_pgq_topic_check(p, len, 0);
}


long
ngx_pgq_topic_list(const u_char *p, size_t len,
    ngx_pgq_topic_pattern_t *patterns, size_t max)
{
    size_t         n;
    const u_char  *end, *start;

    /* an empty text may have no data */

    if (len == 0) {
        return 0;
    }

    n = 0;
    end = p + len;

    for ( ;; ) {

        while (p < end && ngx_pgq_topic_separator(*p)) {
            p++;
        }

        if (p == end) {
            return (long) n;
        }

        start = p;

        while (p < end && !ngx_pgq_topic_separator(*p)) {
            p++;
        }

        if (n == max || !ngx_pgq_topic_check(start, (size_t) (p - start), 1)) {
            return -1;
        }

        patterns[n].data = start;
        patterns[n].len = (size_t) (p - start);
        n++;
    }
}


int
ngx_pgq_topic_matches(const ngx_pgq_topic_pattern_t *patterns, size_t n,
    const u_char *topic, size_t len)
{
    size_t  i;

    if (len == 0) {
        return 0;
    }

    for (i = 0; i < n; i++) {
        if (ngx_pgq_topic_match(&patterns[i], topic, topic + len)) {
            return 1;
        }
    }

    return 0;
}


int
ngx_pgq_topic_exact(const ngx_pgq_topic_pattern_t *pattern)
{
    return memchr(pattern->data, '*', pattern->len) == NULL;
}


/* a byte of a pattern becomes at most five: [^/]+ */

size_t
ngx_pgq_topic_regex_size(const ngx_pgq_topic_pattern_t *patterns, size_t n)
{
    size_t  i, size;

    size = sizeof("^(?=()$)") - 1;

    for (i = 0; i < n; i++) {
        size += 5 * patterns[i].len + 1;
    }

    return size;
}


u_char *
ngx_pgq_topic_regex(u_char *p, const ngx_pgq_topic_pattern_t *patterns,
    size_t n, const ngx_pgq_topic_pattern_t *others, size_t m)
{
    *p++ = '^';

    if (m) {
        p = ngx_pgq_topic_copy(p, "(?=");
        p = ngx_pgq_topic_alternatives(p, others, m);
        p = ngx_pgq_topic_copy(p, "$)");
    }

    p = ngx_pgq_topic_alternatives(p, patterns, n);
    *p++ = '$';

    return p;
}


static int
ngx_pgq_topic_check(const u_char *p, size_t len, int wildcards)
{
    const u_char  *end, *slash;

    if (len == 0 || len > NGX_PGQ_TOPIC_MAX || *p == '_') {
        return 0;
    }

    end = p + len;

    while ((slash = memchr(p, '/', (size_t) (end - p))) != NULL) {

        if (!ngx_pgq_topic_segment(p, slash, wildcards, 0)) {
            return 0;
        }

        p = slash + 1;
    }

    return ngx_pgq_topic_segment(p, end, wildcards, 1);
}


static int
ngx_pgq_topic_segment(const u_char *p, const u_char *end, int wildcards,
    int final)
{
    if (p == end) {
        return 0;
    }

    if (wildcards && *p == '*') {
        p++;
        p += final && p < end && *p == '*';

        return p == end;
    }

    while (p < end && ngx_pgq_topic_name(*p)) {
        p++;
    }

    return p == end;
}


static int
ngx_pgq_topic_name(u_char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
           || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '~'
           || c == '-';
}


static int
ngx_pgq_topic_separator(u_char c)
{
    return c == ',' || c == ' ';
}


static int
ngx_pgq_topic_match(const ngx_pgq_topic_pattern_t *pattern,
    const u_char *topic, const u_char *end)
{
    const u_char  *p, *last, *start;

    p = pattern->data;
    last = p + pattern->len;

    for ( ;; ) {

        /* at the start of a segment */

        if (*p == '*') {

            if (last - p == 2) {
                return topic < end;
            }

            p++;
            start = topic;

            while (topic < end && *topic != '/') {
                topic++;
            }

            if (topic == start) {
                return 0;
            }
        }

        while (p < last && *p != '/') {

            if (topic == end || *topic != *p) {
                return 0;
            }

            topic++;
            p++;
        }

        if (p == last) {
            return topic == end;
        }

        if (topic == end || *topic != '/') {
            return 0;
        }

        topic++;
        p++;
    }
}


/* writes (a|b/[^/]+|c/.+) */

static u_char *
ngx_pgq_topic_alternatives(u_char *p, const ngx_pgq_topic_pattern_t *patterns,
    size_t n)
{
    size_t         i;
    const u_char  *c, *last;

    *p++ = '(';

    for (i = 0; i < n; i++) {

        if (i) {
            *p++ = '|';
        }

        last = patterns[i].data + patterns[i].len;

        for (c = patterns[i].data; c < last; c++) {

            if (*c != '*') {
                if (*c == '.') {
                    *p++ = '\\';
                }

                *p++ = *c;
                continue;
            }

            if (c + 1 < last && c[1] == '*') {
                p = ngx_pgq_topic_copy(p, ".+");
                break;
            }

            p = ngx_pgq_topic_copy(p, "[^/]+");
        }
    }

    *p++ = ')';

    return p;
}


static u_char *
ngx_pgq_topic_copy(u_char *p, const char *text)
{
    size_t  len;

    len = strlen(text);
    memcpy(p, text, len);

    return p + len;
}
