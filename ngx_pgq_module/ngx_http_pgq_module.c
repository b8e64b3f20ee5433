/* SPDX-License-Identifier: PostgreSQL */

/*
 * Directives, and the start and exit of a worker.
 */

#include "ngx_pgq_batch.h"
#include "ngx_pgq_bell.h"
#include "ngx_pgq_enqueue.h"
#include "ngx_pgq_follower.h"
#include "ngx_pgq_http.h"
#include "ngx_pgq_read.h"
#include "ngx_pgq_reader.h"
#include "ngx_pgq_resolve.h"
#include "ngx_pgq_json.h"
#include "ngx_pgq_uuid.h"


static ngx_int_t ngx_http_pgq_postconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_pgq_resolve_names(ngx_conf_t *cf,
    ngx_pgq_main_conf_t *pmcf);
static ngx_int_t ngx_http_pgq_init_metrics(ngx_shm_zone_t *zone, void *data);
static ngx_int_t ngx_http_pgq_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_pgq_init_process(ngx_cycle_t *cycle);
static void ngx_http_pgq_exit_process(ngx_cycle_t *cycle);


static ngx_conf_num_bounds_t  ngx_http_pgq_depth_bounds = {
    ngx_conf_check_num_bounds, 1, NGX_PGQ_JSON_DEPTH_MAX
};


static ngx_conf_num_bounds_t  ngx_http_pgq_timeout_bounds = {
    ngx_conf_check_num_bounds, 1, NGX_PGQ_MAX_TIMEOUT
};


static ngx_conf_num_bounds_t  ngx_http_pgq_readers_bounds = {
    ngx_conf_check_num_bounds, 0, 1000000
};


/* ms, as the following bounds */

static ngx_conf_num_bounds_t  ngx_http_pgq_heartbeat_bounds = {
    ngx_conf_check_num_bounds, 100, 3600000
};


static ngx_conf_num_bounds_t  ngx_http_pgq_stream_age_bounds = {
    ngx_conf_check_num_bounds, 1000, 604800000
};


static ngx_conf_num_bounds_t  ngx_http_pgq_drain_bounds = {
    ngx_conf_check_num_bounds, 0, 60000
};


static ngx_conf_num_bounds_t  ngx_http_pgq_lines_bounds = {
    ngx_conf_check_num_bounds, 1, 65536
};


static ngx_conf_enum_t  ngx_http_pgq_idempotency[] = {
    { ngx_string("off"), NGX_PGQ_IDEMPOTENCY_OFF },
    { ngx_string("on"), NGX_PGQ_IDEMPOTENCY_ON },
    { ngx_string("required"), NGX_PGQ_IDEMPOTENCY_REQUIRED },
    { ngx_null_string, 0 }
};


static ngx_http_handler_pt  ngx_http_pgq_post_endpoint =
    ngx_pgq_enqueue_handler;
static ngx_http_handler_pt  ngx_http_pgq_get_endpoint = ngx_pgq_fetch_handler;
static ngx_http_handler_pt  ngx_http_pgq_stream_endpoint =
    ngx_pgq_stream_handler;
static ngx_http_handler_pt  ngx_http_pgq_subscription_endpoint =
    ngx_pgq_subscription_handler;
static ngx_http_handler_pt  ngx_http_pgq_problem_page = ngx_pgq_reply_handler;
static ngx_http_handler_pt  ngx_http_pgq_metrics_page =
    ngx_pgq_status_metrics_handler;
static ngx_http_handler_pt  ngx_http_pgq_status_page =
    ngx_pgq_status_handler;
static ngx_http_handler_pt  ngx_http_pgq_live_page = ngx_pgq_page_handler;


static ngx_command_t  ngx_http_pgq_commands[] = {

    { ngx_string("pgq_pool"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_2MORE,
      ngx_pgq_conf_pool,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("pgq_ring"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_pgq_conf_ring,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("pgq_post"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_pgq_conf_endpoint,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, post),
      &ngx_http_pgq_post_endpoint },

    { ngx_string("pgq_get"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_pgq_conf_endpoint,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, get),
      &ngx_http_pgq_get_endpoint },

    { ngx_string("pgq_stream"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_pgq_conf_endpoint,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, stream),
      &ngx_http_pgq_stream_endpoint },

    { ngx_string("pgq_subscription"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_pgq_conf_endpoint,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, subscription),
      &ngx_http_pgq_subscription_endpoint },

    { ngx_string("pgq_problem"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_pgq_conf_page,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      &ngx_http_pgq_problem_page },

    { ngx_string("pgq_metrics"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_pgq_conf_page,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      &ngx_http_pgq_metrics_page },

    { ngx_string("pgq_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_pgq_conf_page,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      &ngx_http_pgq_status_page },

    { ngx_string("pgq_page"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_pgq_conf_page,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      &ngx_http_pgq_live_page },

    { ngx_string("pgq_readers"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, readers),
      &ngx_http_pgq_readers_bounds },

    { ngx_string("pgq_backlog"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, backlog),
      NULL },

    { ngx_string("pgq_heartbeat"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, heartbeat),
      &ngx_http_pgq_heartbeat_bounds },

    { ngx_string("pgq_stream_age"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, stream_age),
      &ngx_http_pgq_stream_age_bounds },

    { ngx_string("pgq_stream_until"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, stream_until),
      NULL },

    { ngx_string("pgq_drain"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, drain),
      &ngx_http_pgq_drain_bounds },

    { ngx_string("pgq_stream_post"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, stream_post),
      NULL },

    { ngx_string("pgq_log_cache"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_sec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, log_cache),
      NULL },

    { ngx_string("pgq_depth"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, depth),
      &ngx_http_pgq_depth_bounds },

    { ngx_string("pgq_timeout"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, timeout),
      &ngx_http_pgq_timeout_bounds },

    { ngx_string("pgq_lines"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, lines),
      &ngx_http_pgq_lines_bounds },

    { ngx_string("pgq_idempotency"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, idempotency),
      &ngx_http_pgq_idempotency },

    { ngx_string("pgq_idempotency_scope"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_pgq_enqueue_set_scope,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, scope),
      NULL },

    { ngx_string("pgq_topic"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, topic),
      NULL },

    { ngx_string("pgq_topics"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_pgq_filter_set_rights,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, topics),
      NULL },

    { ngx_string("pgq_version"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_pgq_conf_version,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("pgq_version_of"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, version_of),
      NULL },

    { ngx_string("pgq_origins"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_pgq_origin_set,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("pgq_details"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, details),
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_pgq_module_ctx = {
    ngx_pgq_variables_add,                 /* preconfiguration */
    ngx_http_pgq_postconfiguration,        /* postconfiguration */

    ngx_pgq_conf_create_main,              /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_pgq_conf_create_location,          /* create location configuration */
    ngx_pgq_conf_merge_location            /* merge location configuration */
};


ngx_module_t  ngx_http_pgq_module = {
    NGX_MODULE_V1,
    &ngx_http_pgq_module_ctx,              /* module context */
    ngx_http_pgq_commands,                 /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_http_pgq_init_module,              /* init module */
    ngx_http_pgq_init_process,             /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_pgq_exit_process,             /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_pgq_postconfiguration(ngx_conf_t *cf)
{
    ngx_pgq_main_conf_t  *pmcf;

    pmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_pgq_module);

    if (ngx_http_pgq_resolve_names(cf, pmcf) != NGX_OK
        || ngx_pgq_variables_check(cf, pmcf->followers.nelts) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_pgq_origin_init();

    pmcf->metrics = ngx_pgq_metrics_zone(cf, &ngx_http_pgq_module,
                                         ngx_http_pgq_init_metrics, pmcf);

    return pmcf->metrics ? NGX_OK : NGX_ERROR;
}


/* names are resolved by the resolver of http{}, if it has one */

static ngx_int_t
ngx_http_pgq_resolve_names(ngx_conf_t *cf, ngx_pgq_main_conf_t *pmcf)
{
    ngx_uint_t                  i;
    ngx_msec_t                  timeout;
    ngx_resolver_t             *resolver;
    ngx_pgq_pool_t            **pools;
    ngx_http_core_loc_conf_t   *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    /* without a "resolver" directive nginx creates one without servers */

    resolver = clcf->resolver && clcf->resolver->connections.nelts
               ? clcf->resolver : NULL;
    timeout = clcf->resolver_timeout == NGX_CONF_UNSET_MSEC
              ? 30 * 1000 : clcf->resolver_timeout;

    pools = pmcf->pools.elts;

    for (i = 0; i < pmcf->pools.nelts; i++) {
        if (ngx_pgq_resolve_names(cf, pools[i]->lane.target,
                                  &pools[i]->lane.name, resolver, timeout)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* called by the master when the shared memory exists */

static ngx_int_t
ngx_http_pgq_init_metrics(ngx_shm_zone_t *zone, void *data)
{
    ngx_uint_t            i, place;
    ngx_pgq_pool_t      **pools;
    ngx_pgq_follower_t  **followers;
    ngx_pgq_main_conf_t  *pmcf;

    pmcf = zone->data;

    if (ngx_pgq_metrics_create(zone, data) != NGX_OK) {
        return NGX_ERROR;
    }

    pools = pmcf->pools.elts;

    for (i = 0; i < pmcf->pools.nelts; i++) {
        place = ngx_pgq_metrics_name(zone, &pools[i]->lane.name);

        pools[i]->lane.metrics = place;
        pools[i]->reads->lane.metrics = ngx_pgq_metrics_reads(place);

        if (pools[i]->consumers) {
            pools[i]->consumers->lane.metrics = ngx_pgq_metrics_reads(place);
        }
    }

    followers = pmcf->followers.elts;

    for (i = 0; i < pmcf->followers.nelts; i++) {
        followers[i]->db->lane.metrics =
                                    followers[i]->posts->reads->lane.metrics;
    }

    return NGX_OK;
}


/* called by the master, before it starts workers */

static ngx_int_t
ngx_http_pgq_init_module(ngx_cycle_t *cycle)
{
    ngx_pgq_main_conf_t  *pmcf;

    pmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_pgq_module);

    if (pmcf && pmcf->followers.nelts) {
        ngx_pgq_bell_create(cycle);
    }

    return NGX_OK;
}


/* nginx calls it in cache helper processes too, which need no lanes */

static ngx_int_t
ngx_http_pgq_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t            i;
    ngx_pgq_pool_t      **pools;
    ngx_pgq_main_conf_t  *pmcf;

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    pmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_pgq_module);

    if (pmcf == NULL) {
        return NGX_OK;
    }

    ngx_pgq_metrics_init(pmcf->metrics);

    if (pmcf->pools.nelts == 0) {
        return NGX_OK;
    }

    if (ngx_pgq_uuid_init() != 0) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                      "pgq: could not read random bytes");
        return NGX_ERROR;
    }

    pools = pmcf->pools.elts;

    for (i = 0; i < pmcf->pools.nelts; i++) {
        if (ngx_pgq_batch_init(pools[i], cycle->pool) != NGX_OK
            || ngx_pgq_read_init(pools[i]->reads, cycle->pool) != NGX_OK
            || ngx_pgq_pool_init(pools[i], cycle) != NGX_OK
            || (pools[i]->ring
                && (ngx_pgq_newest_init(pools[i], cycle->pool) != NGX_OK
                    || ngx_pgq_await_init(pools[i], cycle->pool) != NGX_OK
                    || ngx_pgq_reader_init(pools[i], cycle) != NGX_OK))
            || (pools[i]->consumers
                && (ngx_pgq_read_init(pools[i]->consumers, cycle->pool)
                    != NGX_OK
                    || ngx_pgq_consumer_init(pools[i], cycle->pool)
                       != NGX_OK
                    || ngx_pgq_pool_init(pools[i]->consumers, cycle)
                       != NGX_OK)))
        {
            return NGX_ERROR;
        }
    }

    return ngx_pgq_follower_init(pmcf->followers.elts, pmcf->followers.nelts,
                                 cycle);
}


static void
ngx_http_pgq_exit_process(ngx_cycle_t *cycle)
{
    ngx_uint_t            i;
    ngx_pgq_pool_t      **pools;
    ngx_pgq_main_conf_t  *pmcf;

    pmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_pgq_module);

    if (pmcf == NULL) {
        return;
    }

    pools = pmcf->pools.elts;

    for (i = 0; i < pmcf->pools.nelts; i++) {
        ngx_pgq_newest_exit(pools[i]);
        ngx_pgq_reader_exit(pools[i]);
        ngx_pgq_pool_exit(pools[i]);

        if (pools[i]->consumers) {
            ngx_pgq_pool_exit(pools[i]->consumers);
        }
    }

    ngx_pgq_follower_exit();
    ngx_pgq_metrics_exit();
}
