/* SPDX-License-Identifier: PostgreSQL */

/*
 * Requests and bodies: see load_body.h.
 *
 * A generated body is {"run":"<8 hex>","n":<n>,"pad":"xxx"} of the given size.
 * The request for a target, head and body, is one buffer in which n is
 * overwritten.  A body of the file is sent from the mapped file, after a head
 * in which Content-Length is overwritten.
 */

#define _GNU_SOURCE

#include "load_body.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>


#define LOAD_BODY_LENGTH_DIGITS  10
#define LOAD_BODY_PAD            ",\"pad\":\""


typedef struct {
    char    *head;
    size_t   head_len;
    char    *body;              /* points into head */
    size_t   digits;            /* digits of n in the buffer */
} load_template_t;


static int load_body_read(const char *name);
static int load_body_lines_add(const u_char *p, size_t len);
static int load_body_template(const load_settings_t *settings,
    load_template_t *template, const load_target_t *target);
static void load_body_number(load_template_t *template, uint64_t n);
static uint64_t load_body_mix(uint64_t a, uint64_t b);


static load_template_t  *load_templates;
static size_t            load_body_size;
static int               load_body_empty;
static struct iovec     *load_lines;
static uint64_t          load_nlines;


int
load_body_init(const load_settings_t *settings)
{
    unsigned  i;

    static unsigned  before;

    for (i = 0; i < before; i++) {
        free(load_templates[i].head);
    }

    free(load_templates);
    before = settings->ntargets;

    load_body_size = settings->size;
    load_body_empty = load_body_none(settings->method);

    if (settings->bodies && load_body_read(settings->bodies) != 0) {
        return -1;
    }

    load_templates = calloc(settings->ntargets, sizeof(load_template_t));

    if (load_templates == NULL) {
        return -1;
    }

    for (i = 0; i < settings->ntargets; i++) {
        if (load_body_template(settings, &load_templates[i],
                               &settings->targets[i])
            != 0)
        {
            return -1;
        }
    }

    return 0;
}


int
load_body_none(const char *method)
{
    return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0
           || strcmp(method, "OPTIONS") == 0 || strcmp(method, "DELETE") == 0;
}


uint64_t
load_body_lines(void)
{
    return load_nlines;
}


void
load_body_request(load_request_t *request, unsigned target, uint64_t n,
    uint64_t line)
{
    char             digits[LOAD_BODY_LENGTH_DIGITS + 1];
    struct iovec    *body;
    load_template_t *template;

    template = &load_templates[target];

    request->iov[0].iov_base = template->head;
    request->niov = 1;

    if (load_body_empty) {
        request->iov[0].iov_len = template->head_len;
        request->len = template->head_len;
        request->body = NULL;
        request->body_len = 0;
        return;
    }

    if (load_nlines == 0) {
        load_body_number(template, n);

        request->iov[0].iov_len = template->head_len + load_body_size;
        request->len = request->iov[0].iov_len;
        request->body = (u_char *) template->body;
        request->body_len = load_body_size;
        return;
    }

    body = &load_lines[line];

    snprintf(digits, sizeof(digits), "%0*u", LOAD_BODY_LENGTH_DIGITS,
             (unsigned) body->iov_len);
    memcpy(template->head + template->head_len - 4 - LOAD_BODY_LENGTH_DIGITS,
           digits, LOAD_BODY_LENGTH_DIGITS);

    request->iov[0].iov_len = template->head_len;
    request->iov[1] = *body;
    request->niov = 2;
    request->len = template->head_len + body->iov_len;
    request->body = body->iov_base;
    request->body_len = body->iov_len;
}


uint64_t
load_body_hash(const void *data, size_t len)
{
    uint64_t       a, b, hash;
    const u_char  *p;

    p = data;

    while (len && strchr(" \t\r\n", p[len - 1]) && p[len - 1]) {
        len--;
    }

    while (len && strchr(" \t\r\n", p[0]) && p[0]) {
        p++;
        len--;
    }

    hash = 0x9e3779b97f4a7c15 ^ len;

    for ( /* void */ ; len >= 16; p += 16, len -= 16) {
        memcpy(&a, p, 8);
        memcpy(&b, p + 8, 8);
        hash = load_body_mix(a ^ 0xd6e8feb86659fd93, b ^ hash);
    }

    a = 0;
    b = 0;
    memcpy(&a, p, len < 8 ? len : 8);

    if (len > 8) {
        memcpy(&b, p + 8, len - 8);
    }

    hash = load_body_mix(a ^ 0xd6e8feb86659fd93, b ^ hash);

    return load_body_mix(hash, 0xa0761d6478bd642f);
}


static int
load_body_read(const char *name)
{
    int           fd;
    u_char       *p, *end, *next;
    struct stat   st;

    fd = open(name, O_RDONLY);

    if (fd == -1 || fstat(fd, &st) == -1) {
        fprintf(stderr, "pgq_load: %s: %s\n", name, strerror(errno));
        return -1;
    }

    p = MAP_FAILED;

    if (st.st_size) {
        p = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    }

    close(fd);

    if (p == MAP_FAILED) {
        fprintf(stderr, "pgq_load: %s: empty or not readable\n", name);
        return -1;
    }

    for (end = p + st.st_size; p < end; p = next + 1) {
        next = memchr(p, '\n', (size_t) (end - p));

        if (next == NULL) {
            next = end;
        }

        if (load_body_lines_add(p, (size_t) (next - p)) != 0) {
            return -1;
        }
    }

    return 0;
}


static int
load_body_lines_add(const u_char *p, size_t len)
{
    struct iovec  *lines;

    /* the array grows when the number is a power of two */

    if ((load_nlines & (load_nlines - 1)) == 0) {
        lines = realloc(load_lines, (load_nlines ? load_nlines * 2 : 1)
                                    * sizeof(struct iovec));

        if (lines == NULL) {
            return -1;
        }

        load_lines = lines;
    }

    load_lines[load_nlines].iov_base = (void *) p;
    load_lines[load_nlines].iov_len = len;
    load_nlines++;

    return 0;
}


static int
load_body_template(const load_settings_t *settings, load_template_t *template,
    const load_target_t *target)
{
    int    len;
    char  *head;

    len = asprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\n%s",
                   settings->method, target->path, target->host,
                   settings->headers);

    if (len == -1) {
        return -1;
    }

    if (load_body_empty) {
        len = asprintf(&template->head, "%s\r\n", head);

    } else if (load_nlines) {
        len = asprintf(&template->head,
                       "%sContent-Type: %s\r\nContent-Length: %0*u\r\n\r\n",
                       head, settings->type, LOAD_BODY_LENGTH_DIGITS, 0);

    } else {
        len = asprintf(&template->head,
                       "%sContent-Type: %s\r\nContent-Length: %zu\r\n\r\n"
                       "{\"run\":\"%s\",\"n\":%*s\"}",
                       head, settings->type, settings->size, settings->run,
                       (int) settings->size
                       - (int) (sizeof("{\"run\":\"00000000\",\"n\":\"}") - 1),
                       "");

        template->head_len = len < 0 ? 0 : (size_t) len - settings->size;
        template->body = template->head + template->head_len;
    }

    free(head);

    if (len == -1) {
        return -1;
    }

    if (template->body == NULL) {
        template->head_len = (size_t) len;
    }

    return 0;
}


/* Moves the padding only if the number of digits of n has changed. */

static void
load_body_number(load_template_t *template, uint64_t n)
{
    char    text[24], *p;
    size_t  digits, rest;

    p = text + sizeof(text);

    do {
        *--p = (char) ('0' + n % 10);
        n /= 10;
    } while (n);

    digits = (size_t) (text + sizeof(text) - p);

    memcpy(template->body + sizeof("{\"run\":\"00000000\",\"n\":") - 1, p,
           digits);

    if (digits == template->digits) {
        return;
    }

    template->digits = digits;

    p = template->body + sizeof("{\"run\":\"00000000\",\"n\":") - 1 + digits;
    rest = (size_t) (template->body + load_body_size - 2 - p);

    memset(p, 'x', rest);
    memcpy(p, LOAD_BODY_PAD, sizeof(LOAD_BODY_PAD) - 1);
}


static uint64_t
load_body_mix(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128  product;

    product = (unsigned __int128) a * b;

    return (uint64_t) product ^ (uint64_t) (product >> 64);
}
