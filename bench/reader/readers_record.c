/* SPDX-License-Identifier: PostgreSQL */

/*
 * The record of received messages: see readers_record.h.
 */

#include "readers_record.h"

#include <stdlib.h>
#include <string.h>


#define READERS_HASH_FACTOR  1099511628211u


typedef struct {
    int64_t    last;                /* id of the last message */
    uint64_t   order;
    uint32_t   got;
} readers_entry_t;


static void readers_record_expect(void);


static readers_entry_t  *readers_entries;
static uint8_t          *readers_bits;      /* of all readers */
static size_t            readers_bytes;     /* of one reader */
static uint8_t          *readers_expected;
static uint64_t          readers_nexpected;


int
readers_record_init(void)
{
    unsigned  i;

    free(readers_entries);
    free(readers_bits);
    free(readers_expected);

    readers_bytes = (readers_run.max + 7) / 8 + 1;

    readers_entries = calloc(readers_settings.readers,
                             sizeof(readers_entry_t));
    readers_bits = calloc(readers_settings.readers, readers_bytes);
    readers_expected = malloc(readers_bytes);

    if (readers_entries == NULL || readers_bits == NULL
        || readers_expected == NULL)
    {
        return -1;
    }

    for (i = 0; i < readers_settings.readers; i++) {
        readers_entries[i].last = -1;
    }

    return 0;
}


int
readers_record_add(unsigned i, uint32_t n, int64_t id)
{
    uint8_t           bit, *byte;
    readers_entry_t  *entry;

    entry = &readers_entries[i];

    readers_run.deliveries++;

    if (id != -1) {
        readers_run.descending += (id <= entry->last);
        entry->last = id;
    }

    bit = (uint8_t) (1 << (n & 7));
    byte = &readers_bits[i * readers_bytes + (n >> 3)];

    if (*byte & bit) {
        readers_run.twice++;
        return 0;
    }

    *byte |= bit;
    entry->got++;
    entry->order = entry->order * READERS_HASH_FACTOR + n + 1;

    return 1;
}


static void
readers_record_expect(void)
{
    uint32_t            n;
    readers_message_t  *message;

    memset(readers_expected, 0, readers_bytes);
    readers_nexpected = 0;

    for (n = 0; n < readers_run.next; n++) {
        message = &readers_run.messages[n];

        if (message->acked || message->seen) {
            readers_expected[n >> 3] |= (uint8_t) (1 << (n & 7));
            readers_nexpected++;
        }
    }
}


int
readers_record_complete(void)
{
    unsigned  i;

    readers_record_expect();

    for (i = 0; i < readers_settings.readers; i++) {
        if (readers_entries[i].got != readers_nexpected) {
            return 0;
        }
    }

    return 1;
}


void
readers_record_report(readers_report_t *report)
{
    size_t            k;
    uint8_t          *bits;
    uint32_t          n;
    unsigned          i, missing;
    readers_entry_t  *entry, *first;

    readers_record_expect();

    memset(report, 0, sizeof(readers_report_t));
    report->expected = readers_nexpected;
    first = NULL;

    for (n = 0; n < readers_run.next; n++) {
        report->unseen += readers_run.messages[n].acked
                          && !readers_run.messages[n].seen;
    }

    for (i = 0; i < readers_settings.readers; i++) {
        entry = &readers_entries[i];
        bits = &readers_bits[i * readers_bytes];

        for (missing = 0, k = 0; k < readers_bytes; k++) {
            missing += (unsigned) __builtin_popcount(readers_expected[k]
                                                     & ~bits[k]);
        }

        report->missing += missing;

        if (missing) {
            continue;
        }

        report->complete++;
        first = first ? first : entry;
        report->disorder += (entry->order != first->order);
    }
}
