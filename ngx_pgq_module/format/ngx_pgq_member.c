/* SPDX-License-Identifier: PostgreSQL */

#include "ngx_pgq_member.h"

#include <string.h>


static const u_char *ngx_pgq_member_space(const u_char *p, const u_char *end);
static const u_char *ngx_pgq_member_string(const u_char *p,
    const u_char *end);
static const u_char *ngx_pgq_member_value(const u_char *p, const u_char *end);


/* before the first member there is a brace, before each other one a comma */

int
ngx_pgq_member_next(const u_char **p, const u_char *end,
    ngx_pgq_member_t *member)
{
    const u_char  *next;

    next = ngx_pgq_member_space(*p, end);

    if (next == end || (*next != '{' && *next != ',')) {
        return 0;
    }

    next = ngx_pgq_member_space(next + 1, end);

    if (next == end || *next != '"') {
        return 0;
    }

    member->name = next;
    next = ngx_pgq_member_string(next, end);
    member->name_len = (size_t) (next - member->name);

    next = ngx_pgq_member_space(next, end);

    if (next == end || *next != ':') {
        return 0;
    }

    next = ngx_pgq_member_space(next + 1, end);

    member->value = next;
    next = ngx_pgq_member_value(next, end);
    member->value_len = (size_t) (next - member->value);

    *p = next;

    return 1;
}


static const u_char *
ngx_pgq_member_space(const u_char *p, const u_char *end)
{
    while (p < end
           && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
    {
        p++;
    }

    return p;
}


/* p is at the opening quote */

static const u_char *
ngx_pgq_member_string(const u_char *p, const u_char *end)
{
    for (p++; p < end; p++) {

        if (*p == '"') {
            return p + 1;
        }

        if (*p == '\\' && end - p > 1) {
            p++;
        }
    }

    return end;
}


/* after the value there is white space, a comma, or the end of its object */

static const u_char *
ngx_pgq_member_value(const u_char *p, const u_char *end)
{
    size_t  depth;

    depth = 0;

    while (p < end && (depth || memchr(",}] \n\r\t", *p, 7) == NULL)) {

        switch (*p) {

        case '"':
            p = ngx_pgq_member_string(p, end);
            continue;

        case '{':
        case '[':
            depth++;
            break;

        case '}':
        case ']':
            depth--;
            break;
        }

        p++;
    }

    return p;
}
