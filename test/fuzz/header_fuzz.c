/* SPDX-License-Identifier: PostgreSQL */

/*
 * Values of header fields.  The first byte of an input selects the field and
 * the source of its value: the rest of the input, for a comparison with the
 * reference parser of the unit tests; or a value that is generated from the
 * grammar, one choice per byte, so that the expected result is known.
 */

#include "fuzz.h"
#include "header_oracle.h"
#include "ngx_pgq_header.h"


enum { TYPE = 0, CODINGS, PREFER, FIELDS };


/* A value, and the expected result as words and separators. */

typedef struct {
    size_t  len;
    size_t  meant_len;
    char    text[HEADER_ORACLE_MAX];
    char    meant[HEADER_ORACLE_MAX];
} value_t;


static void
put(value_t *v, const char *text, int means)
{
    size_t  n = strlen(text);

    memcpy(v->text + v->len, text, n);
    v->len += n;

    if (means) {
        memcpy(v->meant + v->meant_len, text, n);
        v->meant_len += n;
    }
}


static void
space(value_t *v, fuzz_input_t *in)
{
    unsigned  n = fuzz_byte(in);

    for (n = n < 128 ? 0 : n % 4; n; n--) {
        put(v, fuzz_byte(in) % 2 ? " " : "\t", 0);
    }
}


static void
token(value_t *v, fuzz_input_t *in)
{
    char      c[2] = "";
    unsigned  n;

    static const char  *words[] = { "charset", "utf-8", "UTF8", "return",
                                    "minimal", "identity", "application" };

    static const char  chars[] = "!#$%&'*+-.^_`|~09azAZ";

    n = fuzz_byte(in);

    if (n < 128) {
        put(v, words[n % 7], 1);
        return;
    }

    for (n = n % 8 + 1; n; n--) {
        c[0] = chars[fuzz_byte(in) % (sizeof(chars) - 1)];
        put(v, c, 1);
    }
}


static void
word(value_t *v, fuzz_input_t *in)
{
    char      c[2] = "";
    unsigned  n;

    n = fuzz_byte(in);

    if (n < 128) {
        token(v, in);
        return;
    }

    put(v, "\"", 0);

    for (n = n % 16; n; n--) {
        c[0] = (char) fuzz_byte(in);

        if (((unsigned char) c[0] < 0x20 && c[0] != '\t') || c[0] == 0x7f) {
            c[0] = ',';
        }

        if (c[0] == '"' || c[0] == '\\' || fuzz_byte(in) % 8 == 0) {
            put(v, "\\", 0);
        }

        put(v, c, 1);
    }

    put(v, "\"", 0);
}


static void
pair(value_t *v, fuzz_input_t *in, int field, int means)
{
    size_t    meant_len = v->meant_len;
    unsigned  n = fuzz_byte(in);

    put(v, "<", 1);
    v->len--;
    token(v, in);

    if (field == TYPE || n % 2) {
        if (field != TYPE) {
            space(v, in);
        }

        put(v, "=", 1);

        if (field != TYPE) {
            space(v, in);
        }

        word(v, in);

    } else {
        put(v, "=", 1);
        v->len--;
    }

    put(v, ">", 1);
    v->len--;

    if (!means) {
        v->meant_len = meant_len;
    }
}


static void
parameters(value_t *v, fuzz_input_t *in, int field)
{
    unsigned  n;

    for (n = fuzz_byte(in) % 4; n; n--) {
        space(v, in);
        put(v, ";", 0);
        space(v, in);

        if (fuzz_byte(in) % 4) {
            pair(v, in, field, field == TYPE);
        }
    }
}


static void
write_value(value_t *v, fuzz_input_t *in, int field)
{
    unsigned  n;

    v->len = 0;
    v->meant_len = 0;
    space(v, in);

    if (field == TYPE) {
        token(v, in);
        put(v, "/", 1);
        token(v, in);
        parameters(v, in, field);
        space(v, in);
        return;
    }

    for (n = fuzz_byte(in) % 4; n; n--) {

        if (fuzz_byte(in) % 4) {
            if (field == PREFER) {
                pair(v, in, field, 1);
                parameters(v, in, field);

            } else {
                put(v, "<", 1);
                v->len--;
                token(v, in);
                put(v, ">", 1);
                v->len--;
            }
        }

        space(v, in);

        if (n > 1) {
            put(v, ",", 0);
        }

        space(v, in);
    }
}


static void
note(value_t *v, const ngx_pgq_header_word_t *text)
{
    size_t  i;

    for (i = 0; i < text->len; i++) {
        i += text->quoted && text->data[i] == '\\';
        v->meant[v->meant_len++] = (char) text->data[i];
    }
}


/* Parses the value; -1 if it is malformed. */

static int
read_value(value_t *v, const uint8_t *p, size_t len, int field)
{
    int                    rc;
    ngx_pgq_header_t       h;
    ngx_pgq_header_word_t  a, b;

    v->meant_len = 0;
    ngx_pgq_header_start(&h, p, len);

    if (field == TYPE) {
        if (ngx_pgq_header_media_type(&h, &a, &b) != 0) {
            return -1;
        }

        note(v, &a);
        v->meant[v->meant_len++] = '/';
        note(v, &b);
    }

    while ((rc = field == TYPE ? ngx_pgq_header_parameter(&h, &a, &b)
                 : field == PREFER ? ngx_pgq_header_preference(&h, &a, &b)
                 : ngx_pgq_header_item(&h, &a)) == 1)
    {
        v->meant[v->meant_len++] = '<';
        note(v, &a);

        if (field != CODINGS) {
            v->meant[v->meant_len++] = '=';
            note(v, &b);
        }

        v->meant[v->meant_len++] = '>';
    }

    return rc;
}


/* The result of the reference parser. */

static int
reference(const uint8_t *p, size_t len, int field)
{
    int   utf8;
    char  word[HEADER_ORACLE_MAX];

    return field == TYPE
           ? header_oracle_type((const char *) p, len, word, &utf8)
           : field == PREFER
           ? header_oracle_prefer((const char *) p, len, word)
           : header_oracle_codings((const char *) p, len);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    int           rc, field;
    unsigned      choice;
    uint8_t      *copy;
    fuzz_input_t  in = { p, len };

    static value_t  written, read;

    choice = fuzz_byte(&in);
    field = (int) (choice % FIELDS);

    if (choice < 128) {
        rc = read_value(&read, in.p, in.len, field);
        fuzz_check((rc < 0) == (reference(in.p, in.len, field) < 0));
        return 0;
    }

    write_value(&written, &in, field);
    copy = fuzz_copy(written.text, written.len);
    rc = read_value(&read, copy, written.len, field);
    fuzz_check(rc == 0 && read.meant_len == written.meant_len);
    fuzz_check(memcmp(read.meant, written.meant, read.meant_len) == 0);
    fuzz_check(reference(copy, written.len, field) >= 0);
    free(copy);

    return 0;
}
