/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns what is sent: requests, made ahead, of which only the digits that
 * differ are written anew; and the hash by which a body is known again.
 *
 * Invariant
 * - The same (target, n, line) always gives the same bytes: whoever could
 *   send a part only asks again for the rest and keeps nothing.
 */

#ifndef LOAD_BODY_H
#define LOAD_BODY_H


#include "load.h"

#include <sys/uio.h>


#define LOAD_BODY_SIZE_MIN  45


typedef struct {
    struct iovec   iov[2];          /* good until the next request is made */
    int            niov;
    size_t         len;
    const u_char  *body;
    size_t         body_len;
} load_request_t;


/*
 * Reads the bodies, makes the requests, in place of those of the last call;
 * prints what is wrong and returns -1.
 */

int load_body_init(const load_settings_t *settings);

/* Whether requests of the method are sent without a body. */

int load_body_none(const char *method);

/* How many bodies the file has; 0 when they are made. */

uint64_t load_body_lines(void);

void load_body_request(load_request_t *request, unsigned target, uint64_t n,
    uint64_t line);

/* Of a body without the white space around it. */

uint64_t load_body_hash(const void *data, size_t len);


#endif /* LOAD_BODY_H */
