/* SPDX-License-Identifier: PostgreSQL */

/*
 * Topics of requests: the topic of a POST, the filter of a reader, and the
 * rights to both (pgq_topics).
 *
 * A filter has the patterns that a reader asks for and those that it may see;
 * a post must match both.  It is in the request's memory pool and refers to
 * the texts of its patterns.
 *
 * Invariants:
 *  - a filter has at least one pattern.  A reader that may see every post has
 *    no filter;
 *  - the value of pgq_topics is read at each request.  If it is malformed, the
 *    request fails;
 *  - a post without a topic matches no filter.
 */

#include "ngx_pgq_http.h"
#include "ngx_pgq_array.h"
#include "ngx_pgq_topic.h"


typedef struct {
    ngx_uint_t                n;
    ngx_pgq_topic_pattern_t  *patterns;
} ngx_pgq_filter_list_t;


struct ngx_pgq_filter_s {
    ngx_pgq_filter_list_t    patterns;
    ngx_pgq_filter_list_t    others;    /* n 0: none */
};


static ngx_int_t ngx_pgq_filter_name(ngx_http_request_t *r, ngx_str_t *name);
static ngx_int_t ngx_pgq_filter_rights(ngx_http_request_t *r,
    ngx_pgq_filter_list_t *list);
static ngx_int_t ngx_pgq_filter_list(ngx_http_request_t *r, ngx_str_t *text,
    ngx_pgq_filter_list_t *list);
static ngx_uint_t ngx_pgq_filter_list_matches(ngx_pgq_filter_list_t *list,
    const u_char *topic, size_t len);
static ngx_uint_t ngx_pgq_filter_list_exact(ngx_pgq_filter_list_t *list);


/* the topic of a POST, len 0: none; NGX_DECLINED: it is bad or forbidden */

ngx_int_t
ngx_pgq_filter_topic(ngx_http_request_t *r, ngx_str_t *topic,
    ngx_pgq_problem_t *problem)
{
    ngx_int_t              rc;
    ngx_pgq_filter_list_t  rights;

    if (ngx_pgq_filter_name(r, topic) != NGX_OK) {
        return NGX_ERROR;
    }

    if (topic->len && !ngx_pgq_topic_valid(topic->data, topic->len)) {
        ngx_str_null(topic);
        problem->kind = NGX_PGQ_PROBLEM_BAD_TOPIC;
        return NGX_DECLINED;
    }

    rc = ngx_pgq_filter_rights(r, &rights);

    if (rc == NGX_OK
        && !ngx_pgq_filter_list_matches(&rights, topic->data, topic->len))
    {
        problem->kind = NGX_PGQ_PROBLEM_FORBIDDEN_TOPIC;
        return NGX_DECLINED;
    }

    return rc == NGX_ERROR ? NGX_ERROR : NGX_OK;
}


/*
 * The list of patterns that a reader asks for, len 0: none.  It is what the
 * request names, as in a POST, and the argument topic=; with both, a post
 * matches one of them.
 */

ngx_int_t
ngx_pgq_filter_asked(ngx_http_request_t *r, ngx_str_t *asked)
{
    u_char     *p, *src;
    ngx_str_t   value;

    if (ngx_pgq_filter_name(r, asked) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_arg(r, (u_char *) "topic", 5, &value) != NGX_OK
        || value.len == 0)
    {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, asked->len + 1 + value.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    src = value.data;
    value.data = p;

    if (asked->len) {
        p = ngx_cpymem(p, asked->data, asked->len);
        *p++ = ',';
    }

    ngx_unescape_uri(&p, &src, value.len, 0);

    asked->data = value.data;
    asked->len = p - value.data;

    return NGX_OK;
}


/*
 * Makes the filter of a reader.  asked is a list of patterns in memory of the
 * request, len 0: none.  *filter is NULL if the reader may see every post.
 */

ngx_int_t
ngx_pgq_filter_read(ngx_http_request_t *r, ngx_str_t *asked,
    ngx_pgq_filter_t **filter, ngx_pgq_problem_t *problem)
{
    ngx_int_t                 rc;
    ngx_uint_t                i;
    ngx_pgq_filter_list_t     patterns, rights;
    ngx_pgq_topic_pattern_t  *p;

    *filter = NULL;
    patterns.n = 0;

    if (asked->len) {
        rc = ngx_pgq_filter_list(r, asked, &patterns);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc == NGX_DECLINED || patterns.n == 0) {
            problem->kind = NGX_PGQ_PROBLEM_BAD_TOPIC;
            problem->detail = "A filter is a list of 1 to 64 topics, separated"
                              " by commas; a segment may be *, and the last"
                              " one **.";
            return NGX_DECLINED;
        }
    }

    rc = ngx_pgq_filter_rights(r, &rights);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_OK && rights.n == 0) {
        problem->kind = NGX_PGQ_PROBLEM_FORBIDDEN_TOPIC;
        return NGX_DECLINED;
    }

    if (patterns.n == 0) {

        if (rc == NGX_DECLINED) {
            return NGX_OK;
        }

        patterns = rights;
        rights.n = 0;
    }

    for (i = 0; rights.n && i < patterns.n; i++) {
        p = &patterns.patterns[i];

        if (ngx_pgq_topic_exact(p)
            && !ngx_pgq_filter_list_matches(&rights, p->data, p->len))
        {
            problem->kind = NGX_PGQ_PROBLEM_FORBIDDEN_TOPIC;
            return NGX_DECLINED;
        }
    }

    *filter = ngx_palloc(r->pool, sizeof(ngx_pgq_filter_t));
    if (*filter == NULL) {
        return NGX_ERROR;
    }

    /* exact topics have been checked */

    if (ngx_pgq_filter_list_exact(&patterns)) {
        rights.n = 0;
    }

    (*filter)->patterns = patterns;
    (*filter)->others = rights;

    return NGX_OK;
}


/* whether a reader with this filter may see a post with this topic */

ngx_uint_t
ngx_pgq_filter_admits(ngx_pgq_filter_t *filter, const u_char *topic,
    size_t len)
{
    return filter == NULL
           || (ngx_pgq_filter_list_matches(&filter->patterns, topic, len)
               && (filter->others.n == 0
                   || ngx_pgq_filter_list_matches(&filter->others, topic,
                                                  len)));
}


/*
 * Writes the parameters of ngx_pgq.recent() and after(): an array of topics in
 * binary form, or a regular expression.  The len of the other one is 0.
 */

ngx_int_t
ngx_pgq_filter_sql(ngx_pgq_filter_t *filter, ngx_pool_t *pool,
    ngx_str_t *topics, ngx_str_t *pattern)
{
    u_char                   *p;
    size_t                    size;
    ngx_uint_t                i;
    ngx_pgq_filter_list_t    *list, *others;
    ngx_pgq_topic_pattern_t  *t;

    ngx_str_null(topics);
    ngx_str_null(pattern);

    if (filter == NULL) {
        return NGX_OK;
    }

    list = &filter->patterns;
    others = &filter->others;

    if (!ngx_pgq_filter_list_exact(list)) {
        size = ngx_pgq_topic_regex_size(list->patterns, list->n)
               + ngx_pgq_topic_regex_size(others->patterns, others->n);

        p = ngx_pnalloc(pool, size);
        if (p == NULL) {
            return NGX_ERROR;
        }

        pattern->data = p;
        pattern->len = ngx_pgq_topic_regex(p, list->patterns, list->n,
                                           others->patterns, others->n)
                       - p;
        return NGX_OK;
    }

    for (i = 0, size = 0; i < list->n; i++) {
        size += list->patterns[i].len;
    }

    topics->len = ngx_pgq_array_len(list->n, size);
    topics->data = ngx_pnalloc(pool, topics->len);

    if (topics->data == NULL) {
        return NGX_ERROR;
    }

    p = ngx_pgq_array_head(topics->data, NGX_PGQ_OID_TEXT, list->n);

    for (i = 0; i < list->n; i++) {
        t = &list->patterns[i];
        p = ngx_pgq_array_item(p, (u_char *) t->data, t->len);
    }

    return NGX_OK;
}


/*
 * The topic that a request names: the value of pgq_topic, or the part of the
 * URI after the name of the location.  It is not checked.
 */

static ngx_int_t
ngx_pgq_filter_name(ngx_http_request_t *r, ngx_str_t *name)
{
    ngx_str_t           *prefix;
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);

    if (plcf->topic) {
        return ngx_http_complex_value(r, plcf->topic, name);
    }

    prefix = &plcf->prefix;
    ngx_str_null(name);

    if (prefix->len == 0 || r->uri.len <= prefix->len
        || ngx_memcmp(r->uri.data, prefix->data, prefix->len) != 0)
    {
        return NGX_OK;
    }

    name->data = r->uri.data + prefix->len;
    name->len = r->uri.len - prefix->len;

    /* "location /post" serves /post and /post/topic */

    if (prefix->data[prefix->len - 1] != '/' && name->data[0] == '/') {
        name->data++;
        name->len--;
    }

    return NGX_OK;
}


/* reads the value of pgq_topics; NGX_DECLINED: everything is permitted */

static ngx_int_t
ngx_pgq_filter_rights(ngx_http_request_t *r, ngx_pgq_filter_list_t *list)
{
    ngx_int_t            rc;
    ngx_str_t            value;
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);
    list->n = 0;

    if (plcf->topics == NULL) {
        return NGX_DECLINED;
    }

    if (ngx_http_complex_value(r, plcf->topics, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_pgq_filter_list(r, &value, list);

    if (rc == NGX_DECLINED) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "pgq filter: invalid value of pgq_topics");
        return NGX_ERROR;
    }

    return rc;
}


static ngx_int_t
ngx_pgq_filter_list(ngx_http_request_t *r, ngx_str_t *text,
    ngx_pgq_filter_list_t *list)
{
    long                      n;
    ngx_pgq_topic_pattern_t   patterns[NGX_PGQ_TOPIC_PATTERNS];

    n = ngx_pgq_topic_list(text->data, text->len, patterns,
                           NGX_PGQ_TOPIC_PATTERNS);
    if (n < 0) {
        return NGX_DECLINED;
    }

    list->n = n;
    list->patterns = ngx_palloc(r->pool, n * sizeof(patterns[0]));

    if (list->patterns == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(list->patterns, patterns, n * sizeof(patterns[0]));

    return NGX_OK;
}


static ngx_uint_t
ngx_pgq_filter_list_matches(ngx_pgq_filter_list_t *list, const u_char *topic,
    size_t len)
{
    return ngx_pgq_topic_matches(list->patterns, list->n, topic, len);
}


static ngx_uint_t
ngx_pgq_filter_list_exact(ngx_pgq_filter_list_t *list)
{
    ngx_uint_t  i;

    for (i = 0; i < list->n; i++) {
        if (!ngx_pgq_topic_exact(&list->patterns[i])) {
            return 0;
        }
    }

    return 1;
}


/* the directive pgq_topics value; a constant value is checked */

char *
ngx_pgq_filter_set_rights(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_pgq_loc_conf_t  *plcf = conf;

    char                     *rv;
    ngx_pgq_topic_pattern_t   patterns[NGX_PGQ_TOPIC_PATTERNS];

    rv = ngx_http_set_complex_value_slot(cf, cmd, conf);

    if (rv == NGX_CONF_OK && plcf->topics->lengths == NULL
        && ngx_pgq_topic_list(plcf->topics->value.data,
                              plcf->topics->value.len, patterns,
                              NGX_PGQ_TOPIC_PATTERNS)
           < 0)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid topics \"%V\"",
                           &plcf->topics->value);
        return NGX_CONF_ERROR;
    }

    return rv;
}
