/* SPDX-License-Identifier: PostgreSQL */

/*
 * The parameters of pgq_pool: names, defaults, and ranges of values.
 */

#include "ngx_pgq_pool.h"


typedef struct {
    ngx_str_t                name;
    size_t                   offset;    /* of ngx_pgq_pool_t */
    ngx_int_t              (*parse)(void *field, ngx_str_t *value);
} ngx_pgq_parameter_t;


static ngx_int_t ngx_pgq_parameter_number(void *field, ngx_str_t *value);
static ngx_int_t ngx_pgq_parameter_size(void *field, ngx_str_t *value);
static ngx_int_t ngx_pgq_parameter_time(void *field, ngx_str_t *value);
static ngx_int_t ngx_pgq_parameter_age(void *field, ngx_str_t *value);
static ngx_int_t ngx_pgq_parameter_flag(void *field, ngx_str_t *value);


static ngx_pgq_parameter_t  ngx_pgq_parameters[] = {

    { ngx_string("lanes="),
      offsetof(ngx_pgq_pool_t, nlanes),
      ngx_pgq_parameter_number },

    { ngx_string("batch="),
      offsetof(ngx_pgq_pool_t, batch_tickets),
      ngx_pgq_parameter_number },

    { ngx_string("batch_size="),
      offsetof(ngx_pgq_pool_t, batch_size),
      ngx_pgq_parameter_size },

    { ngx_string("tickets="),
      offsetof(ngx_pgq_pool_t, max_tickets),
      ngx_pgq_parameter_number },

    { ngx_string("size="),
      offsetof(ngx_pgq_pool_t, max_size),
      ngx_pgq_parameter_size },

    { ngx_string("connect_timeout="),
      offsetof(ngx_pgq_pool_t, lane.connect_timeout),
      ngx_pgq_parameter_time },

    { ngx_string("answer_timeout="),
      offsetof(ngx_pgq_pool_t, lane.answer_timeout),
      ngx_pgq_parameter_time },

    { ngx_string("lane_age="),
      offsetof(ngx_pgq_pool_t, lane.age),
      ngx_pgq_parameter_age },

    { ngx_string("read_lanes="),
      offsetof(ngx_pgq_pool_t, read_lanes),
      ngx_pgq_parameter_number },

    { ngx_string("answer_size="),
      offsetof(ngx_pgq_pool_t, answer_size),
      ngx_pgq_parameter_size },

    { ngx_string("unread_size="),
      offsetof(ngx_pgq_pool_t, unread_size),
      ngx_pgq_parameter_size },

    { ngx_string("verify="),
      offsetof(ngx_pgq_pool_t, verify),
      ngx_pgq_parameter_flag },

    { ngx_null_string, 0, NULL }
};


void
ngx_pgq_parameter_defaults(ngx_pgq_pool_t *db)
{
    db->nlanes = 2;
    db->batch_tickets = 512;
    db->batch_size = 1024 * 1024;
    db->max_tickets = 16384;
    db->max_size = 64 * 1024 * 1024;
    db->lane.connect_timeout = 2 * 1000;
    db->lane.answer_timeout = 10 * 1000;
    db->lane.age = 60 * 60 * 1000;
    db->read_lanes = 1;
    db->answer_size = 1024 * 1024;
    db->unread_size = 64 * 1024 * 1024;
    db->verify = 1;
}


/* name=value */

char *
ngx_pgq_parameter_read(ngx_conf_t *cf, ngx_pgq_pool_t *db,
    ngx_str_t *parameter)
{
    ngx_str_t             value;
    ngx_pgq_parameter_t  *p;

    for (p = ngx_pgq_parameters; p->name.len; p++) {

        if (parameter->len <= p->name.len
            || ngx_strncmp(parameter->data, p->name.data, p->name.len) != 0)
        {
            continue;
        }

        value.data = parameter->data + p->name.len;
        value.len = parameter->len - p->name.len;

        if (p->parse((u_char *) db + p->offset, &value) == NGX_OK) {
            return NGX_CONF_OK;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"",
                       parameter);

    return NGX_CONF_ERROR;
}


static ngx_int_t
ngx_pgq_parameter_number(void *field, ngx_str_t *value)
{
    ngx_int_t  n;

    n = ngx_atoi(value->data, value->len);

    if (n < 1 || n > 65536) {
        return NGX_ERROR;
    }

    *(ngx_uint_t *) field = n;

    return NGX_OK;
}


static ngx_int_t
ngx_pgq_parameter_size(void *field, ngx_str_t *value)
{
    ssize_t  n;

    n = ngx_parse_size(value);

    /* a parameter of a statement has at most 1 GB */

    if (n < 1 || n > 512 * 1024 * 1024) {
        return NGX_ERROR;
    }

    *(size_t *) field = n;

    return NGX_OK;
}


static ngx_int_t
ngx_pgq_parameter_time(void *field, ngx_str_t *value)
{
    ngx_int_t  n;

    n = ngx_parse_time(value, 0);

    if (n < 1) {
        return NGX_ERROR;
    }

    *(ngx_msec_t *) field = n;

    return NGX_OK;
}


/* 0: no limit; timers of 32 bits end after 24 days */

static ngx_int_t
ngx_pgq_parameter_age(void *field, ngx_str_t *value)
{
    ngx_int_t  n;

    n = ngx_parse_time(value, 0);

    if (n < 0 || n > 20 * 24 * 60 * 60 * 1000) {
        return NGX_ERROR;
    }

    *(ngx_msec_t *) field = n;

    return NGX_OK;
}


static ngx_int_t
ngx_pgq_parameter_flag(void *field, ngx_str_t *value)
{
    if (value->len == 2 && ngx_strncmp(value->data, "on", 2) == 0) {
        *(ngx_flag_t *) field = 1;
        return NGX_OK;
    }

    if (value->len == 3 && ngx_strncmp(value->data, "off", 3) == 0) {
        *(ngx_flag_t *) field = 0;
        return NGX_OK;
    }

    return NGX_ERROR;
}
