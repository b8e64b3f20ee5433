/* SPDX-License-Identifier: PostgreSQL */

/*
 * The record of requests: see load_record.h.
 *
 * Entries are in blocks, so that growing copies nothing.  The index is a hash
 * table of attempt numbers with linear probing, at most half full.
 *
 * The file, which tests change:
 *     pgq_load record <run> <largest id of posts before the load>
 *     <n> <status> <id or -> <hash>
 */

#include "load_record.h"
#include "load_answer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define LOAD_RECORD_BLOCK       65536
#define LOAD_RECORD_BLOCKS_MAX  65536


static uint64_t load_record_slot(const u_char id[16]);
static int load_record_line(const char *line, uint64_t n);


static load_entry_t  **load_record_blocks;
static uint64_t        load_record_entries;
static uint32_t       *load_record_table;
static uint64_t        load_record_mask;


int
load_record_init(void)
{
    size_t  i;

    if (load_record_blocks == NULL) {
        load_record_blocks = calloc(LOAD_RECORD_BLOCKS_MAX,
                                    sizeof(load_entry_t *));
        return load_record_blocks ? 0 : -1;
    }

    for (i = 0; i < LOAD_RECORD_BLOCKS_MAX && load_record_blocks[i]; i++) {
        free(load_record_blocks[i]);
        load_record_blocks[i] = NULL;
    }

    load_record_entries = 0;

    return 0;
}


uint64_t
load_record_add(uint64_t hash, uint64_t begun)
{
    load_entry_t  *entry, **block;

    if (load_record_entries
        == (uint64_t) LOAD_RECORD_BLOCK * LOAD_RECORD_BLOCKS_MAX - 1)
    {
        return 0;
    }

    block = &load_record_blocks[load_record_entries / LOAD_RECORD_BLOCK];

    if (*block == NULL) {
        *block = malloc(LOAD_RECORD_BLOCK * sizeof(load_entry_t));

        if (*block == NULL) {
            return 0;
        }
    }

    entry = &(*block)[load_record_entries % LOAD_RECORD_BLOCK];

    entry->hash = hash;
    entry->begun = begun & (((uint64_t) 1 << 48) - 1);
    entry->status = LOAD_RECORD_UNKNOWN;
    entry->acked = 0;

    return ++load_record_entries;
}


load_entry_t *
load_record_entry(uint64_t n)
{
    n--;

    return &load_record_blocks[n / LOAD_RECORD_BLOCK][n % LOAD_RECORD_BLOCK];
}


uint64_t
load_record_count(void)
{
    return load_record_entries;
}


int
load_record_index(uint64_t *again)
{
    uint64_t       n, size, slot;
    load_entry_t  *entry;

    for (size = 1024; size < load_record_entries * 2; size *= 2) {
        /* void */
    }

    free(load_record_table);

    load_record_table = calloc(size, sizeof(uint32_t));
    load_record_mask = size - 1;
    *again = 0;

    if (load_record_table == NULL) {
        return -1;
    }

    for (n = 1; n <= load_record_entries; n++) {
        entry = load_record_entry(n);

        if (!entry->acked) {
            continue;
        }

        if (load_record_find(entry->id)) {
            (*again)++;
            continue;
        }

        slot = load_record_slot(entry->id);

        while (load_record_table[slot]) {
            slot = (slot + 1) & load_record_mask;
        }

        load_record_table[slot] = (uint32_t) n;
    }

    return 0;
}


uint64_t
load_record_find(const u_char id[16])
{
    uint64_t  n, slot;

    slot = load_record_slot(id);

    while ((n = load_record_table[slot]) != 0) {

        if (memcmp(load_record_entry(n)->id, id, 16) == 0) {
            return n;
        }

        slot = (slot + 1) & load_record_mask;
    }

    return 0;
}


int
load_record_save(const char *name, const char *run, int64_t mark)
{
    int            i, bad;
    char           id[33];
    FILE          *file;
    uint64_t       n;
    load_entry_t  *entry;

    file = fopen(name, "w");

    if (file == NULL) {
        fprintf(stderr, "pgq_load: %s: %s\n", name, strerror(errno));
        return -1;
    }

    fprintf(file, "pgq_load record %s %" PRId64 "\n", run, mark);

    for (n = 1; n <= load_record_entries; n++) {
        entry = load_record_entry(n);

        if (!entry->acked) {
            fprintf(file, "%" PRIu64 " %u - %016" PRIx64 "\n",
                    n, (unsigned) entry->status, entry->hash);
            continue;
        }

        for (i = 0; i < 16; i++) {
            id[i * 2] = "0123456789abcdef"[entry->id[i] >> 4];
            id[i * 2 + 1] = "0123456789abcdef"[entry->id[i] & 15];
        }

        fprintf(file,
                "%" PRIu64 " %u %.8s-%.4s-%.4s-%.4s-%.12s %016" PRIx64 "\n",
                n, (unsigned) entry->status, id, id + 8, id + 12, id + 16,
                id + 20, entry->hash);
    }

    bad = ferror(file);

    if (fclose(file) != 0 || bad) {
        fprintf(stderr, "pgq_load: %s: not written\n", name);
        return -1;
    }

    return 0;
}


int
load_record_load(const char *name, char run[9], int64_t *mark)
{
    int    bad;
    char   line[256];
    FILE  *file;

    file = fopen(name, "r");

    if (file == NULL) {
        fprintf(stderr, "pgq_load: %s: %s\n", name, strerror(errno));
        return -1;
    }

    bad = fgets(line, sizeof(line), file) == NULL
          || sscanf(line, "pgq_load record %8s %" SCNd64, run, mark) != 2;

    while (!bad && fgets(line, sizeof(line), file)) {
        bad = load_record_line(line, load_record_entries + 1) != 0;
    }

    fclose(file);

    if (bad) {
        fprintf(stderr, "pgq_load: %s: invalid record, near line %" PRIu64 "\n",
                name, load_record_entries + 2);
        return -1;
    }

    return 0;
}


static uint64_t
load_record_slot(const u_char id[16])
{
    uint64_t  a, b;

    memcpy(&a, id, 8);
    memcpy(&b, id + 8, 8);

    /* a UUIDv7 begins with its time: the hash uses every bit */

    a ^= a >> 32;
    a *= 0x9e3779b97f4a7c15;
    a ^= b;
    a ^= a >> 29;
    a *= 0xd6e8feb86659fd93;

    return (a ^ a >> 32) & load_record_mask;
}


static int
load_record_line(const char *line, uint64_t n)
{
    char           id[37];
    uint64_t       number, hash;
    unsigned       status;
    load_entry_t  *entry;

    if (sscanf(line, "%" SCNu64 " %u %36s %" SCNx64,
               &number, &status, id, &hash) != 4
        || number != n || load_record_add(hash, 0) != n)
    {
        return -1;
    }

    entry = load_record_entry(n);
    entry->status = status & 0x7fff;
    entry->acked = (strcmp(id, "-") != 0);

    if (entry->acked) {
        return strlen(id) == 36 ? load_answer_uuid((u_char *) id, entry->id)
                                : -1;
    }

    return 0;
}
