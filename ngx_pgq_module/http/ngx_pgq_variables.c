/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "variables" owns what is told of one request when it is over: its
 * place in the metrics, and the variables $pgq_… of the access log.
 * A record is a cleanup of the request's memory, where nginx leaves it when
 * error_page sends the request elsewhere.
 *
 * Invariants:
 *  - a request has one record at most, and is counted once, at its end;
 *  - who has no record has empty variables.
 */

#include "ngx_pgq_module.h"
#include "ngx_pgq_uuid.h"


static void ngx_pgq_record_cleanup(void *data);
static ngx_pgq_record_t *ngx_pgq_record_find(ngx_http_request_t *r);
static ngx_uint_t ngx_pgq_record_status(ngx_http_request_t *r);
static ngx_int_t ngx_pgq_record_id(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_pgq_record_batch(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_pgq_record_wait(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_pgq_record_outcome(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_pgq_record_number(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_uint_t n);
static ngx_int_t ngx_pgq_record_value(ngx_http_variable_value_t *v,
    u_char *data, size_t len);


static ngx_http_variable_t  ngx_pgq_record_variables[] = {

    { ngx_string("pgq_id"), NULL, ngx_pgq_record_id,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("pgq_batch"), NULL, ngx_pgq_record_batch,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("pgq_wait"), NULL, ngx_pgq_record_wait,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("pgq_outcome"), NULL, ngx_pgq_record_outcome,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


ngx_int_t
ngx_pgq_record_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_pgq_record_variables; v->name.len; v++) {

        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
    }

    return NGX_OK;
}


/* the request's record, made by the first who asks; NULL without memory */

ngx_pgq_record_t *
ngx_pgq_record(ngx_http_request_t *r, ngx_pgq_metrics_handler_e handler)
{
    ngx_pgq_record_t    *record;
    ngx_pool_cleanup_t  *cln;

    record = r->internal ? ngx_pgq_record_find(r) : NULL;

    if (record == NULL) {
        cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_pgq_record_t));
        if (cln == NULL) {
            return NULL;
        }

        cln->handler = ngx_pgq_record_cleanup;
        record = cln->data;
    }

    ngx_memzero(record, sizeof(ngx_pgq_record_t));
    record->request = r->main;
    record->handler = handler;

    return record;
}


static void
ngx_pgq_record_cleanup(void *data)
{
    ngx_pgq_record_t  *record = data;

    ngx_pgq_metrics_request(record->handler,
                            ngx_pgq_record_status(record->request));
}


static ngx_pgq_record_t *
ngx_pgq_record_find(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t  *cln;

    for (cln = r->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_pgq_record_cleanup) {
            return cln->data;
        }
    }

    return NULL;
}


/* as $status has it */

static ngx_uint_t
ngx_pgq_record_status(ngx_http_request_t *r)
{
    return r->err_status ? r->err_status : r->headers_out.status;
}


static ngx_int_t
ngx_pgq_record_id(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    u_char            *p;
    ngx_pgq_record_t  *record;

    record = ngx_pgq_record_find(r);

    if (record == NULL || !record->ticket) {
        v->not_found = 1;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, NGX_PGQ_UUID_TEXT_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    return ngx_pgq_record_value(v, p, ngx_pgq_uuid_print(p, record->id) - p);
}


static ngx_int_t
ngx_pgq_record_batch(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    ngx_pgq_record_t  *record;

    record = ngx_pgq_record_find(r);

    if (record == NULL || record->batch == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_pgq_record_number(r, v, record->batch);
}


static ngx_int_t
ngx_pgq_record_wait(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    ngx_pgq_record_t  *record;

    record = ngx_pgq_record_find(r);

    if (record == NULL || !record->answered) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_pgq_record_number(r, v, record->wait);
}


/* of a POST; one without a ticket has what its status says */

static ngx_int_t
ngx_pgq_record_outcome(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    ngx_str_t          word;
    ngx_uint_t         status;
    ngx_pgq_record_t  *record;

    ngx_str_null(&word);

    record = ngx_pgq_record_find(r);

    if (record && record->handler == NGX_PGQ_METRICS_POST
        && r->method == NGX_HTTP_POST)
    {
        status = ngx_pgq_record_status(r);

        if (status == NGX_HTTP_ACCEPTED) {
            ngx_str_set(&word, "queued");

            if (record->replayed) {
                ngx_str_set(&word, "replayed");
            }

        } else if (status == NGX_HTTP_GATEWAY_TIME_OUT) {
            ngx_str_set(&word, "unknown");

        } else if (status == NGX_HTTP_SERVICE_UNAVAILABLE) {
            ngx_str_set(&word, "unavailable");

        } else if (status >= NGX_HTTP_BAD_REQUEST
                   && status < NGX_HTTP_CLIENT_CLOSED_REQUEST)
        {
            ngx_str_set(&word, "refused");
        }
    }

    if (word.len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_pgq_record_value(v, word.data, word.len);
}


static ngx_int_t
ngx_pgq_record_number(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    ngx_uint_t n)
{
    u_char  *p;

    p = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    return ngx_pgq_record_value(v, p, ngx_sprintf(p, "%ui", n) - p);
}


static ngx_int_t
ngx_pgq_record_value(ngx_http_variable_value_t *v, u_char *data, size_t len)
{
    v->data = data;
    v->len = len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}
