/* SPDX-License-Identifier: PostgreSQL */

/*
 * The few functions of nginx that the rooms under test call, written again for
 * the harnesses: nginx is not a library.  Each piece of a pool is memory of
 * its own, so that ASan knows its ends, and is freed with its request.
 *
 * And what stands behind those rooms: it only notes what was answered.
 */

#ifndef FEW_H
#define FEW_H


#include "fuzz.h"
#include "ngx_pgq_http.h"


#define FEW_HEADERS  32
#define FEW_ADDRESS  "192.0.2.1"


typedef struct {
    ngx_http_request_t       request;       /* the first field */
    ngx_http_request_body_t  body;
    ngx_list_part_t          parts[2];      /* of the headers */
    ngx_table_elt_t          headers[FEW_HEADERS];
    void                    *ctx[1];
    void                    *conf[2];       /* the module's, and the core's */
    ngx_http_core_loc_conf_t  core;
    void                    *data;          /* the harness's */
} few_request_t;


/* of the last answer, until few_answered() is called */

typedef struct {
    ngx_uint_t               answers;
    ngx_http_request_t      *request;
    ngx_uint_t               status;
    char                     code[32];
    ngx_int_t                offset;
    size_t                   len;           /* of the body, which is kept */
    u_char                  *body;
} few_answer_t;


extern few_answer_t  few_answer;
extern u_char       *few_file;              /* what ngx_read_file() reads */
extern size_t        few_file_len;

/* called when a request is finalized, before it is freed */
extern void        (*few_finalized)(few_request_t *f, ngx_int_t rc);


few_request_t *few_request(ngx_pgq_loc_conf_t *conf);
void few_request_free(few_request_t *f);

/* name: value, up to an empty line; returns what follows */
fuzz_input_t few_headers(few_request_t *f, fuzz_input_t in);

/* so much of the pieces in memory, the others in the file, by turns */
void few_body(few_request_t *f, fuzz_input_t in, size_t piece,
    ngx_uint_t in_file);

void few_answered(void);


#endif /* FEW_H */
