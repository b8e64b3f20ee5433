/* SPDX-License-Identifier: PostgreSQL */

/*
 * The memory of a ring: a header, an index of slots, and the bytes of topics
 * and objects.  Places and byte positions are counters that only grow; a place
 * modulo the number of slots is an index, a position modulo the size is an
 * offset, so an object may wrap around the end.
 *
 * The memory has no pointers and no locks.  Only the process in owner writes
 * the state, the slots and the bytes.
 *
 * Invariants:
 *  - the published state is complete: a process killed at any moment leaves
 *    the state before or after its change, never a part of it.  A change
 *    writes the copy of the state that is not in use, then the version;
 *  - what first <= place < end refers to is not changed.  The writer publishes
 *    a greater first before it overwrites, and a greater end after it has
 *    written.  Thus a reader copies first, and then checks that its place is
 *    not before the first one of that moment;
 *  - ids grow with places, unless the epoch grows between them;
 *  - NGX_PGQ_RING_WRITING is set in owner during a change.  Another process
 *    becomes the owner, by an atomic exchange, if the bit is not set or the
 *    owner has ended.  Thus a process that was stopped never writes after
 *    another one has taken over;
 *  - an id is in topics before its entry can be read.  A reset publishes that
 *    the ring is not loaded before it clears topics.
 *
 * Copies of what may be written at the same time are not atomic.  They are
 * made between fences, and used only if the check after them succeeds.
 */

#ifndef NGX_PGQ_RING_MEMORY_H
#define NGX_PGQ_RING_MEMORY_H


#include "ngx_pgq_ring.h"


#define NGX_PGQ_RING_LINE        64     /* bytes of a cache line */
#define NGX_PGQ_RING_WRITING     1
#define NGX_PGQ_RING_TOPICS      4096


typedef struct {
    ngx_pgq_ring_state_t     state;
} __attribute__((aligned(NGX_PGQ_RING_LINE))) ngx_pgq_ring_published_t;


struct ngx_pgq_ring_memory_s {
    uint64_t                 posts;
    uint64_t                 size;
    uint64_t                 created;       /* ms since the epoch */
    /* the copy number version % 2 is in use */
    uint64_t                 version;
    ngx_pgq_ring_published_t  copies[2];
    /* process id * 2, plus NGX_PGQ_RING_WRITING; 0: none */
    uint64_t                 owner __attribute__((aligned(NGX_PGQ_RING_LINE)));
    uint64_t                 beat;          /* the owner's last sign of life */
    /* by process slot: the worker wants to be woken up at the next change */
    uint8_t                  armed[NGX_MAX_PROCESSES];
    /* by hash of the topic: the newest id since the ring was reset */
    int64_t                  topics[NGX_PGQ_RING_TOPICS];
    ngx_pgq_ring_entry_t     slots[];
};


#define ngx_pgq_ring_bytes(memory)                                            \
    ((u_char *) &(memory)->slots[(memory)->posts])


int64_t *ngx_pgq_ring_topic(ngx_pgq_ring_memory_t *memory, ngx_str_t *topic);


#endif /* NGX_PGQ_RING_MEMORY_H */
