/* SPDX-License-Identifier: PostgreSQL */

/*
 * Loaded before libfaketime into a server that reads its clock from a
 * file.
 *
 * During libfaketime's select() the time is not faked.  The postmaster of
 * PostgreSQL up to 15 starts background workers in signal handlers, mostly
 * within select(), so these would keep the machine's clock.  This select() is
 * the kernel's.
 */

#include <stddef.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>


int
select(int n, fd_set *in, fd_set *out, fd_set *except, struct timeval *timeout)
{
    int               rc;
    struct timespec   time, *left;

    left = NULL;

    if (timeout) {
        time.tv_sec = timeout->tv_sec;
        time.tv_nsec = timeout->tv_usec * 1000;
        left = &time;
    }

    rc = (int) syscall(SYS_pselect6, n, in, out, except, left, NULL);

    if (timeout) {
        timeout->tv_sec = time.tv_sec;
        timeout->tv_usec = time.tv_nsec / 1000;
    }

    return rc;
}
