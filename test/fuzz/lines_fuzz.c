/* SPDX-License-Identifier: PostgreSQL */

/*
 * A body in pieces, in memory or in a file, is split into the same lines as
 * the body in one piece.  An input is three bytes and the body: the length of
 * a piece; whether pieces are in a file; how often the body is repeated, since
 * a file is read in large pieces.
 */

#include "nginx_stub.h"
#include "ngx_pgq_lines.h"


/* Checks that the remaining body begins with this line, and removes it. */

static void
line_is(ngx_str_t *line, fuzz_input_t *rest)
{
    size_t          len;
    const uint8_t  *p, *end;

    fuzz_check(rest->len > 0);

    end = memchr(rest->p, '\n', rest->len);
    p = fuzz_bytes(rest, end ? (size_t) (end - rest->p) : rest->len, &len);

    if (end) {
        (void) fuzz_byte(rest);
    }

    fuzz_check(line->len == len);
    fuzz_check(len == 0 || memcmp(line->data, p, len) == 0);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    size_t             piece, times;
    uint8_t           *body;
    ngx_str_t          line;
    ngx_int_t          rc;
    ngx_uint_t         in_file, number;
    fuzz_input_t       in = { p, len };
    stub_request_t     *f;
    ngx_pgq_lines_t    lines;

    piece = fuzz_byte(&in);
    in_file = fuzz_byte(&in) % 3;
    times = fuzz_byte(&in);

    body = malloc(in.len * (times + 1) + 1);
    fuzz_check(body != NULL);

    for (number = 0; number <= times; number++) {
        memcpy(body + number * in.len, in.p, in.len);
    }

    in.p = body;
    in.len *= times + 1;
    piece *= times + 1;

    f = stub_request(NULL);
    stub_body(f, in, piece, in_file);

    ngx_pgq_lines_start(&lines, f->request.pool,
                        f->request.request_body->bufs);

    for (number = 1; /* void */ ; number++) {
        rc = ngx_pgq_lines_next(&lines, &line);

        if (rc == NGX_DONE) {
            break;
        }

        fuzz_check(rc == NGX_OK && lines.number == number);
        line_is(&line, &in);
    }

    fuzz_check(in.len == 0);

    ngx_pgq_lines_stop(&lines);
    stub_request_free(f);
    free(body);

    return 0;
}
