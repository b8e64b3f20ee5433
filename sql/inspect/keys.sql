-- Rows and valid keys in each leaf of the table of idempotency keys. Scans the whole table.

select key.tableoid::regclass                                               as leaf,
       count(*)                                                             as rows,
       count(*) filter (where at > setting.now - setting.keep)              as keys,
       min(at)                                                              as oldest,
       max(at)                                                              as newest,
       pg_size_pretty(pg_total_relation_size(key.tableoid))                 as size
  from ngx_pgq.key,
       (select current_setting('ngx_pgq.keep_keys')::interval as keep, (select max(at) from ngx_pgq.service_time) as now) as setting
 group by key.tableoid
 order by 1;
