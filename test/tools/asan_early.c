/* SPDX-License-Identifier: PostgreSQL */

/*
 * Loaded into the servers of the instrumented runs, after libasan.
 *
 * It starts AddressSanitizer before every other library's constructor.  ASan
 * starts at the first malloc().  In PostgreSQL's programs that is one inside
 * newlocale(), called from a constructor of a library they link to, under
 * glibc's locale lock: ASan looks for a symbol that is not there, glibc
 * translates the error message, which wants the same lock, and the program
 * hangs before main().  This library is linked with -z initfirst.
 *
 * It lets no library be unloaded, so that a report made at the very end still
 * knows the names of our functions.
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
