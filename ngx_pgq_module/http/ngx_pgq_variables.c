/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the context of a request, which serves the variables $pgq_… and the
 * counter of requests.  It is the data of a cleanup of the request's pool: an
 * internal redirect by error_page clears the pointers to contexts, but keeps
 * the cleanups.
 *
 * Invariants:
 *  - a request has at most one context, and is counted once, at its end.  A
 *    subrequest has its own, though it shares the pool of the main request;
 *  - the variables of a request without a context are empty.
 */

#include "ngx_pgq_follower.h"
#include "ngx_pgq_http.h"
#include "ngx_pgq_topic.h"
#include "ngx_pgq_uuid.h"


static void ngx_pgq_variables_cleanup(void *data);
static ngx_pgq_ctx_t *ngx_pgq_variables_find(ngx_http_request_t *r);
static ngx_uint_t ngx_pgq_variables_status(ngx_http_request_t *r);
static ngx_int_t ngx_pgq_variables_id(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_pgq_variables_topic(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_pgq_variables_number(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_pgq_variables_cursor(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_pgq_variables_version(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_pgq_variables_outcome(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_pgq_variables_value(ngx_http_variable_value_t *v,
    u_char *data, size_t len);


static ngx_http_variable_t  ngx_pgq_variables[] = {

    { ngx_string("pgq_id"), NULL, ngx_pgq_variables_id,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("pgq_topic"), NULL, ngx_pgq_variables_topic,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("pgq_batch"), NULL, ngx_pgq_variables_number,
      offsetof(ngx_pgq_ctx_t, batch), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("pgq_wait"), NULL, ngx_pgq_variables_number,
      offsetof(ngx_pgq_ctx_t, wait), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("pgq_outcome"), NULL, ngx_pgq_variables_outcome,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("pgq_cursor"), NULL, ngx_pgq_variables_cursor,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("pgq_frames"), NULL, ngx_pgq_variables_cursor,
      1, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("pgq_version"), NULL, ngx_pgq_variables_version,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("pgq_version_topic"), NULL, ngx_pgq_variables_version,
      1, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


ngx_int_t
ngx_pgq_variables_add(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_pgq_variables; v->name.len; v++) {

        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


/* without a ring there is no version: the key of a cache would be constant */

ngx_int_t
ngx_pgq_variables_check(ngx_conf_t *cf, ngx_uint_t rings)
{
    ngx_uint_t                  i;
    ngx_http_variable_t        *var;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    var = cmcf->variables.elts;

    for (i = 0; rings == 0 && i < cmcf->variables.nelts; i++) {

        if ((var[i].name.len == sizeof("pgq_version") - 1
             || var[i].name.len == sizeof("pgq_version_topic") - 1)
            && ngx_strncmp(var[i].name.data, "pgq_version_topic",
                           var[i].name.len)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "the variable \"%V\" needs a pgq_ring",
                               &var[i].name);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* creates the context, or resets that of a redirected request */

ngx_pgq_ctx_t *
ngx_pgq_variables_ctx(ngx_http_request_t *r, ngx_pgq_metrics_handler_e handler)
{
    ngx_pgq_ctx_t       *ctx;
    ngx_pool_cleanup_t  *cln;

    ctx = ngx_pgq_variables_find(r);

    if (ctx == NULL) {
        cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_pgq_ctx_t));
        if (cln == NULL) {
            return NULL;
        }

        cln->handler = ngx_pgq_variables_cleanup;
        ctx = cln->data;
    }

    ngx_memzero(ctx, sizeof(ngx_pgq_ctx_t));
    ctx->request = r;
    ctx->handler = handler;

    ngx_pgq_fields_read(r, &ctx->fields);
    ngx_http_set_ctx(r, ctx, ngx_http_pgq_module);

    return ctx;
}


static void
ngx_pgq_variables_cleanup(void *data)
{
    ngx_pgq_ctx_t  *ctx = data;

    ngx_pgq_metrics_request(ctx->handler,
                            ngx_pgq_variables_status(ctx->request->main));
}


static ngx_pgq_ctx_t *
ngx_pgq_variables_find(ngx_http_request_t *r)
{
    ngx_pgq_ctx_t       *ctx;
    ngx_pool_cleanup_t  *cln;

    for (cln = r->pool->cleanup; cln; cln = cln->next) {
        ctx = cln->data;

        if (cln->handler == ngx_pgq_variables_cleanup && ctx->request == r) {
            return ctx;
        }
    }

    return NULL;
}


/* returns the value of $status */

static ngx_uint_t
ngx_pgq_variables_status(ngx_http_request_t *r)
{
    return r->err_status ? r->err_status : r->headers_out.status;
}


static ngx_int_t
ngx_pgq_variables_id(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    u_char         *p;
    ngx_pgq_ctx_t  *ctx;

    ctx = ngx_pgq_variables_find(r);

    if (ctx == NULL || !ctx->ticket) {
        v->not_found = 1;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, NGX_PGQ_UUID_TEXT_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    return ngx_pgq_variables_value(v, p, ngx_pgq_uuid_print(p, ctx->id) - p);
}


static ngx_int_t
ngx_pgq_variables_topic(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    ngx_pgq_ctx_t  *ctx;

    ctx = ngx_pgq_variables_find(r);

    if (ctx == NULL || ctx->topic.len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_pgq_variables_value(v, ctx->topic.data, ctx->topic.len);
}


static ngx_int_t
ngx_pgq_variables_number(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    u_char         *p;
    ngx_uint_t      n;
    ngx_pgq_ctx_t  *ctx;

    ctx = ngx_pgq_variables_find(r);

    if (ctx == NULL || !ctx->answered) {
        v->not_found = 1;
        return NGX_OK;
    }

    n = *(ngx_uint_t *) ((u_char *) ctx + data);

    /* a GET has no batch */

    if (data == offsetof(ngx_pgq_ctx_t, batch) && n == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    return ngx_pgq_variables_value(v, p, ngx_sprintf(p, "%ui", n) - p);
}


/* $pgq_cursor, or $pgq_frames (data is 1), of a stream */

static ngx_int_t
ngx_pgq_variables_cursor(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    u_char         *p;
    ngx_pgq_ctx_t  *ctx;

    ctx = ngx_pgq_variables_find(r);

    if (ctx == NULL || ctx->reader == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    return ngx_pgq_variables_value(v, p, ngx_sprintf(p, "%L",
                                         data ? (int64_t) ctx->frames
                                              : ctx->cursor) - p);
}


/*
 * $pgq_version, or $pgq_version_topic (data is 1), which is the version of all
 * posts if pgq_version_of is not a topic.
 */

static ngx_int_t
ngx_pgq_variables_version(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    u_char                  *p;
    ngx_str_t                topic;
    ngx_pgq_ring_t          *ring;
    ngx_pgq_loc_conf_t      *plcf;
    ngx_pgq_main_conf_t     *pmcf;
    ngx_pgq_follower_t     **followers;
    ngx_pgq_ring_version_t   version;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);
    pmcf = ngx_http_get_module_main_conf(r, ngx_http_pgq_module);
    followers = pmcf->followers.elts;

    if (pmcf->followers.nelts == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    ring = plcf->version ? plcf->version->ring : &followers[0]->ring;

    ngx_str_null(&topic);

    if (data && plcf->version_of
        && ngx_http_complex_value(r, plcf->version_of, &topic) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_pgq_ring_version(ring, ngx_pgq_topic_valid(topic.data, topic.len)
                               ? &topic : NULL, &version);

    p = ngx_pnalloc(r->pool, 2 * NGX_INT64_LEN + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    return ngx_pgq_variables_value(v, p,
                 (version.created
                  ? ngx_sprintf(p, "start-%uL", version.created)
                  : ngx_sprintf(p, "%L-%L", version.revision, version.newest))
                 - p);
}


/* $pgq_outcome, from the status of a POST with or without a ticket */

static ngx_int_t
ngx_pgq_variables_outcome(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    ngx_uint_t      status;
    const char     *word;
    ngx_pgq_ctx_t  *ctx;

    ctx = ngx_pgq_variables_find(r);

    if (ctx == NULL || ctx->handler != NGX_PGQ_METRICS_POST
        || r->method != NGX_HTTP_POST)
    {
        v->not_found = 1;
        return NGX_OK;
    }

    status = ngx_pgq_variables_status(r);

    switch (status) {

    case NGX_HTTP_CREATED:
    case NGX_HTTP_ACCEPTED:
        word = ctx->replayed ? "replayed" : "queued";
        break;

    case NGX_HTTP_GATEWAY_TIME_OUT:
        word = "unknown";
        break;

    case NGX_HTTP_SERVICE_UNAVAILABLE:
        word = "unavailable";
        break;

    default:
        if (status < NGX_HTTP_BAD_REQUEST
            || status >= NGX_HTTP_CLIENT_CLOSED_REQUEST)
        {
            v->not_found = 1;
            return NGX_OK;
        }

        word = "refused";
    }

    return ngx_pgq_variables_value(v, (u_char *) word, ngx_strlen(word));
}


static ngx_int_t
ngx_pgq_variables_value(ngx_http_variable_value_t *v, u_char *data, size_t len)
{
    v->data = data;
    v->len = len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}
