/* SPDX-License-Identifier: PostgreSQL */

/*
 * Memory between two inaccessible pages.  A text is copied to its beginning or
 * its end; a read outside of the text then ends the test.
 */

#ifndef GUARD_H
#define GUARD_H


#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>


#define GUARD_PAGE  4096
#define GUARD_SIZE  (2 * 1024 * 1024)


static unsigned char  *guard_memory;


static inline void
guard_init(void)
{
    guard_memory = mmap(NULL, GUARD_SIZE + 2 * GUARD_PAGE,
                        PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS,
                        -1, 0);

    if (guard_memory == MAP_FAILED
        || mprotect(guard_memory, GUARD_PAGE, PROT_NONE) != 0
        || mprotect(guard_memory + GUARD_PAGE + GUARD_SIZE, GUARD_PAGE,
                    PROT_NONE)
           != 0)
    {
        abort();
    }

    guard_memory += GUARD_PAGE;
}


/* The copy is valid until the next call of either function. */

static inline unsigned char *
guard_before(const void *text, size_t len)
{
    return memcpy(guard_memory, text, len);
}


static inline unsigned char *
guard_after(const void *text, size_t len)
{
    return memcpy(guard_memory + GUARD_SIZE - len, text, len);
}


#endif /* GUARD_H */
