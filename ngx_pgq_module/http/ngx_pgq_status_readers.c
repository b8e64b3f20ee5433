/* SPDX-License-Identifier: PostgreSQL */

/*
 * The metrics of streams on the page of pgq_metrics.  A counter appears once
 * it is above zero.
 */

#include "ngx_pgq_reader.h"
#include "ngx_pgq_status.h"


static void ngx_pgq_status_readers_labels(ngx_pgq_status_t *page,
    const char *name, const char *type, const char *help, const char *label,
    const char **values, ngx_atomic_t *counters, ngx_uint_t n);


void
ngx_pgq_status_readers(ngx_pgq_status_t *page)
{
    u_char              name[2 * NGX_PGQ_METRICS_NAME];
    ngx_uint_t          i, j;
    ngx_pgq_metrics_t  *metrics;

    static const char  *ends[] = {
        "client", "age", "until", "drain", "answered", "refused",
        "timeout", "backlog", "error"
    };
    static const char  *resumes[] = { "ring", "database", "reset" };

    metrics = ngx_pgq_metrics_all();

    ngx_pgq_status_head(page, "pgq_open_readers", "gauge",
                        "Open streams, by transport.");

    for (i = 0; i < page->npools; i++) {
        ngx_pgq_status_quote(name, page->pools[i].name);

        for (j = 0; j < NGX_PGQ_TRANSPORTS; j++) {
            ngx_pgq_status_print(page, "pgq_open_readers{pool=\"%s\","
                                 "transport=\"%s\"} %uA\n", name,
                                 ngx_pgq_transports[j].name,
                                 page->pools[i].posts.readers[j]);
        }
    }

    ngx_pgq_status_readers_labels(page, "pgq_reader_ends_total", "counter",
                                  "Streams that have ended, by reason.",
                                  "reason", ends, metrics->ends,
                                  NGX_PGQ_READER_ENDS);
    ngx_pgq_status_readers_labels(page, "pgq_resumes_total", "counter",
                                  "Streams that began at an id, by where its"
                                  " posts were.", "from", resumes,
                                  metrics->resumes, NGX_PGQ_METRICS_RESUMES);
    ngx_pgq_status_number(page, "pgq_frames_total", "counter",
                          "Posts sent to streams.",
                          metrics->totals[NGX_PGQ_METRICS_FRAMES]);
}


static void
ngx_pgq_status_readers_labels(ngx_pgq_status_t *page, const char *name,
    const char *type, const char *help, const char *label, const char **values,
    ngx_atomic_t *counters, ngx_uint_t n)
{
    ngx_uint_t  i;

    ngx_pgq_status_head(page, name, type, help);

    for (i = 0; i < n; i++) {
        if (counters[i]) {
            ngx_pgq_status_print(page, "%s{%s=\"%s\"} %uA\n", name, label,
                                 values[i], counters[i]);
        }
    }
}
