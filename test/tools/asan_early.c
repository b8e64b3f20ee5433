/* SPDX-License-Identifier: PostgreSQL */

/*
 * Loaded into the servers of the instrumented runs, after libasan.
 *
 * It starts AddressSanitizer before the constructors of all other libraries.
 * ASan starts at the first malloc().  In PostgreSQL's programs that call is
 * in newlocale(), in a constructor of a library, under glibc's locale lock.
 * ASan then looks up a missing symbol, glibc translates the error message,
 * which needs the same lock, and the program hangs before main().  This
 * library is linked with -z initfirst.
 *
 * It prevents that libraries are unloaded, so that a report at exit still has
 * the names of our functions.
 */

#include <stdlib.h>


int dlclose(void *handle);


__attribute__((constructor)) static void
asan_early(void)
{
    void *volatile  p;

    p = malloc(1);
    free(p);
}


int
dlclose(void *handle)
{
    (void) handle;

    return 0;
}
