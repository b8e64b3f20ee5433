/* SPDX-License-Identifier: PostgreSQL */

/*
 * The room "status" shows what was counted: to Prometheus, in its text format
 * 0.0.4, by pgq_metrics; to people and load balancers, as JSON, by
 * pgq_status.  All memory is the request's.
 *
 * Invariants:
 *  - a page changes nothing, waits for nobody, and needs no database;
 *  - counters with a label appear once they are above zero, gauges always;
 *  - gauges are those of the workers that live when the page is made.
 */

#include "ngx_pgq_http.h"


#define NGX_PGQ_STATUS_SIZE      (256 * 1024)
#define NGX_PGQ_STATUS_MOMENT    2       /* s, that a pool's state lasts */


typedef struct {
    u_char                  *pos;
    u_char                  *end;
} ngx_pgq_status_t;


typedef enum {
    NGX_PGQ_STATUS_TICKETS = 0,
    NGX_PGQ_STATUS_BYTES,
    NGX_PGQ_STATUS_CONNECTS,
    NGX_PGQ_STATUS_FAILURES,
    NGX_PGQ_STATUS_LANES
} ngx_pgq_status_value_e;


typedef struct {
    const char              *name;
    const char              *type;
    const char              *help;
    ngx_pgq_status_value_e   value;
    ngx_uint_t               reads;     /* of a pool's GETs, not POSTs */
} ngx_pgq_status_gauge_t;


static ngx_uint_t ngx_pgq_status_open(ngx_http_request_t *r,
    ngx_pgq_status_t *page, ngx_int_t *rc);
static ngx_int_t ngx_pgq_status_send(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *type, ngx_pgq_status_t *page, u_char *start);
static void ngx_pgq_status_print(ngx_pgq_status_t *page, const char *fmt, ...);
static void ngx_pgq_status_head(ngx_pgq_status_t *page, const char *name,
    const char *type, const char *help);
static void ngx_pgq_status_requests(ngx_pgq_status_t *page);
static void ngx_pgq_status_totals(ngx_pgq_status_t *page);
static void ngx_pgq_status_histogram(ngx_pgq_status_t *page, const char *name,
    ngx_pgq_metrics_histogram_e histogram, const char *help);
static void ngx_pgq_status_pools(ngx_pgq_status_t *page, uint32_t places);
static void ngx_pgq_status_pool(ngx_pgq_status_t *page,
    ngx_pgq_status_gauge_t *metric, ngx_uint_t place);
static void ngx_pgq_status_name(u_char *dst, u_char *src);
static void ngx_pgq_status_build(ngx_pgq_status_t *page);
static const char *ngx_pgq_status_health(ngx_uint_t well, ngx_uint_t full);
static uint32_t ngx_pgq_status_places(ngx_http_request_t *r);


static ngx_str_t  ngx_pgq_status_text =
    ngx_string("text/plain; version=0.0.4; charset=utf-8");
static ngx_str_t  ngx_pgq_status_json = ngx_string("application/json");
static ngx_str_t  ngx_pgq_status_cache = ngx_string("no-store");


ngx_int_t
ngx_pgq_status_metrics_handler(ngx_http_request_t *r)
{
    u_char            *start;
    ngx_int_t          rc;
    ngx_pgq_status_t   page;

    if (!ngx_pgq_status_open(r, &page, &rc)) {
        return rc;
    }

    start = page.pos;

    ngx_pgq_status_requests(&page);
    ngx_pgq_status_totals(&page);

    ngx_pgq_status_histogram(&page, "pgq_batch_messages",
                             NGX_PGQ_METRICS_BATCH_MESSAGES,
                             "Messages of a batch, when it was first sent.");
    ngx_pgq_status_histogram(&page, "pgq_batch_seconds",
                             NGX_PGQ_METRICS_BATCH_SECONDS,
                             "From sending a batch to its outcome.");
    ngx_pgq_status_histogram(&page, "pgq_wait_seconds",
                             NGX_PGQ_METRICS_WAIT_SECONDS,
                             "From a message's ticket to its batch.");

    ngx_pgq_status_pools(&page, ngx_pgq_status_places(r));
    ngx_pgq_status_build(&page);

    return ngx_pgq_status_send(r, NGX_HTTP_OK, &ngx_pgq_status_text, &page,
                               start);
}


ngx_int_t
ngx_pgq_status_handler(ngx_http_request_t *r)
{
    u_char                    *start, name[2 * NGX_PGQ_METRICS_NAME];
    uint32_t                   places;
    ngx_int_t                  rc;
    ngx_uint_t                 i, j, lanes, connected, workers, well, all;
    ngx_uint_t                 full, some;
    ngx_pgq_status_t           page, list;
    ngx_pgq_metrics_pool_t    *pool;
    ngx_pgq_metrics_gauges_t   gauges;

    if (!ngx_pgq_status_open(r, &page, &rc)) {
        return rc;
    }

    /* the list of pools comes first in memory, and last in the document */

    list = page;
    list.end = page.pos + NGX_PGQ_STATUS_SIZE / 2;
    page.pos = list.end;
    start = page.pos;

    all = 1;
    some = 0;
    places = ngx_pgq_status_places(r);
    workers = ngx_pgq_metrics_gauges(0, &gauges);

    for (i = 0; i < NGX_PGQ_METRICS_POOLS; i++) {

        if (!(places & (1u << i))) {
            continue;
        }

        pool = &ngx_pgq_metrics_all()->pools[i];
        (void) ngx_pgq_metrics_gauges(i, &gauges);

        lanes = 0;

        for (j = 0; j < NGX_PGQ_METRICS_LANES; j++) {
            lanes += gauges.lanes[j];
        }

        connected = gauges.lanes[NGX_PGQ_LANE_IDLE]
                    + gauges.lanes[NGX_PGQ_LANE_BUSY];

        well = connected > 0
               || ngx_pgq_seconds() - (time_t) pool->connected
                  <= NGX_PGQ_STATUS_MOMENT;
        full = pool->full
               && ngx_pgq_seconds() - (time_t) pool->full
                  <= NGX_PGQ_STATUS_MOMENT;
        all = all && well;
        some = some || full;

        ngx_pgq_status_name(name, pool->name);
        ngx_pgq_status_print(&list, "%s{\"name\":\"%s\",\"status\":\"%s\","
                             "\"lanes\":%ui,\"connected\":%ui,"
                             "\"waiting_tickets\":%uA,\"waiting_bytes\":%uA}",
                             list.pos == start - NGX_PGQ_STATUS_SIZE / 2
                             ? "" : ",",
                             name, ngx_pgq_status_health(well, full), lanes,
                             connected, gauges.tickets, gauges.bytes);
    }

    ngx_pgq_status_print(&page, "{\"status\":\"%s\",\"workers\":%ui,"
                         "\"pools\":[%*s]}\n",
                         ngx_pgq_status_health(all, some), workers,
                         (size_t) (list.pos
                                   - (start - NGX_PGQ_STATUS_SIZE / 2)),
                         start - NGX_PGQ_STATUS_SIZE / 2);

    return ngx_pgq_status_send(r, all ? NGX_HTTP_OK
                                      : NGX_HTTP_SERVICE_UNAVAILABLE,
                               &ngx_pgq_status_json, &page, start);
}


/* a full pool refuses messages for a while; other servers may be as full */

static const char *
ngx_pgq_status_health(ngx_uint_t well, ngx_uint_t full)
{
    return !well ? "unavailable" : full ? "full" : "ok";
}


/* whether there is a page to write; if not, *rc is to be finalized with */

static ngx_uint_t
ngx_pgq_status_open(ngx_http_request_t *r, ngx_pgq_status_t *page,
    ngx_int_t *rc)
{
    ngx_pgq_fields_t  fields;

    ngx_pgq_fields_read(r, &fields);

    if (!ngx_pgq_origin_admits(r, &fields, NGX_HTTP_GET|NGX_HTTP_HEAD, rc)) {
        return 0;
    }

    page->pos = ngx_palloc(r->pool, NGX_PGQ_STATUS_SIZE);
    if (page->pos == NULL || ngx_pgq_metrics_all() == NULL) {
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return 0;
    }

    page->end = page->pos + NGX_PGQ_STATUS_SIZE;

    return 1;
}


static ngx_int_t
ngx_pgq_status_send(ngx_http_request_t *r, ngx_uint_t status, ngx_str_t *type,
    ngx_pgq_status_t *page, u_char *start)
{
    if (ngx_pgq_reply_header(r, "Cache-Control", &ngx_pgq_status_cache)
        == NULL)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_pgq_reply_body(r, status, type, start, page->pos - start);
}


static void
ngx_pgq_status_print(ngx_pgq_status_t *page, const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    page->pos = ngx_vslprintf(page->pos, page->end, fmt, args);
    va_end(args);
}


static void
ngx_pgq_status_head(ngx_pgq_status_t *page, const char *name, const char *type,
    const char *help)
{
    ngx_pgq_status_print(page, "# HELP %s %s\n# TYPE %s %s\n", name, help,
                         name, type);
}


static void
ngx_pgq_status_requests(ngx_pgq_status_t *page)
{
    ngx_uint_t          i, code;
    ngx_atomic_uint_t   n;
    ngx_pgq_metrics_t  *metrics;

    static const char  *handlers[] = { "post", "get" };
    static ngx_uint_t   good[] = { NGX_HTTP_ACCEPTED, NGX_HTTP_OK };

    metrics = ngx_pgq_metrics_all();

    ngx_pgq_status_head(page, "pgq_requests_total", "counter",
                        "Requests by the door they came to and the status they"
                        " got.");

    for (i = 0; i < NGX_PGQ_METRICS_HANDLERS; i++) {
        for (code = 0; code < NGX_PGQ_METRICS_CODES; code++) {
            n = metrics->requests[i][code];

            if (n || code == good[i]) {
                ngx_pgq_status_print(page, "pgq_requests_total{handler=\"%s\","
                                     "code=\"%03ui\"} %uA\n",
                                     handlers[i], code, n);
            }
        }
    }
}


static void
ngx_pgq_status_totals(ngx_pgq_status_t *page)
{
    u_char              a, b;
    const char         *code;
    ngx_uint_t          i;
    ngx_atomic_uint_t   n, batches;
    ngx_pgq_metrics_t  *metrics;
    ngx_pgq_metrics_histogram_t  *h;

    static const u_char  digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

    metrics = ngx_pgq_metrics_all();
    h = &metrics->histograms[NGX_PGQ_METRICS_BATCH_MESSAGES];
    batches = 0;

    for (i = 0; i <= NGX_PGQ_METRICS_BOUNDS; i++) {
        batches += h->buckets[i];
    }

    ngx_pgq_status_head(page, "pgq_batches_total", "counter",
                        "Batches sent, each counted once.");
    ngx_pgq_status_print(page, "pgq_batches_total %uA\n", batches);

    ngx_pgq_status_head(page, "pgq_messages_total", "counter",
                        "Messages in those batches.");
    ngx_pgq_status_print(page, "pgq_messages_total %uA\n", h->sum);

    ngx_pgq_status_head(page, "pgq_retries_total", "counter",
                        "Times that a batch was sent again.");
    ngx_pgq_status_print(page, "pgq_retries_total %uA\n",
                         metrics->totals[NGX_PGQ_METRICS_RETRIES]);

    ngx_pgq_status_head(page, "pgq_unknown_outcomes_total", "counter",
                        "Times that the database did not say what became of a"
                        " batch.");
    ngx_pgq_status_print(page, "pgq_unknown_outcomes_total %uA\n",
                         metrics->totals[NGX_PGQ_METRICS_UNKNOWN]);

    ngx_pgq_status_head(page, "pgq_rejects_total", "counter",
                        "Requests answered by a problem, by its code.");

    for (i = 0; i < NGX_PGQ_PROBLEMS; i++) {
        code = ngx_pgq_problems[i].code;
        n = metrics->problems[i];

        while (i + 1 < NGX_PGQ_PROBLEMS
               && ngx_strcmp(ngx_pgq_problems[i + 1].code, code) == 0)
        {
            n += metrics->problems[++i];
        }

        if (n) {
            ngx_pgq_status_print(page,
                                 "pgq_rejects_total{reason=\"%s\"} %uA\n",
                                 code, n);
        }
    }

    ngx_pgq_status_head(page, "pgq_database_errors_total", "counter",
                        "Errors of the database, by class of SQLSTATE; 08 is a"
                        " lost connection.");

    for (i = 0; i < NGX_PGQ_METRICS_CLASSES; i++) {
        n = metrics->classes[i];

        if (n) {
            a = digits[i / 36];
            b = digits[i % 36];
            ngx_pgq_status_print(page, "pgq_database_errors_total"
                                 "{class=\"%c%c\"} %uA\n", a, b, n);
        }
    }
}


/* messages as they are, milliseconds as seconds */

static void
ngx_pgq_status_histogram(ngx_pgq_status_t *page, const char *name,
    ngx_pgq_metrics_histogram_e histogram, const char *help)
{
    ngx_uint_t                    i, *bounds, whole;
    ngx_atomic_uint_t             n, sum;
    ngx_pgq_metrics_histogram_t  *h;

    h = &ngx_pgq_metrics_all()->histograms[histogram];
    bounds = ngx_pgq_metrics_bounds(histogram);
    whole = histogram == NGX_PGQ_METRICS_BATCH_MESSAGES;

    ngx_pgq_status_head(page, name, "histogram", help);

    n = 0;

    for (i = 0; bounds[i]; i++) {
        n += h->buckets[i];

        if (whole) {
            ngx_pgq_status_print(page, "%s_bucket{le=\"%ui\"} %uA\n", name,
                                 bounds[i], n);
        } else {
            ngx_pgq_status_print(page, "%s_bucket{le=\"%ui.%03ui\"} %uA\n",
                                 name, bounds[i] / 1000, bounds[i] % 1000, n);
        }
    }

    n += h->buckets[i];
    sum = h->sum;

    ngx_pgq_status_print(page, "%s_bucket{le=\"+Inf\"} %uA\n", name, n);

    if (whole) {
        ngx_pgq_status_print(page, "%s_sum %uA\n", name, sum);
    } else {
        ngx_pgq_status_print(page, "%s_sum %uA.%03uA\n", name, sum / 1000,
                             sum % 1000);
    }

    ngx_pgq_status_print(page, "%s_count %uA\n", name, n);
}


static void
ngx_pgq_status_pools(ngx_pgq_status_t *page, uint32_t places)
{
    ngx_uint_t                 i, k, workers;
    ngx_pgq_metrics_gauges_t   gauges;

    static ngx_pgq_status_gauge_t  metrics[] = {
        { "pgq_waiting_tickets", "gauge", "POSTs without an answer.",
          NGX_PGQ_STATUS_TICKETS, 0 },
        { "pgq_waiting_bytes", "gauge", "Bytes of their messages.",
          NGX_PGQ_STATUS_BYTES, 0 },
        { "pgq_waiting_reads", "gauge", "GETs without an answer.",
          NGX_PGQ_STATUS_TICKETS, 1 },
        { "pgq_unread_bytes", "gauge",
          "Bytes of answers to GETs that their clients have not read.",
          NGX_PGQ_STATUS_BYTES, 1 },
        { "pgq_connects_total", "counter", "Connections made.",
          NGX_PGQ_STATUS_CONNECTS, 0 },
        { "pgq_failed_connects_total", "counter",
          "Attempts to connect that failed.",
          NGX_PGQ_STATUS_FAILURES, 0 },
        { "pgq_lanes", "gauge", "Lanes of POSTs by what they do.",
          NGX_PGQ_STATUS_LANES, 0 },
        { "pgq_read_lanes", "gauge", "Lanes of GETs by what they do.",
          NGX_PGQ_STATUS_LANES, 1 }
    };

    workers = ngx_pgq_metrics_gauges(0, &gauges);

    for (k = 0; k < sizeof(metrics) / sizeof(metrics[0]); k++) {

        ngx_pgq_status_head(page, metrics[k].name, metrics[k].type,
                            metrics[k].help);

        for (i = 0; i < NGX_PGQ_METRICS_POOLS; i++) {
            if (places & (1u << i)) {
                ngx_pgq_status_pool(page, &metrics[k], i);
            }
        }
    }

    ngx_pgq_status_head(page, "pgq_workers", "gauge", "Workers of nginx.");
    ngx_pgq_status_print(page, "pgq_workers %ui\n", workers);
}


/* what one pool has of a metric; connections are counted together */

static void
ngx_pgq_status_pool(ngx_pgq_status_t *page, ngx_pgq_status_gauge_t *metric,
    ngx_uint_t place)
{
    u_char                     name[2 * NGX_PGQ_METRICS_NAME];
    ngx_uint_t                 i;
    ngx_atomic_uint_t          n;
    ngx_pgq_metrics_pool_t    *pool, *reads;
    ngx_pgq_metrics_gauges_t   gauges;

    pool = &ngx_pgq_metrics_all()->pools[place];
    reads = &ngx_pgq_metrics_all()->pools[ngx_pgq_metrics_reads(place)];

    ngx_pgq_status_name(name, pool->name);
    (void) ngx_pgq_metrics_gauges(metric->reads ? ngx_pgq_metrics_reads(place)
                                                : place, &gauges);

    if (metric->value == NGX_PGQ_STATUS_LANES) {
        for (i = 0; i < NGX_PGQ_METRICS_LANES; i++) {
            ngx_pgq_status_print(page, "%s{pool=\"%s\",state=\"%s\"} %uA\n",
                                 metric->name, name, ngx_pgq_lane_states[i],
                                 gauges.lanes[i]);
        }

        return;
    }

    switch (metric->value) {

    case NGX_PGQ_STATUS_TICKETS:
        n = gauges.tickets;
        break;

    case NGX_PGQ_STATUS_BYTES:
        n = gauges.bytes;
        break;

    case NGX_PGQ_STATUS_CONNECTS:
        n = pool->connects + reads->connects;
        break;

    default:
        n = pool->failures + reads->failures;
    }

    ngx_pgq_status_print(page, "%s{pool=\"%s\"} %uA\n", metric->name, name, n);
}


/* as Prometheus and JSON both have it; control characters become spaces */

static void
ngx_pgq_status_name(u_char *dst, u_char *src)
{
    for ( /* void */ ; *src; src++) {

        if (*src == '"' || *src == '\\') {
            *dst++ = '\\';
        }

        *dst++ = *src < ' ' ? ' ' : *src;
    }

    *dst = '\0';
}


static void
ngx_pgq_status_build(ngx_pgq_status_t *page)
{
    ngx_uint_t  libpq;

    libpq = ngx_pgq_call_libpq();

    ngx_pgq_status_head(page, "pgq_build_info", "gauge",
                        "The versions that run; always 1.");
    ngx_pgq_status_print(page, "pgq_build_info{version=\"%s\",nginx=\"%s\","
                         "libpq=\"%ui.%ui\"} 1\n", NGX_PGQ_VERSION,
                         NGINX_VERSION, libpq / 10000, libpq % 10000);
}


/* the places of the pools that are configured, as bits */

static uint32_t
ngx_pgq_status_places(ngx_http_request_t *r)
{
    uint32_t              places;
    ngx_uint_t            i;
    ngx_pgq_pool_t      **pools;
    ngx_pgq_main_conf_t  *pmcf;

    pmcf = ngx_http_get_module_main_conf(r, ngx_http_pgq_module);
    pools = pmcf->pools.elts;
    places = 0;

    for (i = 0; i < pmcf->pools.nelts; i++) {
        places |= 1u << pools[i]->lane.metrics;
    }

    return places;
}
