/* SPDX-License-Identifier: PostgreSQL */

/*
 * The parameters of pgq_pool: names, defaults, and ranges of values.
 */

#include "ngx_pgq_pool.h"


/* a parameter of a statement has at most 1 GB */

#define NGX_PGQ_PARAMETER_SIZE   (512 * 1024 * 1024)

/* a timer of 32 bits, in milliseconds, overflows after 24 days */

#define NGX_PGQ_PARAMETER_AGE    (20 * 24 * 60 * 60 * 1000)


static ngx_int_t ngx_pgq_parameter_flag(ngx_str_t *value);


ngx_pgq_parameter_t  ngx_pgq_parameters[] = {

    { ngx_string("lanes="), offsetof(ngx_pgq_pool_t, nlanes),
      ngx_pgq_parameter_number, 1, 65536 },

    { ngx_string("batch="), offsetof(ngx_pgq_pool_t, batch_tickets),
      ngx_pgq_parameter_number, 1, 65536 },

    { ngx_string("batch_size="), offsetof(ngx_pgq_pool_t, batch_size),
      ngx_pgq_parameter_size, 1, NGX_PGQ_PARAMETER_SIZE },

    { ngx_string("tickets="), offsetof(ngx_pgq_pool_t, max_tickets),
      ngx_pgq_parameter_number, 1, 65536 },

    { ngx_string("size="), offsetof(ngx_pgq_pool_t, max_size),
      ngx_pgq_parameter_size, 1, NGX_PGQ_PARAMETER_SIZE },

    { ngx_string("connect_timeout="),
      offsetof(ngx_pgq_pool_t, lane.connect_timeout),
      ngx_pgq_parameter_time, 1, NGX_MAX_INT_T_VALUE },

    { ngx_string("answer_timeout="),
      offsetof(ngx_pgq_pool_t, lane.answer_timeout),
      ngx_pgq_parameter_time, 1, NGX_MAX_INT_T_VALUE },

    { ngx_string("lane_age="), offsetof(ngx_pgq_pool_t, lane.age),
      ngx_pgq_parameter_time, 0, NGX_PGQ_PARAMETER_AGE },

    { ngx_string("read_lanes="), offsetof(ngx_pgq_pool_t, read_lanes),
      ngx_pgq_parameter_number, 1, 65536 },

    { ngx_string("answer_size="), offsetof(ngx_pgq_pool_t, answer_size),
      ngx_pgq_parameter_size, 1, NGX_PGQ_PARAMETER_SIZE },

    { ngx_string("unread_size="), offsetof(ngx_pgq_pool_t, unread_size),
      ngx_pgq_parameter_size, 1, NGX_PGQ_PARAMETER_SIZE },

    { ngx_string("verify="), offsetof(ngx_pgq_pool_t, verify),
      ngx_pgq_parameter_flag, 0, 1 },

    { ngx_null_string, 0, NULL, 0, 0 }
};


_Static_assert(sizeof(size_t) == sizeof(ngx_int_t)
               && sizeof(ngx_msec_t) == sizeof(ngx_int_t),
               "a parameter is stored as ngx_int_t");


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


/* reads name=value; p: the first one of a list that ends with no name */

char *
ngx_pgq_parameter_read(ngx_conf_t *cf, ngx_pgq_parameter_t *p, void *conf,
    ngx_str_t *parameter)
{
    ngx_int_t  n;
    ngx_str_t  value;

    for ( /* void */ ; p->name.len; p++) {

        if (parameter->len <= p->name.len
            || ngx_strncmp(parameter->data, p->name.data, p->name.len) != 0)
        {
            continue;
        }

        value.data = parameter->data + p->name.len;
        value.len = parameter->len - p->name.len;

        n = p->parse(&value);

        if (n >= p->min && n <= p->max) {
            *(ngx_int_t *) ((u_char *) conf + p->offset) = n;
            return NGX_CONF_OK;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"",
                       parameter);

    return NGX_CONF_ERROR;
}


ngx_int_t
ngx_pgq_parameter_number(ngx_str_t *value)
{
    return ngx_atoi(value->data, value->len);
}


ngx_int_t
ngx_pgq_parameter_size(ngx_str_t *value)
{
    return ngx_parse_size(value);
}


ngx_int_t
ngx_pgq_parameter_time(ngx_str_t *value)
{
    return ngx_parse_time(value, 0);
}


static ngx_int_t
ngx_pgq_parameter_flag(ngx_str_t *value)
{
    if (value->len == 2 && ngx_strncmp(value->data, "on", 2) == 0) {
        return 1;
    }

    if (value->len == 3 && ngx_strncmp(value->data, "off", 3) == 0) {
        return 0;
    }

    return NGX_ERROR;
}
