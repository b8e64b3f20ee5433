/* SPDX-License-Identifier: PostgreSQL */

/*
 * Directives, configurations, and the start and exit of a worker.  All memory
 * is from the configuration's pool.
 */

#include "ngx_pgq_batch.h"
#include "ngx_pgq_http.h"
#include "ngx_pgq_read.h"
#include "ngx_pgq_resolve.h"
#include "ngx_pgq_json.h"
#include "ngx_pgq_uuid.h"


static ngx_int_t ngx_http_pgq_postconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_pgq_resolve_names(ngx_conf_t *cf,
    ngx_pgq_main_conf_t *pmcf);
static ngx_int_t ngx_http_pgq_init_metrics(ngx_shm_zone_t *zone, void *data);
static void *ngx_http_pgq_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_pgq_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_pgq_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_pgq_pool(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_pgq_endpoint(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_pgq_page(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_pgq_handler(ngx_conf_t *cf, ngx_pgq_loc_conf_t *plcf,
    ngx_http_handler_pt handler);
static ngx_pgq_pool_t *ngx_http_pgq_find_pool(ngx_pgq_main_conf_t *pmcf,
    ngx_str_t *name);
static ngx_int_t ngx_http_pgq_init_process(ngx_cycle_t *cycle);
static void ngx_http_pgq_exit_process(ngx_cycle_t *cycle);


static ngx_conf_num_bounds_t  ngx_http_pgq_depth_bounds = {
    ngx_conf_check_num_bounds, 1, NGX_PGQ_JSON_DEPTH_MAX
};


static ngx_conf_num_bounds_t  ngx_http_pgq_timeout_bounds = {
    ngx_conf_check_num_bounds, 1, NGX_PGQ_MAX_TIMEOUT
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
static ngx_http_handler_pt  ngx_http_pgq_problem_page = ngx_pgq_reply_handler;
static ngx_http_handler_pt  ngx_http_pgq_metrics_page =
    ngx_pgq_status_metrics_handler;
static ngx_http_handler_pt  ngx_http_pgq_status_page =
    ngx_pgq_status_handler;


static ngx_command_t  ngx_http_pgq_commands[] = {

    { ngx_string("pgq_pool"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_2MORE,
      ngx_http_pgq_pool,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("pgq_post"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_pgq_endpoint,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, post),
      &ngx_http_pgq_post_endpoint },

    { ngx_string("pgq_get"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_pgq_endpoint,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_pgq_loc_conf_t, get),
      &ngx_http_pgq_get_endpoint },

    { ngx_string("pgq_problem"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_pgq_page,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      &ngx_http_pgq_problem_page },

    { ngx_string("pgq_metrics"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_pgq_page,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      &ngx_http_pgq_metrics_page },

    { ngx_string("pgq_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_pgq_page,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      &ngx_http_pgq_status_page },

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

    ngx_http_pgq_create_main_conf,         /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_pgq_create_loc_conf,          /* create location configuration */
    ngx_http_pgq_merge_loc_conf            /* merge location configuration */
};


ngx_module_t  ngx_http_pgq_module = {
    NGX_MODULE_V1,
    &ngx_http_pgq_module_ctx,              /* module context */
    ngx_http_pgq_commands,                 /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
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

    if (ngx_http_pgq_resolve_names(cf, pmcf) != NGX_OK) {
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
    }

    return NGX_OK;
}


static void *
ngx_http_pgq_create_main_conf(ngx_conf_t *cf)
{
    ngx_pgq_main_conf_t  *pmcf;

    pmcf = ngx_pcalloc(cf->pool, sizeof(ngx_pgq_main_conf_t));
    if (pmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&pmcf->pools, cf->pool, 2, sizeof(ngx_pgq_pool_t *))
        != NGX_OK)
    {
        return NULL;
    }

    return pmcf;
}


static void *
ngx_http_pgq_create_loc_conf(ngx_conf_t *cf)
{
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_pcalloc(cf->pool, sizeof(ngx_pgq_loc_conf_t));
    if (plcf == NULL) {
        return NULL;
    }

    plcf->depth = NGX_CONF_UNSET;
    plcf->timeout = NGX_CONF_UNSET_MSEC;
    plcf->lines = NGX_CONF_UNSET;
    plcf->idempotency = NGX_CONF_UNSET_UINT;
    plcf->origins = NGX_CONF_UNSET_PTR;
    plcf->scoped = NGX_CONF_UNSET;
    plcf->details = NGX_CONF_UNSET;

    return plcf;
}


/*
 * The block of an "if" or a "limit_except" is a nameless location to nginx;
 * it inherits the handler of its location.
 */

static char *
ngx_http_pgq_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_pgq_loc_conf_t  *prev = parent;
    ngx_pgq_loc_conf_t  *conf = child;

    ngx_http_core_loc_conf_t  *clcf;

    ngx_conf_merge_value(conf->depth, prev->depth, 1000);
    ngx_conf_merge_msec_value(conf->timeout, prev->timeout, 30000);
    ngx_conf_merge_value(conf->lines, prev->lines, 1000);
    ngx_conf_merge_uint_value(conf->idempotency, prev->idempotency,
                              NGX_PGQ_IDEMPOTENCY_ON);

    ngx_conf_merge_ptr_value(conf->origins, prev->origins, NULL);
    ngx_conf_merge_value(conf->details, prev->details, 0);

    if (conf->scoped == NGX_CONF_UNSET) {
        conf->scope = prev->scope;
    }

    ngx_conf_merge_value(conf->scoped, prev->scoped, 1);

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (conf->handler && clcf->handler != conf->handler) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "a directive of pgq conflicts with another handler"
                           " of location \"%V\"", &clcf->name);
        return NGX_CONF_ERROR;
    }

    if (clcf->noname && conf->handler == NULL) {
        conf->handler = prev->handler;
        conf->post = prev->post;
        conf->get = prev->get;

        if (clcf->lmt_excpt && clcf->handler == NULL) {
            clcf->handler = conf->handler;
        }
    }

    if (conf->post) {
        ngx_pgq_enqueue_warn_size(cf, conf->post);
    }

    return NGX_CONF_OK;
}


/* pgq_pool name conninfo [parameter=value ...]; */

static char *
ngx_http_pgq_pool(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_pgq_main_conf_t  *pmcf = conf;

    char            *rv;
    ngx_str_t       *value;
    ngx_uint_t       i;
    ngx_pgq_pool_t  *db, **slot;

    value = cf->args->elts;

    if (ngx_http_pgq_find_pool(pmcf, &value[1])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "duplicate pgq_pool \"%V\"",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    db = ngx_pcalloc(cf->pool, sizeof(ngx_pgq_pool_t));
    slot = ngx_array_push(&pmcf->pools);
    if (db == NULL || slot == NULL) {
        return NGX_CONF_ERROR;
    }

    *slot = db;

    db->lane.name = value[1];
    ngx_pgq_parameter_defaults(db);

    for (i = 3; i < cf->args->nelts; i++) {
        rv = ngx_pgq_parameter_read(cf, db, &value[i]);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    db->lane.target = ngx_pgq_target_create(cf, &value[2], &db->lane.name);

    if (db->lane.target == NULL
        || (db->verify
            && ngx_pgq_target_verify(cf, db->lane.target, &db->lane.name)
               != NGX_OK)
        || ngx_pgq_pool_reads(cf, db) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* pgq_post and pgq_get */

static char *
ngx_http_pgq_endpoint(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t            *value;
    ngx_pgq_pool_t      **db;
    ngx_http_handler_pt  *handler = cmd->post;

    db = (ngx_pgq_pool_t **) ((u_char *) conf + cmd->offset);

    if (*db) {
        return "is duplicate";
    }

    value = cf->args->elts;

    *db = ngx_http_pgq_find_pool(
                ngx_http_conf_get_module_main_conf(cf, ngx_http_pgq_module),
                &value[1]);

    if (*db == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "unknown pgq_pool \"%V\" (it must be defined before"
                           " its use)", &value[1]);
        return NGX_CONF_ERROR;
    }

    return ngx_http_pgq_handler(cf, conf, *handler);
}


/* pgq_problem, pgq_metrics and pgq_status */

static char *
ngx_http_pgq_page(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_handler_pt       *page = cmd->post;
    ngx_http_core_loc_conf_t  *clcf;

    if (*page == ngx_pgq_reply_handler) {
        clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

        /* a body that was refused for its length is not checked again */
        clcf->client_max_body_size = 0;
    }

    return ngx_http_pgq_handler(cf, conf, *page);
}


/* a location has one content handler; a second one would replace the first */

static char *
ngx_http_pgq_handler(ngx_conf_t *cf, ngx_pgq_loc_conf_t *plcf,
    ngx_http_handler_pt handler)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler) {
        return "is duplicate or conflicts with another handler of this"
               " location";
    }

    plcf->handler = handler;
    clcf->handler = handler;

    return NGX_CONF_OK;
}


static ngx_pgq_pool_t *
ngx_http_pgq_find_pool(ngx_pgq_main_conf_t *pmcf, ngx_str_t *name)
{
    ngx_uint_t        i;
    ngx_pgq_pool_t  **pools;

    pools = pmcf->pools.elts;

    for (i = 0; i < pmcf->pools.nelts; i++) {
        if (pools[i]->lane.name.len == name->len
            && ngx_memcmp(pools[i]->lane.name.data, name->data, name->len)
               == 0)
        {
            return pools[i];
        }
    }

    return NULL;
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
            || ngx_pgq_pool_init(pools[i], cycle) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
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
        ngx_pgq_pool_exit(pools[i]);
    }

    ngx_pgq_metrics_exit();
}
