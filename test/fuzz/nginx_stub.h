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
    ngx_list_part_t          parts[2];      /* of the headers */
    ngx_table_elt_t          headers[STUB_HEADERS];
    void                    *ctx[1];
    void                    *conf[2];       /* the module's, and the core's */
    ngx_http_core_loc_conf_t  core;
    void                    *data;          /* the harness's */
} stub_request_t;


/* of the last answer, until stub_answered() is called */

typedef struct {
    ngx_uint_t               answers;
    ngx_http_request_t      *request;
    ngx_uint_t               status;
    char                     code[32];
    ngx_int_t                offset;
    size_t                   len;           /* of the body, which is kept */
    u_char                  *body;
} stub_answer_t;


extern stub_answer_t  stub_answer;
extern u_char       *stub_file;              /* what ngx_read_file() reads */
extern size_t        stub_file_len;

/* called when a request is finalized, before it is freed */
extern void        (*stub_finalized)(stub_request_t *f, ngx_int_t rc);


stub_request_t *stub_request(ngx_pgq_loc_conf_t *conf);
void stub_request_free(stub_request_t *f);

/* name: value, up to an empty line; returns what follows */
fuzz_input_t stub_headers(stub_request_t *f, fuzz_input_t in);

/* so much of the pieces in memory, the others in the file, by turns */
void stub_body(stub_request_t *f, fuzz_input_t in, size_t piece,
    ngx_uint_t in_file);

void stub_answered(void);


#endif /* NGINX_STUB_H */
