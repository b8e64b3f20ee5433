/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns requests, their bodies, and the hash by which a body is recognized.  A
 * request is prepared once; for each message only its digits are changed.
 *
 * Invariant
 * - The same (target, n, line) always gives the same bytes: a caller that has
 *   sent a part requests them again for the rest.
 */

#ifndef LOAD_BODY_H
#define LOAD_BODY_H


#include "load.h"

#include <sys/uio.h>


#define LOAD_BODY_SIZE_MIN  45


typedef struct {
    struct iovec   iov[2];          /* valid until the next call */
    int            niov;
    size_t         len;
    const u_char  *body;
    size_t         body_len;
} load_request_t;


/*
 * Reads the bodies and makes the requests, which replace those of the last
 * call.  -1, with a message: an error.
 */

int load_body_init(const load_settings_t *settings);

/* Whether requests with this method have no body. */

int load_body_none(const char *method);

/* The number of bodies in the file; 0 if bodies are generated. */

uint64_t load_body_lines(void);

void load_body_request(load_request_t *request, unsigned target, uint64_t n,
    uint64_t line);

/* The hash of a body without the white space around it. */

uint64_t load_body_hash(const void *data, size_t len);


#endif /* LOAD_BODY_H */
