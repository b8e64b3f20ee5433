/* SPDX-License-Identifier: PostgreSQL */

/*
 * Loaded into nginx by test/module/206_ring_bells.t.
 *
 * eventfd() fails in a process that has made EVENTFDS of them, as it does when
 * too many files are open.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <sys/syscall.h>


int eventfd(unsigned int value, int flags);


int
eventfd(unsigned int value, int flags)
{
    static int   made;
    const char  *most;

    most = getenv("EVENTFDS");

    if (made >= (most ? atoi(most) : 0)) {
        errno = EMFILE;
        return -1;
    }

    made++;

    return syscall(SYS_eventfd2, value, flags);
}
