/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the configurations of the module: how they are made and merged, and the
 * directives that are more than a value.  All memory is from the
 * configuration's pool.
 */

#include "ngx_pgq_follower.h"
#include "ngx_pgq_http.h"


#define NGX_PGQ_CONF_DIRECTORY                                                \
    "needs a location whose name is a prefix that ends with \"/\""


static ngx_int_t ngx_pgq_conf_parameters(ngx_conf_t *cf, ngx_uint_t first,
    ngx_pgq_parameter_t *parameters, void *conf);
static ngx_uint_t ngx_pgq_conf_directory(ngx_conf_t *cf);
static ngx_pgq_pool_t *ngx_pgq_conf_named_pool(ngx_conf_t *cf,
    ngx_str_t *name);
static ngx_pgq_pool_t *ngx_pgq_conf_ring_pool(ngx_conf_t *cf, ngx_str_t *name);
static ngx_pgq_pool_t *ngx_pgq_conf_find_pool(ngx_pgq_main_conf_t *pmcf,
    ngx_str_t *name);
static char *ngx_pgq_conf_set_handler(ngx_conf_t *cf, ngx_pgq_loc_conf_t *plcf,
    ngx_http_handler_pt handler);


static ngx_pgq_parameter_t  ngx_pgq_conf_ring_parameters[] = {

    { ngx_string("size="), offsetof(ngx_pgq_ring_t, size),
      ngx_pgq_parameter_size, 1024 * 1024, 512 * 1024 * 1024 },

    { ngx_string("posts="), offsetof(ngx_pgq_ring_t, posts),
      ngx_pgq_parameter_number, 100, 65536 },

    { ngx_string("stale="), offsetof(ngx_pgq_ring_t, stale),
      ngx_pgq_parameter_time, 1, NGX_MAX_INT_T_VALUE },

    { ngx_string("poll="), offsetof(ngx_pgq_ring_t, poll),
      ngx_pgq_parameter_time, 10, 60 * 1000 },

    { ngx_null_string, 0, NULL, 0, 0 }
};


void *
ngx_pgq_conf_create_main(ngx_conf_t *cf)
{
    ngx_pgq_main_conf_t  *pmcf;

    pmcf = ngx_pcalloc(cf->pool, sizeof(ngx_pgq_main_conf_t));
    if (pmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&pmcf->pools, cf->pool, 2, sizeof(ngx_pgq_pool_t *))
        != NGX_OK
        || ngx_array_init(&pmcf->followers, cf->pool, 1,
                          sizeof(ngx_pgq_follower_t *))
           != NGX_OK)
    {
        return NULL;
    }

    return pmcf;
}


void *
ngx_pgq_conf_create_location(ngx_conf_t *cf)
{
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_pcalloc(cf->pool, sizeof(ngx_pgq_loc_conf_t));
    if (plcf == NULL) {
        return NULL;
    }

    plcf->depth = NGX_CONF_UNSET;
    plcf->timeout = NGX_CONF_UNSET_MSEC;
    plcf->lines = NGX_CONF_UNSET;
    plcf->readers = NGX_CONF_UNSET;
    plcf->backlog = NGX_CONF_UNSET_SIZE;
    plcf->heartbeat = NGX_CONF_UNSET_MSEC;
    plcf->stream_age = NGX_CONF_UNSET_MSEC;
    plcf->drain = NGX_CONF_UNSET_MSEC;
    plcf->log_cache = NGX_CONF_UNSET;
    plcf->stream_post = NGX_CONF_UNSET;
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

char *
ngx_pgq_conf_merge_location(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_pgq_loc_conf_t  *prev = parent;
    ngx_pgq_loc_conf_t  *conf = child;

    ngx_http_core_loc_conf_t  *clcf;

    ngx_conf_merge_value(conf->depth, prev->depth, 1000);
    ngx_conf_merge_msec_value(conf->timeout, prev->timeout, 30000);
    ngx_conf_merge_value(conf->lines, prev->lines, 1000);
    ngx_conf_merge_uint_value(conf->idempotency, prev->idempotency,
                              NGX_PGQ_IDEMPOTENCY_ON);

    ngx_conf_merge_value(conf->readers, prev->readers, 20000);
    ngx_conf_merge_size_value(conf->backlog, prev->backlog, 256 * 1024);
    ngx_conf_merge_msec_value(conf->heartbeat, prev->heartbeat, 15000);
    ngx_conf_merge_msec_value(conf->stream_age, prev->stream_age, 3600000);
    ngx_conf_merge_msec_value(conf->drain, prev->drain, 5000);
    ngx_conf_merge_sec_value(conf->log_cache, prev->log_cache, 0);
    ngx_conf_merge_value(conf->stream_post, prev->stream_post, 0);

    if (conf->stream_until == NULL) {
        conf->stream_until = prev->stream_until;
    }

    ngx_conf_merge_ptr_value(conf->origins, prev->origins, NULL);
    ngx_conf_merge_value(conf->details, prev->details, 0);

    if (conf->scoped == NGX_CONF_UNSET) {
        conf->scope = prev->scope;
    }

    ngx_conf_merge_value(conf->scoped, prev->scoped, 1);

    if (conf->topic == NULL) {
        conf->topic = prev->topic;
    }

    if (conf->topics == NULL) {
        conf->topics = prev->topics;
    }

    if (conf->version == NULL) {
        conf->version = prev->version;
    }

    if (conf->version_of == NULL) {
        conf->version_of = prev->version_of;
    }

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
        conf->prefix = prev->prefix;
        conf->stream = prev->stream;
        conf->subscription = prev->subscription;
        conf->metrics = prev->metrics;

        if (clcf->lmt_excpt && clcf->handler == NULL) {
            clcf->handler = conf->handler;
        }
    }

    if (conf->subscription && conf->topics) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "pgq_subscription in location \"%V\" conflicts with"
                           " pgq_topics: a subscription has its own topics",
                           &clcf->name);
        return NGX_CONF_ERROR;
    }

    if (conf->post) {
        ngx_pgq_enqueue_warn_size(cf, conf->post);
    }

    return NGX_CONF_OK;
}


/* pgq_pool name conninfo [parameter=value ...]; */

char *
ngx_pgq_conf_pool(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_pgq_main_conf_t  *pmcf = conf;

    ngx_str_t       *value;
    ngx_pgq_pool_t  *db, **slot;

    value = cf->args->elts;

    if (ngx_pgq_conf_find_pool(pmcf, &value[1])) {
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
    db->conninfo = value[2];
    ngx_pgq_parameter_defaults(db);

    if (ngx_pgq_conf_parameters(cf, 3, ngx_pgq_parameters, db) != NGX_OK) {
        return NGX_CONF_ERROR;
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


/* pgq_ring pool [parameter=value ...]; */

char *
ngx_pgq_conf_ring(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_pgq_main_conf_t  *pmcf = conf;

    ngx_str_t           *value;
    ngx_pgq_follower_t  *f, **slot;

    value = cf->args->elts;

    f = ngx_pcalloc(cf->pool, sizeof(ngx_pgq_follower_t));
    slot = ngx_array_push(&pmcf->followers);
    if (f == NULL || slot == NULL) {
        return NGX_CONF_ERROR;
    }

    *slot = f;

    f->ring.size = 16 * 1024 * 1024;
    f->ring.posts = 1000;
    f->ring.stale = 60 * 1000;
    f->ring.poll = 1000;

    if (ngx_pgq_conf_parameters(cf, 2, ngx_pgq_conf_ring_parameters, &f->ring)
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    f->posts = ngx_pgq_conf_named_pool(cf, &value[1]);

    if (f->posts == NULL) {
        return NGX_CONF_ERROR;
    }

    if (f->posts->ring) {
        return "is duplicate";
    }

    return ngx_pgq_follower_add(cf, f) == NGX_OK ? NGX_CONF_OK
                                                 : NGX_CONF_ERROR;
}


/* pgq_post, pgq_get, pgq_stream and pgq_subscription */

char *
ngx_pgq_conf_endpoint(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t            *value;
    ngx_pgq_pool_t      **db;
    ngx_http_handler_pt  *handler = cmd->post;

    db = (ngx_pgq_pool_t **) ((u_char *) conf + cmd->offset);

    if (*db) {
        return "is duplicate";
    }

    value = cf->args->elts;

    *db = *handler == ngx_pgq_stream_handler
          ? ngx_pgq_conf_ring_pool(cf, &value[1])
          : ngx_pgq_conf_named_pool(cf, &value[1]);

    if (*db == NULL) {
        return NGX_CONF_ERROR;
    }

    if (*handler == ngx_pgq_subscription_handler) {

        if (!ngx_pgq_conf_directory(cf)) {
            return NGX_PGQ_CONF_DIRECTORY;
        }

        if ((*db)->consumers == NULL
            && ngx_pgq_pool_consumers(cf, *db) != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    return ngx_pgq_conf_set_handler(cf, conf, *handler);
}


/* pgq_version pool; */

char *
ngx_pgq_conf_version(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_pgq_loc_conf_t  *plcf = conf;

    ngx_str_t  *value;

    if (plcf->version) {
        return "is duplicate";
    }

    value = cf->args->elts;

    plcf->version = ngx_pgq_conf_ring_pool(cf, &value[1]);

    return plcf->version ? NGX_CONF_OK : NGX_CONF_ERROR;
}


/* pgq_problem, pgq_metrics [pool], pgq_status [pool] and pgq_page */

char *
ngx_pgq_conf_page(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_pgq_loc_conf_t  *plcf = conf;

    ngx_str_t                 *value;
    ngx_http_handler_pt       *page = cmd->post;
    ngx_http_core_loc_conf_t  *clcf;

    if (cf->args->nelts > 1) {
        value = cf->args->elts;
        plcf->metrics = ngx_pgq_conf_named_pool(cf, &value[1]);

        if (plcf->metrics == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (*page == ngx_pgq_page_handler && !ngx_pgq_conf_directory(cf)) {
        return NGX_PGQ_CONF_DIRECTORY;
    }

    if (*page == ngx_pgq_reply_handler) {

        /* a body that was refused for its length is not checked again */
        clcf->client_max_body_size = 0;
    }

    return ngx_pgq_conf_set_handler(cf, plcf, *page);
}


/* whether the location is a prefix that ends with / */

static ngx_uint_t
ngx_pgq_conf_directory(ngx_conf_t *cf)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

#if (NGX_PCRE)
    if (clcf->regex) {
        return 0;
    }
#endif

    return !clcf->exact_match && !clcf->named && clcf->name.len
           && clcf->name.data[clcf->name.len - 1] == '/';
}


/* a location has one content handler; a second one would replace the first */

static char *
ngx_pgq_conf_set_handler(ngx_conf_t *cf, ngx_pgq_loc_conf_t *plcf,
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

#if (NGX_PCRE)
    if (clcf->regex) {
        return NGX_CONF_OK;
    }
#endif

    if (!clcf->exact_match && !clcf->named) {
        plcf->prefix = clcf->name;
    }

    return NGX_CONF_OK;
}


/* reads the arguments of a directive from this one on */

static ngx_int_t
ngx_pgq_conf_parameters(ngx_conf_t *cf, ngx_uint_t first,
    ngx_pgq_parameter_t *parameters, void *conf)
{
    ngx_str_t   *value;
    ngx_uint_t   i;

    value = cf->args->elts;

    for (i = first; i < cf->args->nelts; i++) {
        if (ngx_pgq_parameter_read(cf, parameters, conf, &value[i])
            != NGX_CONF_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* the pool that a directive names; logs an error if there is none */

static ngx_pgq_pool_t *
ngx_pgq_conf_named_pool(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_pgq_pool_t  *db;

    db = ngx_pgq_conf_find_pool(
               ngx_http_conf_get_module_main_conf(cf, ngx_http_pgq_module),
               name);

    if (db == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "unknown pgq_pool \"%V\" (it must be defined before"
                           " its use)", name);
    }

    return db;
}


/* the same, of a pool that has a ring */

static ngx_pgq_pool_t *
ngx_pgq_conf_ring_pool(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_pgq_pool_t  *db;

    db = ngx_pgq_conf_named_pool(cf, name);

    if (db && db->ring == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "pgq_pool \"%V\" has no pgq_ring", name);
        return NULL;
    }

    return db;
}


static ngx_pgq_pool_t *
ngx_pgq_conf_find_pool(ngx_pgq_main_conf_t *pmcf, ngx_str_t *name)
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
