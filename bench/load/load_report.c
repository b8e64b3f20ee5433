/* SPDX-License-Identifier: PostgreSQL */

/*
 * The report: see load_report.h.
 *
 * A row with an acknowledged id is checked at once.  Any other row is
 * unmatched: its hash is kept, and after the last row one pass over the record
 * finds the attempts with the same body: of unknown outcome, refused, or
 * acknowledged and also there under their own id.
 */

#include "load_report.h"
#include "load_body.h"
#include "load_record.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>


#define LOAD_REPORT_EXAMPLES  5


typedef struct {
    uint64_t  hash;
    uint32_t  rows;                 /* unmatched rows with this body */
    uint32_t  unknown;              /* attempts with this body */
    uint32_t  refused;
    uint32_t  acked;
    uint32_t  lost;                 /* acked attempts without a row */
    uint32_t  ours;                 /* the body has the tag of this run */
} load_unmatched_t;


static int load_report_unmatched(uint64_t hash, const u_char *data,
    size_t len);
static void load_report_merge(void);
static void load_report_judge(const load_unmatched_t *row);
static int load_report_compare(const void *one, const void *two);
static void load_report_example(uint64_t count, const char *what, uint64_t n,
    const u_char id[16]);


static const load_settings_t  *load_settings;
static load_report_t          *load_report;
static u_char                 *load_seen;           /* number of rows, by attempt */
static load_unmatched_t       *load_unmatched;
static size_t                  load_nunmatched;


int
load_report_init(const load_settings_t *settings, load_report_t *report)
{
    load_settings = settings;
    load_report = report;
    memset(report, 0, sizeof(load_report_t));

    load_seen = calloc(load_record_count() + 1, 1);

    if (load_seen == NULL || load_record_index(&report->id_twice) != 0) {
        return -1;
    }

    return 0;
}


int
load_report_row(const u_char id[16], const u_char *data, size_t len,
    int dead)
{
    uint64_t  n, hash;

    load_report->checked++;

    n = load_record_find(id);
    hash = load_body_hash(data, len);

    if (n == 0) {
        return load_report_unmatched(hash, data, len);
    }

    if (load_seen[n] < UINT8_MAX) {
        load_seen[n]++;
    }

    if (load_seen[n] > 1) {
        load_report->twice++;
        load_report_example(load_report->twice, "twice", n, id);
    }

    if (hash != load_record_entry(n)->hash) {
        load_report->altered++;
        load_report_example(load_report->altered, "altered", n, id);
    }

    if (dead) {
        load_report->dead++;
        load_report_example(load_report->dead, "dead", n, id);
    }

    return 0;
}


void
load_report_finish(void)
{
    size_t            i;
    uint64_t          n;
    load_entry_t     *entry;
    load_unmatched_t   key, *row;

    load_report_merge();

    for (n = 1; n <= load_record_count(); n++) {
        entry = load_record_entry(n);

        /* an id of two attempts is in the index once */

        if (entry->acked && load_seen[n] == 0
            && load_record_find(entry->id) == n)
        {
            load_report->lost++;
            load_report_example(load_report->lost, "lost", n, entry->id);
        }

        key.hash = entry->hash;

        row = load_nunmatched
                   ? bsearch(&key, load_unmatched, load_nunmatched,
                             sizeof(load_unmatched_t), load_report_compare)
                   : NULL;

        if (row == NULL) {
            continue;
        }

        if (entry->acked) {
            row->acked++;
            row->lost += (load_seen[n] == 0);

        } else if (entry->status == LOAD_RECORD_UNKNOWN) {
            row->unknown++;

        } else {
            row->refused++;
        }
    }

    for (i = 0; i < load_nunmatched; i++) {
        load_report_judge(&load_unmatched[i]);
    }
}


void
load_report_print(const load_report_t *report)
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
           report->drained, report->checked, report->lost, report->twice,
           report->altered, report->unexpected, report->unknown_present,
           report->unknown_twice, report->id_twice, report->dead,
           report->foreign);
}


int
load_report_good(const load_settings_t *settings,
    const load_report_t *report)
{
    return report->drained && report->lost == 0 && report->twice == 0
           && report->altered == 0 && report->unexpected == 0
           && report->unknown_twice == 0 && report->id_twice == 0
           && (report->dead == 0 || settings->dead_ok);
}


static int
load_report_unmatched(uint64_t hash, const u_char *data, size_t len)
{
    load_unmatched_t  *rows;

    static const char  tag[] = "{\"run\":\"";

    /* the array grows when the number is a power of two */

    if ((load_nunmatched & (load_nunmatched - 1)) == 0) {
        rows = realloc(load_unmatched,
                            (load_nunmatched ? load_nunmatched * 2 : 1)
                            * sizeof(load_unmatched_t));

        if (rows == NULL) {
            return -1;
        }

        load_unmatched = rows;
    }

    rows = &load_unmatched[load_nunmatched++];

    memset(rows, 0, sizeof(load_unmatched_t));
    rows->hash = hash;
    rows->rows = 1;
    rows->ours = load_settings->bodies == NULL
                      && len >= sizeof(tag) - 1 + 9
                      && memcmp(data, tag, sizeof(tag) - 1) == 0
                      && memcmp(data + sizeof(tag) - 1, load_settings->run, 8)
                         == 0;

    return 0;
}


/* Merges rows with equal bodies into one that counts them. */

static void
load_report_merge(void)
{
    size_t  i, kept;

    if (load_nunmatched == 0) {
        return;
    }

    qsort(load_unmatched, load_nunmatched, sizeof(load_unmatched_t),
          load_report_compare);

    for (i = 1, kept = 0; i < load_nunmatched; i++) {

        if (load_unmatched[i].hash == load_unmatched[kept].hash) {
            load_unmatched[kept].rows++;

        } else {
            load_unmatched[++kept] = load_unmatched[i];
        }
    }

    load_nunmatched = kept + 1;
}


static void
load_report_judge(const load_unmatched_t *row)
{
    uint64_t  rows;

    rows = row->rows;

    if (rows <= row->unknown) {
        load_report->unknown_present += rows;
        return;
    }

    load_report->unknown_present += row->unknown;
    rows -= row->unknown;

    if (row->refused || row->lost) {
        load_report->unexpected += rows;

    } else if (row->acked) {
        load_report->twice += rows;

    } else if (row->unknown) {
        load_report->unknown_twice += rows;

    } else if (row->ours || load_settings->exclusive) {
        load_report->unexpected += rows;

    } else {
        load_report->foreign += rows;
        return;
    }

    fprintf(stderr, "pgq_load: %" PRIu64 " surplus rows with a body of"
            " hash %016" PRIx64 "\n", rows, row->hash);
}


static int
load_report_compare(const void *one, const void *two)
{
    uint64_t  a, b;

    a = ((const load_unmatched_t *) one)->hash;
    b = ((const load_unmatched_t *) two)->hash;

    return (a > b) - (a < b);
}


static void
load_report_example(uint64_t count, const char *what, uint64_t n,
    const u_char id[16])
{
    int  i;

    if (count > LOAD_REPORT_EXAMPLES) {
        return;
    }

    fprintf(stderr, "pgq_load: %s: attempt %" PRIu64 ", id ", what, n);

    for (i = 0; i < 16; i++) {
        fprintf(stderr, "%s%02x",
                (i == 4 || i == 6 || i == 8 || i == 10) ? "-" : "", id[i]);
    }

    fprintf(stderr, "\n");
}
