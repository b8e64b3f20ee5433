/* SPDX-License-Identifier: PostgreSQL */

/*
 * A stub of nginx: the functions that the files under test call.  Each
 * allocation of a pool is separate memory, so that ASan knows its limits, and
 * is freed with its request.
 *
 * The functions of the module that those files call only record the answer.
 */

#ifndef NGINX_STUB_H
#define NGINX_STUB_H


#include "fuzz.h"
#include "ngx_pgq_http.h"


#define STUB_HEADERS  32
#define STUB_ADDRESS  "192.0.2.1"


typedef struct {
    ngx_http_request_t       request;       /* the first field */
    ngx_http_request_body_t  body;
    ngx_list_part_t          parts[2];      /* header parts */
    ngx_table_elt_t          headers[STUB_HEADERS];
    void                    *ctx[1];
    void                    *conf[2];       /* of the module, of the core */
    ngx_http_core_loc_conf_t  core;
    void                    *data;          /* of the harness */
} stub_request_t;


/* The last answer, until stub_answered() is called. */

typedef struct {
    ngx_uint_t               answers;
    ngx_http_request_t      *request;
    ngx_uint_t               status;
    char                     code[32];
    ngx_int_t                offset;
    size_t                   len;           /* length of the body */
    u_char                  *body;
} stub_answer_t;


extern stub_answer_t  stub_answer;
extern u_char       *stub_file;              /* content for ngx_read_file() */
extern size_t        stub_file_len;

/* Called when a request is finalized, before it is freed. */
extern void        (*stub_finalized)(stub_request_t *f, ngx_int_t rc);


stub_request_t *stub_request(ngx_pgq_loc_conf_t *conf);
void stub_request_free(stub_request_t *f);

/* Reads a line, in the memory of the input. */
ngx_str_t stub_line(fuzz_input_t *in);

/*
 * Reads "name: value" lines up to an empty line.  Returns the rest of the
 * input.
 */
fuzz_input_t stub_headers(stub_request_t *f, fuzz_input_t in);

/*
 * The body is split into pieces of this length.  With in_file, every second
 * piece is in the file, otherwise all are in memory.
 */
void stub_body(stub_request_t *f, fuzz_input_t in, size_t piece,
    ngx_uint_t in_file);

void stub_answered(void);


#endif /* NGINX_STUB_H */
