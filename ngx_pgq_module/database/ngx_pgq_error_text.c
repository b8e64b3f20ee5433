/* SPDX-License-Identifier: PostgreSQL */

/*
 * This file makes an error message of the server or of libpq safe for the log:
 * one line of bounded length, without control characters.
 */

#include "ngx_pgq_error_text.h"


/*
 * Copies the first line of src, which may be NULL, and terminates it.  Control
 * characters, including U+0080 to U+009F, become \xNN.
 */

void
ngx_pgq_error_text(u_char *dst, size_t size, const char *src)
{
    u_char        *start, *last, former;
    const u_char  *p;

    start = dst;
    last = dst + size - 1;
    former = 0;

    for (p = (const u_char *) (src ? src : "");
         *p && *p != LF && *p != CR;
         former = *p++)
    {
        if (*p >= ' ' && *p != 0x7f
            && !(p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f)
            && !(former == 0xc2 && *p >= 0x80 && *p <= 0x9f))
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

    /* do not cut a character in two */

    while (*p && dst > start && (*p & 0xc0) == 0x80) {
        p--;
        dst--;
    }

    *dst = '\0';
}
