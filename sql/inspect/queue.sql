-- The number of messages in the queue, the age of the oldest, and the size of the slots.

select queue.tableoid::regclass                                     as slot,
       count(*)                                                     as messages,
       clock_timestamp() - min(at)                                  as oldest,
       pg_size_pretty(pg_total_relation_size(queue.tableoid))       as size
  from ngx_pgq.queue
 group by queue.tableoid
 order by 1;

select leaf.relid::regclass                                         as slot,
       leaf.n_dead_tup                                              as dead_rows,
       pg_size_pretty(pg_total_relation_size(leaf.relid))           as size,
       leaf.last_autovacuum
  from pg_stat_user_tables as leaf
 where leaf.schemaname = 'ngx_pgq' and leaf.relname like 'queue\_%'
 order by 1;
