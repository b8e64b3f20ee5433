-- ngx_pgq.metrics(): the state of the queue, of the movers and of the server in Prometheus's text format 0.0.4.
-- nginx calls it for /metrics, if pgq_metrics names a pool. It runs with the rights of its owner, as nginx's role may not
-- read ngx_pgq.status. It reads shared memory and small catalogs, and no message. Of subscriptions it shows the 1000 parts
-- whose first post is the oldest, so that the page is bounded.

create or replace function ngx_pgq.metrics()
returns text
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
    with status as materialized (
        select * from ngx_pgq.status where database = current_database()
    ), part as (
        select format('{subscription="%s",part="%s"}', name, part) as labels, lag, oldest_seconds, (leased_until is not null)::integer as leased
          from ngx_pgq.subscription_rows()
         order by oldest_seconds desc, lag desc, name, part
         limit 1000
    ), sample (name, labels, value) as (
        select 'pgq_queue_messages', format('{slot="%s"}', slot), depth::numeric from status where slot is not null
        union all
        select 'pgq_queue_bytes', format('{slot="%s"}', slot), bytes from status where slot is not null
        union all
        select 'pgq_queue_oldest_seconds', '', trim_scale(greatest(extract(epoch from coalesce(max(oldest), '0')), 0))
          from status where slot is not null having count(*) > 0
        union all
        select 'pgq_movers', format('{state="%s"}', state), count(*) from status where mover is not null group by state
        union all
        select name, format('{mover="%s"}', mover), value
          from status, lateral (values ('pgq_moved_messages_total', messages), ('pgq_moved_batches_total', batches),
                                       ('pgq_dead_letters_total', dead_letters), ('pgq_mover_errors_total', errors)) as total (name, value)
         where mover is not null
        union all
        select name, labels, value
          from part, lateral (values ('pgq_subscription_lag', lag::numeric), ('pgq_subscription_oldest_seconds', oldest_seconds),
                                     ('pgq_subscription_leased', leased)) as gauge (name, value)
        union all
        select 'pgq_transaction_id_age', '', max(age(datfrozenxid)) from pg_database
        union all
        select 'pgq_archived_wal_total', '', archived_count from pg_stat_archiver
        union all
        select 'pgq_archive_failures_total', '', failed_count from pg_stat_archiver
    ), metric (name, type, help) as (
        values ('pgq_queue_messages', 'gauge', 'Messages not yet moved, by slot.'),
               ('pgq_queue_bytes', 'gauge', 'Size of a slot when it was last measured.'),
               ('pgq_queue_oldest_seconds', 'gauge', 'Time for which the oldest message has waited.'),
               ('pgq_movers', 'gauge', 'Movers, by state.'),
               ('pgq_moved_messages_total', 'counter', 'Messages moved since the start of the server.'),
               ('pgq_moved_batches_total', 'counter', 'Batches moved.'),
               ('pgq_dead_letters_total', 'counter', 'Messages that posts has refused.'),
               ('pgq_mover_errors_total', 'counter', 'Batches that failed.'),
               ('pgq_subscription_lag', 'gauge', 'Posts after those that a subscription has acknowledged.'),
               ('pgq_subscription_oldest_seconds', 'gauge', 'Age of the first of these posts.'),
               ('pgq_subscription_leased', 'gauge', 'Whether a consumer has a lease.'),
               ('pgq_transaction_id_age', 'gauge', 'Greatest age of the oldest transaction id of a database.'),
               ('pgq_archived_wal_total', 'counter', 'WAL files archived.'),
               ('pgq_archive_failures_total', 'counter', 'Attempts to archive a WAL file that failed.')
    )
    select string_agg(format(E'# HELP %s %s\n# TYPE %1$s %3$s\n%4$s', name, help, type, lines), '' order by name)
      from (select name, type, help, string_agg(format(E'%s%s %s\n', name, labels, value), '' order by labels) as lines
              from metric join sample using (name)
             group by name, type, help) as family
$$;

alter function ngx_pgq.metrics() owner to ngx_pgq_owner;
