/* SPDX-License-Identifier: PostgreSQL */

/*
 * The verdict: see load_verdict.h.
 *
 * A row whose id was acknowledged is judged at once.  Any other is a stranger:
 * its hash is kept, and when all are read the ledger is gone through once to
 * see whose body it is: that of an attempt of unknown outcome, of a refused
 * one, or of an acknowledged one that stands there under its own id as well.
 */

#include "load_verdict.h"
#include "load_body.h"
#include "load_ledger.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>


#define LOAD_VERDICT_EXAMPLES  5


typedef struct {
    uint64_t  hash;
    uint32_t  rows;                 /* with this body, strangers all */
    uint32_t  unknown;              /* attempts with this body */
    uint32_t  refused;
    uint32_t  acked;
    uint32_t  lost;                 /* acked ones not there under their id */
    uint32_t  ours;                 /* the body carries our run's tag */
} load_stranger_t;


static int load_verdict_stranger(uint64_t hash, const u_char *data,
    size_t len);
static void load_verdict_merge(void);
static void load_verdict_judge(const load_stranger_t *stranger);
static int load_verdict_compare(const void *one, const void *two);
static void load_verdict_example(uint64_t count, const char *what, uint64_t n,
    const u_char id[16]);


static const load_settings_t  *load_settings;
static load_verdict_t         *load_verdict;
static u_char                 *load_seen;           /* times, by attempt */
static load_stranger_t        *load_strangers;
static size_t                  load_nstrangers;


int
load_verdict_init(const load_settings_t *settings, load_verdict_t *verdict)
{
    load_settings = settings;
    load_verdict = verdict;
    memset(verdict, 0, sizeof(load_verdict_t));

    load_seen = calloc(load_ledger_count() + 1, 1);

    if (load_seen == NULL || load_ledger_index(&verdict->id_twice) != 0) {
        return -1;
    }

    return 0;
}


int
load_verdict_row(const u_char id[16], const u_char *data, size_t len,
    int dead)
{
    uint64_t  n, hash;

    load_verdict->checked++;

    n = load_ledger_find(id);
    hash = load_body_hash(data, len);

    if (n == 0) {
        return load_verdict_stranger(hash, data, len);
    }

    if (load_seen[n] < UINT8_MAX) {
        load_seen[n]++;
    }

    if (load_seen[n] > 1) {
        load_verdict->twice++;
        load_verdict_example(load_verdict->twice, "twice", n, id);
    }

    if (hash != load_ledger_entry(n)->hash) {
        load_verdict->altered++;
        load_verdict_example(load_verdict->altered, "altered", n, id);
    }

    if (dead) {
        load_verdict->dead++;
        load_verdict_example(load_verdict->dead, "dead", n, id);
    }

    return 0;
}


void
load_verdict_finish(void)
{
    size_t            i;
    uint64_t          n;
    load_entry_t     *entry;
    load_stranger_t   key, *stranger;

    load_verdict_merge();

    for (n = 1; n <= load_ledger_count(); n++) {
        entry = load_ledger_entry(n);

        /* an id given twice is in the index once */

        if (entry->acked && load_seen[n] == 0
            && load_ledger_find(entry->id) == n)
        {
            load_verdict->lost++;
            load_verdict_example(load_verdict->lost, "lost", n, entry->id);
        }

        key.hash = entry->hash;

        stranger = load_nstrangers
                   ? bsearch(&key, load_strangers, load_nstrangers,
                             sizeof(load_stranger_t), load_verdict_compare)
                   : NULL;

        if (stranger == NULL) {
            continue;
        }

        if (entry->acked) {
            stranger->acked++;
            stranger->lost += (load_seen[n] == 0);

        } else if (entry->status == LOAD_LEDGER_UNKNOWN) {
            stranger->unknown++;

        } else {
            stranger->refused++;
        }
    }

    for (i = 0; i < load_nstrangers; i++) {
        load_verdict_judge(&load_strangers[i]);
    }
}


void
load_verdict_print(const load_verdict_t *verdict)
{
    printf("result drained %d\n"
           "result checked %" PRIu64 "\n"
           "result lost %" PRIu64 "\n"
           "result twice %" PRIu64 "\n"
           "result altered %" PRIu64 "\n"
           "result unexpected %" PRIu64 "\n"
           "result unknown_present %" PRIu64 "\n"
           "result unknown_twice %" PRIu64 "\n"
           "result id_twice %" PRIu64 "\n"
           "result dead %" PRIu64 "\n"
           "result foreign %" PRIu64 "\n",
           verdict->drained, verdict->checked, verdict->lost, verdict->twice,
           verdict->altered, verdict->unexpected, verdict->unknown_present,
           verdict->unknown_twice, verdict->id_twice, verdict->dead,
           verdict->foreign);
}


int
load_verdict_good(const load_settings_t *settings,
    const load_verdict_t *verdict)
{
    return verdict->drained && verdict->lost == 0 && verdict->twice == 0
           && verdict->altered == 0 && verdict->unexpected == 0
           && verdict->unknown_twice == 0 && verdict->id_twice == 0
           && (verdict->dead == 0 || settings->dead_ok);
}


static int
load_verdict_stranger(uint64_t hash, const u_char *data, size_t len)
{
    load_stranger_t  *strangers;

    static const char  tag[] = "{\"run\":\"";

    /* grown whenever the number is a power of two */

    if ((load_nstrangers & (load_nstrangers - 1)) == 0) {
        strangers = realloc(load_strangers,
                            (load_nstrangers ? load_nstrangers * 2 : 1)
                            * sizeof(load_stranger_t));

        if (strangers == NULL) {
            return -1;
        }

        load_strangers = strangers;
    }

    strangers = &load_strangers[load_nstrangers++];

    memset(strangers, 0, sizeof(load_stranger_t));
    strangers->hash = hash;
    strangers->rows = 1;
    strangers->ours = load_settings->bodies == NULL
                      && len >= sizeof(tag) - 1 + 9
                      && memcmp(data, tag, sizeof(tag) - 1) == 0
                      && memcmp(data + sizeof(tag) - 1, load_settings->run, 8)
                         == 0;

    return 0;
}


/* Of strangers with equal bodies one remains, which counts them. */

static void
load_verdict_merge(void)
{
    size_t  i, kept;

    if (load_nstrangers == 0) {
        return;
    }

    qsort(load_strangers, load_nstrangers, sizeof(load_stranger_t),
          load_verdict_compare);

    for (i = 1, kept = 0; i < load_nstrangers; i++) {

        if (load_strangers[i].hash == load_strangers[kept].hash) {
            load_strangers[kept].rows++;

        } else {
            load_strangers[++kept] = load_strangers[i];
        }
    }

    load_nstrangers = kept + 1;
}


static void
load_verdict_judge(const load_stranger_t *stranger)
{
    uint64_t  rows;

    rows = stranger->rows;

    if (rows <= stranger->unknown) {
        load_verdict->unknown_present += rows;
        return;
    }

    load_verdict->unknown_present += stranger->unknown;
    rows -= stranger->unknown;

    if (stranger->refused || stranger->lost) {
        load_verdict->unexpected += rows;

    } else if (stranger->acked) {
        load_verdict->twice += rows;

    } else if (stranger->unknown) {
        load_verdict->unknown_twice += rows;

    } else if (stranger->ours || load_settings->exclusive) {
        load_verdict->unexpected += rows;

    } else {
        load_verdict->foreign += rows;
        return;
    }

    fprintf(stderr, "pgq_load: %" PRIu64 " rows too many with the body of"
            " hash %016" PRIx64 "\n", rows, stranger->hash);
}


static int
load_verdict_compare(const void *one, const void *two)
{
    uint64_t  a, b;

    a = ((const load_stranger_t *) one)->hash;
    b = ((const load_stranger_t *) two)->hash;

    return (a > b) - (a < b);
}


static void
load_verdict_example(uint64_t count, const char *what, uint64_t n,
    const u_char id[16])
{
    int  i;

    if (count > LOAD_VERDICT_EXAMPLES) {
        return;
    }

    fprintf(stderr, "pgq_load: %s: attempt %" PRIu64 ", id ", what, n);

    for (i = 0; i < 16; i++) {
        fprintf(stderr, "%s%02x",
                (i == 4 || i == 6 || i == 8 || i == 10) ? "-" : "", id[i]);
    }

    fprintf(stderr, "\n");
}
