/* SPDX-License-Identifier: PostgreSQL */

/*
 * The members that are found in a valid JSON text are all of its members: each
 * name and value is valid by itself, and between them there is nothing but
 * white space and the punctuation of one object.  A text that is not valid is
 * read within its limits.
 */

#include "fuzz.h"
#include "json_oracle.h"
#include "ngx_pgq_json.h"
#include "ngx_pgq_member.h"


/* Moves *p past white space and the wanted character. */

static void
expect(const u_char **p, const u_char *end, int wanted)
{
    while (*p < end && **p != '\0' && strchr(" \t\r\n", **p) != NULL) {
        (*p)++;
    }

    fuzz_check(*p < end && **p == wanted);
    (*p)++;
}


static const u_char *
text(const u_char *p, const u_char *start, size_t len)
{
    ngx_pgq_json_error_t  err;

    while (p < start) {
        fuzz_check(*p != '\0' && strchr(" \t\r\n", *p) != NULL);
        p++;
    }

    fuzz_check(len > 0);
    fuzz_check(ngx_pgq_json_check(start, len, NGX_PGQ_JSON_DEPTH_MAX, &err)
               == 0);
    fuzz_check(strchr(" \t\r\n", start[0]) == NULL
               && strchr(" \t\r\n", start[len - 1]) == NULL);

    return start + len;
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    size_t                 n;
    const u_char          *next, *end, *pos, *first;
    ngx_pgq_member_t       member;
    ngx_pgq_json_error_t   err;

    pos = p;
    end = p + len;

    if (ngx_pgq_json_check(p, len, 512, &err) != 0) {
        while (ngx_pgq_member_next(&pos, end, &member)) {
            fuzz_check(pos > p && pos <= end);
        }

        return 0;
    }

    first = p;
    (void) ngx_pgq_json_trim(&first, len);

    if (*first != '{') {
        fuzz_check(!ngx_pgq_member_next(&pos, end, &member));
        return 0;
    }

    for (n = 0, next = p; ngx_pgq_member_next(&pos, end, &member); n++) {
        expect(&next, end, n ? ',' : '{');
        next = text(next, member.name, member.name_len);
        expect(&next, end, ':');
        next = text(next, member.value, member.value_len);

        fuzz_check(member.name[0] == '"' && pos == next);
    }

    if (n == 0) {
        expect(&next, end, '{');
    }

    expect(&next, end, '}');

    return 0;
}
