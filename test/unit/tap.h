/* SPDX-License-Identifier: PostgreSQL */

/*
 * The Test Anything Protocol for unit tests in C: ok() for each check, and at
 * the end of main() return tap_done().
 */

#ifndef TAP_H
#define TAP_H


#include <stdarg.h>
#include <stdio.h>


static int  tap_count;
static int  tap_failed;


/* Returns good, so that a caller can explain a failure. */

static inline int __attribute__((format(printf, 2, 3)))
ok(int good, const char *fmt, ...)
{
    va_list  args;

    tap_count++;
    tap_failed += !good;

    printf("%sok %d - ", good ? "" : "not ", tap_count);

    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);

    printf("\n");
    fflush(stdout);

    return good;
}


static inline int
tap_done(void)
{
    printf("1..%d\n", tap_count);

    return tap_failed != 0;
}


#endif /* TAP_H */
