/* SPDX-License-Identifier: PostgreSQL */

/*
 * Loaded into nginx by test/module/133_batch_age.t.
 *
 * The files wall and boot in the directory CLOCKS contain seconds that are
 * added to CLOCK_REALTIME and to CLOCK_BOOTTIME, which also counts while a host
 * is suspended.  CLOCK_MONOTONIC, which nginx's timers use, is not changed.
 */

#include <stdio.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>


static long
added(const char *path)
{
    FILE  *file;
    long   seconds;

    seconds = 0;
    file = fopen(path, "r");

    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) {
            seconds = 0;
        }

        fclose(file);
    }

    return seconds;
}


int
clock_gettime(clockid_t clock, struct timespec *now)
{
    int  rc;

    rc = syscall(SYS_clock_gettime, clock, now);

    if (clock == CLOCK_BOOTTIME) {
        now->tv_sec += added(CLOCKS "/boot");

    } else if (clock == CLOCK_REALTIME) {
        now->tv_sec += added(CLOCKS "/wall");
    }

    return rc;
}


int
gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    int  rc;

    rc = syscall(SYS_gettimeofday, now, zone);
    now->tv_sec += added(CLOCKS "/wall");

    return rc;
}
