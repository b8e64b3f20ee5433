/* SPDX-License-Identifier: PostgreSQL */

/*
 * The table of problems, and the formatting of details.
 */

#include "ngx_pgq_http.h"


#define NGX_PGQ_PROBLEM_TEXT     192      /* bytes of a detail */


/* with status lines: some reason phrases of nginx are older than RFC 9110 */

const ngx_pgq_problem_row_t  ngx_pgq_problems[] = {
#define NGX_PGQ_PROBLEM(name, status, code, title, detail)                    \
    { status, code, title, #status " " title, detail },
#include "ngx_pgq_problem.h"
#undef NGX_PGQ_PROBLEM
};


_Static_assert(NGX_PGQ_PROBLEMS <= NGX_PGQ_METRICS_PROBLEMS,
               "each problem has a counter");


/* returns NGX_DECLINED, or NGX_ERROR if memory allocation fails */

ngx_int_t
ngx_pgq_problem_detail(ngx_http_request_t *r, ngx_pgq_problem_t *problem,
    ngx_pgq_problem_e kind, const char *fmt, ...)
{
    u_char   *detail;
    va_list   args;

    detail = ngx_pnalloc(r->pool, NGX_PGQ_PROBLEM_TEXT);
    if (detail == NULL) {
        return NGX_ERROR;
    }

    va_start(args, fmt);
    *ngx_vslprintf(detail, detail + NGX_PGQ_PROBLEM_TEXT - 1, fmt, args)
        = '\0';
    va_end(args);

    problem->kind = kind;
    problem->detail = (char *) detail;

    return NGX_DECLINED;
}
