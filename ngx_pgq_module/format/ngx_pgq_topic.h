/* SPDX-License-Identifier: PostgreSQL */

/*
 * Topics of posts and patterns of topics, without dependency on nginx or
 * PostgreSQL.
 *
 * A topic has segments of [A-Za-z0-9._~-] with '/' between them, and at most
 * NGX_PGQ_TOPIC_MAX bytes; its first byte is not '_'.  A segment of a pattern
 * may also be "*", which matches one segment, or at the end "**", which
 * matches one or more.  No pattern matches the empty topic.
 */

#ifndef NGX_PGQ_TOPIC_H
#define NGX_PGQ_TOPIC_H


#include <stddef.h>
#include <sys/types.h>


#define NGX_PGQ_TOPIC_MAX       255
#define NGX_PGQ_TOPIC_PATTERNS  64      /* in a list */


typedef struct {
    const u_char  *data;
    size_t         len;
} ngx_pgq_topic_pattern_t;


/* whether the bytes are a topic; the empty topic is not */

int ngx_pgq_topic_valid(const u_char *p, size_t len);

/*
 * Reads patterns, which are separated by commas, spaces, or both.  Returns
 * their number, or -1 if one is malformed or there are more than max.  The
 * patterns point into the text.
 */

long ngx_pgq_topic_list(const u_char *p, size_t len,
    ngx_pgq_topic_pattern_t *patterns, size_t max);

/* the other functions expect patterns that ngx_pgq_topic_list() has read */

/* whether one of the patterns matches */

int ngx_pgq_topic_matches(const ngx_pgq_topic_pattern_t *patterns, size_t n,
    const u_char *topic, size_t len);

/* whether the pattern is a topic: it matches only itself */

int ngx_pgq_topic_exact(const ngx_pgq_topic_pattern_t *pattern);

/*
 * Writes an advanced regular expression of PostgreSQL, which matches a topic
 * if one of the n patterns and, unless m is 0, one of the m others match.
 * Returns the position after it.  The memory must have the sizes of both
 * lists.
 */

size_t ngx_pgq_topic_regex_size(const ngx_pgq_topic_pattern_t *patterns,
    size_t n);
u_char *ngx_pgq_topic_regex(u_char *p,
    const ngx_pgq_topic_pattern_t *patterns, size_t n,
    const ngx_pgq_topic_pattern_t *others, size_t m);


#endif /* NGX_PGQ_TOPIC_H */
