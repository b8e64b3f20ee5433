/* SPDX-License-Identifier: PostgreSQL */

/*
 * An array is written by the module and read as PostgreSQL's array_recv() and
 * textrecv() do.  An input is a list of elements.  An element is a length (one
 * byte), a number of repetitions (one byte, multiplied by four) and that many
 * bytes; length 255 with the largest number of repetitions is a null.
 */

#include "fuzz.h"
#include "ngx_pgq_array.h"


#define ITEMS  64
#define BYTES  (256 * 1024)


typedef struct {
    size_t   len;
    u_char  *data;
    int      null;
} item_t;


static void
item(item_t *item, fuzz_input_t *in)
{
    size_t          i, len, times;
    const uint8_t  *bytes;

    len = fuzz_byte(in);
    times = fuzz_byte(in) * 4 + 1;
    bytes = fuzz_bytes(in, len, &len);

    item->null = (len == 255 && times == 255 * 4 + 1);
    item->len = item->null ? 0 : len * times;
    item->data = malloc(item->len ? item->len : 1);
    fuzz_check(item->data != NULL);

    for (i = 0; i < item->len; i++) {
        item->data[i] = bytes[i % len];
    }
}


static uint32_t
number(const uint8_t **p, const uint8_t *end)
{
    int       i;
    uint32_t  value;

    fuzz_check(end - *p >= 4);

    for (value = 0, i = 0; i < 4; i++) {
        value = value * 256 + *(*p)++;
    }

    return value;
}


static void
read_again(const uint8_t *p, const uint8_t *end, uint32_t oid,
    const item_t *items, uint32_t n)
{
    uint32_t  i;

    fuzz_check(number(&p, end) == 1);           /* dimensions */
    fuzz_check(number(&p, end) == 0);           /* flags */
    fuzz_check(number(&p, end) == oid);
    fuzz_check(number(&p, end) == n);
    fuzz_check(number(&p, end) == 1);           /* lower bound */

    for (i = 0; i < n; i++) {
        if (items[i].null) {
            fuzz_check(number(&p, end) == 0xffffffff);
            continue;
        }

        fuzz_check(number(&p, end) == items[i].len);
        fuzz_check((size_t) (end - p) >= items[i].len);
        fuzz_check(memcmp(p, items[i].data, items[i].len) == 0);
        p += items[i].len;
    }

    fuzz_check(p == end);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    size_t        bytes;
    u_char       *array, *end;
    item_t        items[ITEMS];
    uint32_t      i, n, oid;
    fuzz_input_t  in = { p, len };

    oid = fuzz_byte(&in) % 2 ? NGX_PGQ_OID_TEXT : NGX_PGQ_OID_UUID;

    for (n = 0, bytes = 0; n < ITEMS && bytes < BYTES && in.len; n++) {
        item(&items[n], &in);
        bytes += items[n].len;
    }

    bytes = ngx_pgq_array_len(n, bytes);
    array = malloc(bytes);
    fuzz_check(array != NULL);

    end = ngx_pgq_array_head(array, oid, n);

    for (i = 0; i < n; i++) {
        end = items[i].null ? ngx_pgq_array_null(end)
              : ngx_pgq_array_item(end, items[i].data, items[i].len);
    }

    fuzz_check((size_t) (end - array) == bytes);
    read_again(array, end, oid, items, n);

    for (i = 0; i < n; i++) {
        free(items[i].data);
    }

    free(array);

    return 0;
}
