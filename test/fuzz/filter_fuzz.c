/* SPDX-License-Identifier: PostgreSQL */

/*
 * Any rights and any requests of readers.  The first line of an input is the
 * value of pgq_topics, "-" if it is not set; the second the path; the third
 * the arguments; each other line a topic.  A filter must admit exactly the
 * topics that both lists match, and so must its parameters in SQL.
 */

#include "nginx_stub.h"
#include "ngx_pgq_array.h"
#include "ngx_pgq_topic.h"

#include <arpa/inet.h>
#include <regex.h>


typedef struct {
    long                      n;            /* -1: malformed */
    ngx_pgq_topic_pattern_t   patterns[NGX_PGQ_TOPIC_PATTERNS];
} list_t;


/* functions of nginx that only this file under test calls */

char *
ngx_http_set_complex_value_slot(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    (void) cf;
    (void) cmd;
    (void) conf;

    return NGX_CONF_OK;
}


void
ngx_conf_log_error(ngx_uint_t level, ngx_conf_t *cf, ngx_err_t err,
    const char *fmt, ...)
{
    (void) level;
    (void) cf;
    (void) err;
    (void) fmt;
}


static void
read_list(list_t *list, ngx_str_t *text)
{
    list->n = ngx_pgq_topic_list(text->data, text->len, list->patterns,
                                 NGX_PGQ_TOPIC_PATTERNS);
}


static int
matches(list_t *list, ngx_str_t *topic)
{
    return ngx_pgq_topic_matches(list->patterns, (size_t) list->n, topic->data,
                                 topic->len);
}


/* Whether the array has this topic. */

static int
in_array(ngx_str_t *array, ngx_str_t *topic)
{
    int        found;
    u_char    *p, *end;
    uint32_t   len;

    found = 0;
    end = array->data + array->len;

    for (p = array->data + ngx_pgq_array_len(0, 0); p < end; p += len) {
        memcpy(&len, p, sizeof(len));
        len = ntohl(len);
        p += sizeof(len);
        fuzz_check(len <= (size_t) (end - p));
        found |= len == topic->len && memcmp(p, topic->data, len) == 0;
    }

    return found;
}


static int
regex(const char *text, size_t len, const char *topic)
{
    int       found;
    char     *copy;
    regex_t   re;

    copy = malloc(len + 3);
    fuzz_check(copy != NULL);
    sprintf(copy, "^%.*s$", (int) len, text);
    fuzz_check(regcomp(&re, copy, REG_EXTENDED|REG_NOSUB) == 0);
    found = regexec(&re, topic, 0, NULL, 0) == 0;
    regfree(&re);
    free(copy);

    return found;
}


/* Whether ^(?=A$)B$ or ^B$ matches: each part is a regular expression. */

static int
in_pattern(ngx_str_t *pattern, ngx_str_t *topic)
{
    int    found;
    char  *text, *name, *part, *split;

    text = strndup((char *) pattern->data, pattern->len);
    name = strndup((char *) topic->data, topic->len);
    fuzz_check(text != NULL && name != NULL && text[0] == '^');

    found = 1;
    part = text + 1;

    if (strncmp(part, "(?=", 3) == 0) {
        split = strstr(part, "$)(");
        fuzz_check(split != NULL);
        found = regex(part + 3, (size_t) (split - part) - 3, name);
        part = split + 2;
    }

    found = found && regex(part, strlen(part) - 1, name);
    free(name);
    free(text);

    return found;
}


static void
check_reader(ngx_http_request_t *r, list_t *rights, ngx_str_t *asked,
    fuzz_input_t in)
{
    int                 admitted;
    long                i;
    list_t              list;
    ngx_int_t           rc, wanted;
    ngx_str_t           topic, topics, pattern;
    ngx_pgq_filter_t   *filter;
    ngx_pgq_problem_t   problem = ngx_pgq_problem_init(NGX_PGQ_PROBLEM_ERROR);

    read_list(&list, asked);
    wanted = asked->len && list.n <= 0 ? NGX_DECLINED : NGX_OK;

    if (wanted == NGX_OK && rights) {
        wanted = rights->n < 0 ? NGX_ERROR : rights->n ? NGX_OK : NGX_DECLINED;

        for (i = 0; wanted == NGX_OK && i < list.n; i++) {
            topic.data = (u_char *) list.patterns[i].data;
            topic.len = list.patterns[i].len;

            if (ngx_pgq_topic_valid(topic.data, topic.len)
                && !matches(rights, &topic))
            {
                wanted = NGX_DECLINED;
            }
        }
    }

    rc = ngx_pgq_filter_read(r, asked, &filter, &problem);
    fuzz_check(rc == wanted);
    fuzz_check((rc == NGX_DECLINED) == (problem.kind != NGX_PGQ_PROBLEM_ERROR));

    if (rc != NGX_OK) {
        return;
    }

    fuzz_check((filter == NULL) == (rights == NULL && list.n == 0));
    fuzz_check(ngx_pgq_filter_sql(filter, r->pool, &topics, &pattern)
               == NGX_OK);
    fuzz_check((filter != NULL) == ((topics.len > 0) != (pattern.len > 0)));

    while (in.len) {
        topic = stub_line(&in);
        admitted = (list.n == 0 || matches(&list, &topic))
                   && (rights == NULL || matches(rights, &topic));

        fuzz_check(ngx_pgq_filter_admits(filter, topic.data, topic.len)
                   == (ngx_uint_t) admitted);

        if (topic.len && memchr(topic.data, '\0', topic.len) == NULL) {
            fuzz_check(topics.len == 0
                       || in_array(&topics, &topic) == admitted);
            fuzz_check(pattern.len == 0
                       || in_pattern(&pattern, &topic) == admitted);
        }
    }
}


static void
check_post(ngx_http_request_t *r, list_t *rights, ngx_str_t *name)
{
    ngx_int_t           wanted;
    ngx_str_t           topic;
    ngx_pgq_problem_t   problem = ngx_pgq_problem_init(NGX_PGQ_PROBLEM_ERROR);

    wanted = NGX_OK;

    if (name->len && !ngx_pgq_topic_valid(name->data, name->len)) {
        wanted = NGX_DECLINED;

    } else if (rights) {
        wanted = rights->n < 0 ? NGX_ERROR
                 : matches(rights, name) ? NGX_OK : NGX_DECLINED;
    }

    fuzz_check(ngx_pgq_filter_topic(r, &topic, &problem) == wanted);
    fuzz_check(wanted != NGX_OK
               || (topic.len == name->len
                   && (topic.len == 0
                       || memcmp(topic.data, name->data, topic.len) == 0)));
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    list_t                     rights;
    ngx_str_t                  path, asked;
    stub_request_t            *f;
    fuzz_input_t               in = { p, len };
    ngx_pgq_loc_conf_t         conf;
    ngx_http_complex_value_t   value;

    memset(&conf, 0, sizeof(conf));
    memset(&value, 0, sizeof(value));
    ngx_str_set(&conf.prefix, "/post/");

    value.value = stub_line(&in);

    if (value.value.len != 1 || value.value.data[0] != '-') {
        conf.topics = &value;
        read_list(&rights, &value.value);
    }

    f = stub_request(&conf);
    path = stub_line(&in);
    f->request.uri.len = conf.prefix.len + path.len;
    f->request.uri.data = ngx_pnalloc(f->request.pool, f->request.uri.len);
    memcpy(f->request.uri.data, "/post/", 6);
    memcpy(f->request.uri.data + 6, path.data, path.len);
    f->request.args = stub_line(&in);

    check_post(&f->request, conf.topics ? &rights : NULL, &path);

    fuzz_check(ngx_pgq_filter_asked(&f->request, &asked) == NGX_OK);
    fuzz_check(asked.len >= path.len
               && (path.len == 0
                   || memcmp(asked.data, path.data, path.len) == 0));
    check_reader(&f->request, conf.topics ? &rights : NULL, &asked, in);

    stub_request_free(f);

    return 0;
}
