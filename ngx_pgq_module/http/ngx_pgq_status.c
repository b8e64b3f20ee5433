/* SPDX-License-Identifier: PostgreSQL */

/*
 * The pages with the metrics: pgq_metrics in Prometheus's text format 0.0.4,
 * pgq_status as JSON for people and load balancers.
 *
 * Invariants:
 *  - a page changes nothing and needs no database.  What one adds to it, see
 *    status_database.c, does not change the status of the answer;
 *  - counters with a label appear once they are above zero, gauges always;
 *  - gauges are sums over the workers that run when the page is made.
 */

#include "ngx_pgq_http.h"
#include "ngx_pgq_reader.h"
#include "ngx_pgq_status.h"


#define NGX_PGQ_STATUS_SIZE      (256 * 1024)    /* bytes of a page */

/* seconds for which a pool is still shown as up or full after it was */

#define NGX_PGQ_STATUS_RECENT    2


/* a metric of each pool */

typedef struct {
    const char                *name;
    const char                *type;
    const char                *help;
    size_t                     offset;      /* in ngx_pgq_status_pool_t */
    ngx_uint_t                 lanes;       /* 1: a value for each state */
} ngx_pgq_status_metric_t;


static ngx_int_t ngx_pgq_status_open(ngx_http_request_t *r,
    ngx_pgq_status_t *page, ngx_str_t *database);
static void ngx_pgq_status_requests(ngx_pgq_status_t *page);
static void ngx_pgq_status_totals(ngx_pgq_status_t *page);
static void ngx_pgq_status_errors(ngx_pgq_status_t *page);
static void ngx_pgq_status_histogram(ngx_pgq_status_t *page, const char *name,
    ngx_pgq_metrics_histogram_e histogram, const char *help);
static void ngx_pgq_status_pools(ngx_pgq_status_t *page);
static cJSON *ngx_pgq_status_document(ngx_pgq_status_t *page);
static const char *ngx_pgq_status_health(ngx_uint_t up, ngx_uint_t full);
static void ngx_pgq_status_collect(ngx_http_request_t *r,
    ngx_pgq_status_t *page);


static ngx_str_t  ngx_pgq_status_text =
    ngx_string("text/plain; version=0.0.4; charset=utf-8");
static ngx_str_t  ngx_pgq_status_json = ngx_string("application/json");


#define ngx_pgq_status_counter(name)                                          \
    offsetof(ngx_pgq_status_pool_t, ring.counters[NGX_PGQ_METRICS_RING_##name])


static ngx_pgq_status_metric_t  ngx_pgq_status_metrics[] = {
    { "pgq_waiting_tickets", "gauge", "POSTs waiting for a response.",
      offsetof(ngx_pgq_status_pool_t, posts.tickets), 0 },
    { "pgq_waiting_bytes", "gauge", "Bytes of messages of waiting POSTs.",
      offsetof(ngx_pgq_status_pool_t, posts.bytes), 0 },
    { "pgq_waiting_reads", "gauge", "GETs waiting for a response.",
      offsetof(ngx_pgq_status_pool_t, gets.tickets), 0 },
    { "pgq_unread_bytes", "gauge",
      "Bytes of responses to GETs that clients have not read.",
      offsetof(ngx_pgq_status_pool_t, gets.bytes), 0 },
    { "pgq_connects_total", "counter", "Connections established.",
      offsetof(ngx_pgq_status_pool_t, connects), 0 },
    { "pgq_failed_connects_total", "counter",
      "Connection attempts that failed.",
      offsetof(ngx_pgq_status_pool_t, failures), 0 },
    { "pgq_lanes", "gauge", "Connections for POSTs, by state.",
      offsetof(ngx_pgq_status_pool_t, posts.lanes), 1 },
    { "pgq_read_lanes", "gauge", "Connections for GETs, by state.",
      offsetof(ngx_pgq_status_pool_t, gets.lanes), 1 },
    { "pgq_ring_posts", "gauge", "Posts in the ring.",
      offsetof(ngx_pgq_status_pool_t, ring.posts), 0 },
    { "pgq_ring_bytes", "gauge", "Bytes of the posts in the ring.",
      offsetof(ngx_pgq_status_pool_t, ring.bytes), 0 },
    { "pgq_ring_newest_id", "gauge", "Greatest id in the ring.",
      offsetof(ngx_pgq_status_pool_t, ring.newest), 0 },
    { "pgq_ring_age_seconds", "gauge",
      "Time since the database confirmed the newest post.",
      offsetof(ngx_pgq_status_pool_t, ring.age), 0 },
    { "pgq_ring_reads_total", "counter", "GETs answered from the ring.",
      ngx_pgq_status_counter(READS), 0 },
    { "pgq_ring_misses_total", "counter",
      "GETs that the ring could not answer.",
      ngx_pgq_status_counter(MISSES), 0 },
    { "pgq_ring_resets_total", "counter", "Times the ring was emptied.",
      ngx_pgq_status_counter(RESETS), 0 },
    { "pgq_ring_follower_changes_total", "counter",
      "Times a worker became the follower.",
      ngx_pgq_status_counter(FOLLOWERS), 0 },
    { NULL, NULL, NULL, 0, 0 }
};


ngx_int_t
ngx_pgq_status_send_metrics(ngx_http_request_t *r, ngx_str_t *database)
{
    ngx_uint_t        libpq;
    ngx_pgq_status_t  page;

    if (ngx_pgq_status_open(r, &page, database) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_pgq_status_requests(&page);
    ngx_pgq_status_totals(&page);
    ngx_pgq_status_errors(&page);
    ngx_pgq_status_readers(&page);

    ngx_pgq_status_histogram(&page, "pgq_batch_messages",
                             NGX_PGQ_METRICS_BATCH_MESSAGES,
                             "Messages in a batch when it is first sent.");
    ngx_pgq_status_histogram(&page, "pgq_batch_seconds",
                             NGX_PGQ_METRICS_BATCH_SECONDS,
                             "Time from sending a batch to its outcome.");
    ngx_pgq_status_histogram(&page, "pgq_wait_seconds",
                             NGX_PGQ_METRICS_WAIT_SECONDS,
                             "Time a message waits for its batch.");
    ngx_pgq_status_histogram(&page, "pgq_ring_delay_seconds",
                             NGX_PGQ_METRICS_RING_SECONDS,
                             "Age of the oldest new post when the ring has"
                             " it.");

    ngx_pgq_status_pools(&page);

    libpq = ngx_pgq_call_libpq_version();

    ngx_pgq_status_head(&page, "pgq_build_info", "gauge",
                        "Versions; the value is always 1.");
    ngx_pgq_status_print(&page, "pgq_build_info{version=\"%s\",nginx=\"%s\","
                         "libpq=\"%ui.%ui\"} 1\n", NGX_PGQ_VERSION,
                         NGINX_VERSION, libpq / 10000, libpq % 10000);

    if (database) {
        ngx_pgq_status_number(&page, "pgq_database_up", "gauge",
                              "Whether the database has sent its metrics.",
                              database->len > 0);
        ngx_pgq_status_print(&page, "%V", database);
    }

    return ngx_pgq_reply_body(r, NGX_HTTP_OK, &ngx_pgq_status_text, page.start,
                              page.pos - page.start);
}


ngx_int_t
ngx_pgq_status_send_health(ngx_http_request_t *r, ngx_str_t *database)
{
    cJSON             *document;
    ngx_int_t          rc;
    ngx_pgq_status_t   page;

    if (ngx_pgq_status_open(r, &page, database) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    document = ngx_pgq_status_document(&page);

    rc = cJSON_PrintPreallocated(document, (char *) page.start,
                                 NGX_PGQ_STATUS_SIZE - 1, 0);
    cJSON_Delete(document);

    if (!rc) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    page.pos += ngx_strlen(page.start);

    if (database) {
        page.pos--;     /* before the brace */
        ngx_pgq_status_print(&page, ",\"subscriptions\":%*s}",
                             database->len ? database->len : 4,
                             database->len ? database->data
                                           : (u_char *) "null");
    }

    *page.pos++ = '\n';

    return ngx_pgq_reply_body(r, page.up ? NGX_HTTP_OK
                                         : NGX_HTTP_SERVICE_UNAVAILABLE,
                              &ngx_pgq_status_json, page.start,
                              page.pos - page.start);
}


/* returns NULL if memory allocation fails */

static cJSON *
ngx_pgq_status_document(ngx_pgq_status_t *page)
{
    cJSON                  *document, *list, *item;
    ngx_uint_t              i, done;
    ngx_pgq_status_pool_t  *pool;

    document = cJSON_CreateObject();

    done = cJSON_AddStringToObject(document, "status",
                                   ngx_pgq_status_health(page->up,
                                                         page->full))
           && cJSON_AddNumberToObject(document, "workers", page->workers);

    list = cJSON_AddArrayToObject(document, "pools");
    done = done && list;

    for (i = 0; i < page->npools && done; i++) {
        pool = &page->pools[i];
        item = cJSON_CreateObject();

        done = cJSON_AddItemToArray(list, item)
               && cJSON_AddStringToObject(item, "name", (char *) pool->name)
               && cJSON_AddStringToObject(item, "status",
                                          ngx_pgq_status_health(pool->up,
                                                                pool->full))
               && cJSON_AddNumberToObject(item, "lanes", pool->lanes)
               && cJSON_AddNumberToObject(item, "connected", pool->connected)
               && cJSON_AddNumberToObject(item, "waiting_tickets",
                                          pool->posts.tickets)
               && cJSON_AddNumberToObject(item, "waiting_bytes",
                                          pool->posts.bytes)
               && ngx_pgq_status_ring_add(item, &pool->ring)
               && cJSON_AddNumberToObject(item, "readers", pool->readers);
    }

    if (!done) {
        cJSON_Delete(document);
        return NULL;
    }

    return document;
}


/* "full" is 200 for load balancers: other servers may be full as well */

static const char *
ngx_pgq_status_health(ngx_uint_t up, ngx_uint_t full)
{
    return !up ? "unavailable" : full ? "full" : "ok";
}


static ngx_int_t
ngx_pgq_status_open(ngx_http_request_t *r, ngx_pgq_status_t *page,
    ngx_str_t *database)
{
    size_t  size;

    size = NGX_PGQ_STATUS_SIZE + (database ? database->len : 0);
    page->start = ngx_palloc(r->pool, size);

    if (page->start == NULL
        || ngx_pgq_reply_field(r, "Cache-Control", "no-store") != NGX_OK)
    {
        return NGX_ERROR;
    }

    page->pos = page->start;
    page->end = page->start + size;

    ngx_pgq_status_collect(r, page);

    return NGX_OK;
}


void
ngx_pgq_status_print(ngx_pgq_status_t *page, const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    page->pos = ngx_vslprintf(page->pos, page->end, fmt, args);
    va_end(args);
}


void
ngx_pgq_status_head(ngx_pgq_status_t *page, const char *name, const char *type,
    const char *help)
{
    ngx_pgq_status_print(page, "# HELP %s %s\n# TYPE %s %s\n", name, help,
                         name, type);
}


void
ngx_pgq_status_number(ngx_pgq_status_t *page, const char *name,
    const char *type, const char *help, ngx_atomic_uint_t n)
{
    ngx_pgq_status_head(page, name, type, help);
    ngx_pgq_status_print(page, "%s %uA\n", name, n);
}


static void
ngx_pgq_status_requests(ngx_pgq_status_t *page)
{
    ngx_uint_t          i, code;
    ngx_atomic_uint_t   n;
    ngx_pgq_metrics_t  *metrics;

    static const char  *handlers[NGX_PGQ_METRICS_HANDLERS] =
        { "post", "get", "stream", "sub" };
    static ngx_uint_t   success[NGX_PGQ_METRICS_HANDLERS] =
        { NGX_HTTP_ACCEPTED, NGX_HTTP_OK, NGX_HTTP_OK, NGX_HTTP_OK };

    metrics = ngx_pgq_metrics_all();

    ngx_pgq_status_head(page, "pgq_requests_total", "counter",
                        "Requests, by handler and status.");

    for (i = 0; i < NGX_PGQ_METRICS_HANDLERS; i++) {
        for (code = 0; code < NGX_PGQ_METRICS_CODES; code++) {
            n = metrics->requests[i][code];

            if (n || code == success[i]) {
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
    ngx_uint_t                    i;
    ngx_atomic_uint_t             batches;
    ngx_pgq_metrics_t            *metrics;
    ngx_pgq_metrics_histogram_t  *h;

    metrics = ngx_pgq_metrics_all();
    h = &metrics->histograms[NGX_PGQ_METRICS_BATCH_MESSAGES];
    batches = 0;

    for (i = 0; i <= NGX_PGQ_METRICS_BOUNDS; i++) {
        batches += h->buckets[i];
    }

    ngx_pgq_status_number(page, "pgq_batches_total", "counter",
                          "Batches sent, each counted once.", batches);
    ngx_pgq_status_number(page, "pgq_messages_total", "counter",
                          "Messages sent, each counted once.", h->sum);
    ngx_pgq_status_number(page, "pgq_retries_total", "counter",
                          "Batches sent again.",
                          metrics->totals[NGX_PGQ_METRICS_RETRIES]);
    ngx_pgq_status_number(page, "pgq_unknown_outcomes_total", "counter",
                          "Batches sent whose outcome was unknown.",
                          metrics->totals[NGX_PGQ_METRICS_UNKNOWN]);
}


static void
ngx_pgq_status_errors(ngx_pgq_status_t *page)
{
    const char         *code;
    ngx_uint_t          i;
    ngx_atomic_uint_t   n;
    ngx_pgq_metrics_t  *metrics;

    static const u_char  digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

    metrics = ngx_pgq_metrics_all();

    ngx_pgq_status_head(page, "pgq_rejects_total", "counter",
                        "Requests answered with a problem document, by its"
                        " code.");

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
                        " connection failure.");

    for (i = 0; i < NGX_PGQ_METRICS_CLASSES; i++) {
        n = metrics->classes[i];

        if (n) {
            ngx_pgq_status_print(page, "pgq_database_errors_total"
                                 "{class=\"%c%c\"} %uA\n",
                                 digits[i / 36], digits[i % 36], n);
        }
    }
}


/* times are counted in milliseconds, and printed in seconds */

static void
ngx_pgq_status_histogram(ngx_pgq_status_t *page, const char *name,
    ngx_pgq_metrics_histogram_e histogram, const char *help)
{
    ngx_uint_t                    i, whole;
    ngx_atomic_uint_t             n, sum;
    const ngx_uint_t             *bounds;
    ngx_pgq_metrics_histogram_t  *h;

    h = &ngx_pgq_metrics_all()->histograms[histogram];
    bounds = ngx_pgq_metrics_bounds[histogram];
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
ngx_pgq_status_pools(ngx_pgq_status_t *page)
{
    u_char                    name[2 * NGX_PGQ_METRICS_NAME];
    ngx_uint_t                i, state;
    ngx_atomic_uint_t        *values;
    ngx_pgq_status_metric_t  *m;

    for (m = ngx_pgq_status_metrics; m->name; m++) {
        ngx_pgq_status_head(page, m->name, m->type, m->help);

        for (i = 0; i < page->npools; i++) {

            if (m->offset >= offsetof(ngx_pgq_status_pool_t, ring)
                && page->pools[i].ring.ring == NULL)
            {
                continue;
            }

            ngx_pgq_status_quote(name, page->pools[i].name);

            values = (ngx_atomic_uint_t *)
                     ((u_char *) &page->pools[i] + m->offset);

            if (!m->lanes) {
                ngx_pgq_status_print(page, "%s{pool=\"%s\"} %uA\n", m->name,
                                     name, *values);
                continue;
            }

            for (state = 0; state < NGX_PGQ_METRICS_LANES; state++) {
                ngx_pgq_status_print(page,
                                     "%s{pool=\"%s\",state=\"%s\"} %uA\n",
                                     m->name, name, ngx_pgq_lane_states[state],
                                     values[state]);
            }
        }
    }

    ngx_pgq_status_number(page, "pgq_workers", "gauge",
                          "Worker processes of nginx.", page->workers);
}


/* a label value of Prometheus; control characters become spaces */

void
ngx_pgq_status_quote(u_char *dst, u_char *src)
{
    for ( /* void */ ; *src; src++) {

        if (*src == '"' || *src == '\\') {
            *dst++ = '\\';
        }

        *dst++ = *src < ' ' ? ' ' : *src;
    }

    *dst = '\0';
}


/* pools that share the last place in the metrics are one pool here */

static void
ngx_pgq_status_collect(ngx_http_request_t *r, ngx_pgq_status_t *page)
{
    time_t                     since;
    ngx_uint_t                 i, j, used;
    ngx_pgq_pool_t           **pools;
    ngx_pgq_ring_t            *rings[NGX_PGQ_METRICS_POOLS];
    ngx_pgq_main_conf_t       *pmcf;
    ngx_pgq_status_pool_t     *pool;
    ngx_pgq_metrics_pool_t    *posts, *gets;
    ngx_pgq_metrics_gauges_t   gauges;

    pmcf = ngx_http_get_module_main_conf(r, ngx_http_pgq_module);
    pools = pmcf->pools.elts;
    used = 0;

    ngx_memzero(rings, sizeof(rings));

    for (i = 0; i < pmcf->pools.nelts; i++) {
        used |= 1u << pools[i]->lane.metrics;
        rings[pools[i]->lane.metrics] = pools[i]->ring;
    }

    since = ngx_pgq_seconds() - NGX_PGQ_STATUS_RECENT;

    page->workers = ngx_pgq_metrics_gauges(0, &gauges);
    page->up = 1;
    page->full = 0;
    page->npools = 0;

    for (i = 0; i < NGX_PGQ_METRICS_POOLS; i++) {

        if (!(used & (1u << i))) {
            continue;
        }

        pool = &page->pools[page->npools++];
        posts = &ngx_pgq_metrics_all()->pools[i];
        gets = &ngx_pgq_metrics_all()->pools[ngx_pgq_metrics_reads(i)];

        (void) ngx_pgq_metrics_gauges(i, &pool->posts);
        (void) ngx_pgq_metrics_gauges(ngx_pgq_metrics_reads(i), &pool->gets);

        ngx_pgq_status_ring_read(&pool->ring, rings[i], posts->ring);

        pool->name = posts->name;
        pool->connects = posts->connects + gets->connects;
        pool->failures = posts->failures + gets->failures;
        pool->connected = pool->posts.lanes[NGX_PGQ_LANE_IDLE]
                          + pool->posts.lanes[NGX_PGQ_LANE_BUSY];
        pool->lanes = 0;
        pool->readers = 0;

        for (j = 0; j < NGX_PGQ_TRANSPORTS; j++) {
            pool->readers += pool->posts.readers[j];
        }

        for (j = 0; j < NGX_PGQ_METRICS_LANES; j++) {
            pool->lanes += pool->posts.lanes[j];
        }

        pool->up = pool->connected > 0 || (time_t) posts->connected >= since;
        pool->full = posts->full && (time_t) posts->full >= since;

        page->up = page->up && pool->up;
        page->full = page->full || pool->full;
    }
}
