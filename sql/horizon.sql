-- ngx_pgq.horizon: whoever keeps vacuum from removing dead rows in this database, the oldest first.
-- Read by operators and monitoring. A reader that is no pg_monitor sees strangers' sessions without their horizon,
-- that is, not at all.
--
--   holder    session · prepared transaction · replication slot · standby (that says what its queries need)
--   pid       its process, where it has one
--   name      application_name, the transaction's gid, or the slot's name
--   role      whose it is
--   database  the one it works in; none for a standby, and for a slot of whole servers: those hold every database
--   holds     rows: of all tables · catalogs: of system catalogs only, as a slot's catalog_xmin does
--   xmin      what died in this transaction or a later one is still there
--   age       so many transactions have begun since
--   since     when its transaction began or was prepared, or its slot was left; null where the server does not know
--   duration  how long ago that is
--   state     what it does, or how long it has been waiting for what
--   query     the beginning of what it runs, or ran last

create or replace view ngx_pgq.horizon as
with held (holder, pid, name, role, database, holds, xmin, since, state, query) as (
    select case activity.backend_type when 'walsender' then 'standby' else 'session' end, activity.pid,
           coalesce(nullif(activity.application_name, ''), activity.backend_type), activity.usename::text, activity.datname::text, 'rows',
           case when age(activity.backend_xid) > age(activity.backend_xmin) or activity.backend_xmin is null
                then activity.backend_xid else activity.backend_xmin end,
           activity.xact_start,
           coalesce(replication.state, activity.state, '') || coalesce(', waits for ' || activity.wait_event, ''),
           left(regexp_replace(activity.query, '\s+', ' ', 'g'), 60)
      from pg_catalog.pg_stat_activity as activity
      left join pg_catalog.pg_stat_replication as replication using (pid)
     where (activity.datid = (select oid from pg_catalog.pg_database where datname = current_database()) or activity.backend_type = 'walsender')
       -- VACUUM's own snapshot holds nothing; nor does the one this view is read with, if it is no older
       and not exists (select from pg_catalog.pg_stat_progress_vacuum as vacuum where vacuum.pid = activity.pid)
       and not (activity.pid = pg_backend_pid() and activity.xact_start = activity.query_start)
    union all
    select 'prepared transaction', null, prepared.gid, prepared.owner::text, prepared.database::text, 'rows',
           prepared.transaction, prepared.prepared, 'waits for commit prepared', null
      from pg_catalog.pg_prepared_xacts as prepared
     where prepared.database = current_database()
    union all
    select 'replication slot', slot.active_pid, slot.slot_name::text, null, slot.database::text, held.holds, held.xmin,
           (to_jsonb(slot) ->> 'inactive_since')::timestamptz,      -- from PostgreSQL 17 on
           case when slot.active then 'in use' else 'nobody reads it' end, null
      from pg_catalog.pg_replication_slots as slot,
           lateral (values ('rows', slot.xmin), ('catalogs', slot.catalog_xmin)) as held (holds, xmin)
     where slot.wal_status is distinct from 'lost'
)
select holder, pid, name, role, database, holds, xmin, age(xmin) as age, since,
       date_trunc('second', clock_timestamp() - since) as duration, state, query
  from held
 where xmin is not null
 order by age(xmin) desc, since, pid;

comment on view ngx_pgq.horizon is
'whoever keeps vacuum from removing dead rows in this database, the oldest first';

alter view ngx_pgq.horizon owner to ngx_pgq_owner;
