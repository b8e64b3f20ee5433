/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file turns an error message of the server or of libpq into one line of
 * bounded length, without control characters.
 */

#include "ngx_pgq_error_text.h"


/*
 * Copies the first line of src, which may be NULL, and terminates it.  Control
 * characters, including U+0080 to U+009F, become \xNN.
 */

void
ngx_pgq_error_text(u_char *dst, size_t size, const char *src)
{
    u_char        *start, *last, previous;
    const u_char  *p;

    start = dst;
    last = dst + size - 1;
    previous = 0;

    for (p = (const u_char *) (src ? src : "");
         *p && *p != LF && *p != CR;
         previous = *p++)
    {
        if (*p >= ' ' && *p != 0x7f
            && !(p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f)
            && !(previous == 0xc2 && *p >= 0x80 && *p <= 0x9f))
        {
            if (dst == last) {
                break;
            }

            *dst++ = *p;
            continue;
        }

        if (last - dst < 4) {
            break;
        }

        dst = ngx_sprintf(dst, "\\x%02xd", (int) *p);
    }

    /* do not split a UTF-8 character */

    while (*p && dst > start && (*p & 0xc0) == 0x80) {
        p--;
        dst--;
    }

    *dst = '\0';
}
