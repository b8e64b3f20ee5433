/* SPDX-License-Identifier: PostgreSQL */

/*
 * Reads arguments of the query string.
 */

#include "ngx_pgq_http.h"


/* *n is kept if the argument is absent */

ngx_int_t
ngx_pgq_argument_number(ngx_http_request_t *r, const char *name,
    ngx_int_t least, ngx_int_t most, ngx_int_t *n, ngx_pgq_problem_t *problem)
{
    ngx_str_t  value;

    if (ngx_http_arg(r, (u_char *) name, ngx_strlen(name), &value) != NGX_OK) {
        return NGX_OK;
    }

    *n = ngx_atoi(value.data, value.len);

    if (*n >= least && *n <= most) {
        return NGX_OK;
    }

    return ngx_pgq_problem_detail(r, problem, NGX_PGQ_PROBLEM_BAD_ARGUMENT,
                                  "%s must be a number from %i to %i.", name,
                                  least, most);
}
