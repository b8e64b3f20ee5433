-- ngx_pgq.horizon: what keeps vacuum from removing dead rows in this database (its removal horizon), the oldest first.
-- For operators and monitoring. A reader that is not a member of pg_monitor does not see sessions of other roles.
--
--   holder    session · prepared transaction · replication slot · standby (with hot_standby_feedback)
--   pid       the process of the holder; null: it has none
--   name      application_name, the gid of the transaction, or the name of the slot
--   role      the role of the holder; null: unknown
--   database  the database of the holder; null for a standby and a physical slot, which hold all databases
--   holds     rows: dead rows of all tables · catalogs: those of system catalogs only (catalog_xmin of a slot)
--   xmin      rows deleted by this transaction or a later one cannot be removed
--   age       the number of transactions that have begun since xmin
--   since     when the transaction began or was prepared, or the slot became inactive; null if unknown
--   duration  the time since that
--   state     the state of the holder, and what it waits for
--   query     the beginning of the holder's current or last query

create or replace view ngx_pgq.horizon as
with held as (
    select case activity.backend_type when 'walsender' then 'standby' else 'session' end as holder,
           activity.pid as pid,
           coalesce(nullif(activity.application_name, ''), activity.backend_type) as name,
           activity.usename::text as role,
           activity.datname::text as database,
           'rows' as holds,
           case when age(activity.backend_xid) > age(activity.backend_xmin) or activity.backend_xmin is null
                then activity.backend_xid else activity.backend_xmin end as xmin,
           activity.xact_start as since,
           coalesce(replication.state, activity.state, '') || coalesce(', waits for ' || activity.wait_event, '') as state,
           left(regexp_replace(activity.query, '\s+', ' ', 'g'), 60) as query
      from pg_catalog.pg_stat_activity as activity
      left join pg_catalog.pg_stat_replication as replication using (pid)
     where (activity.datid = (select oid from pg_catalog.pg_database where datname = current_database()) or activity.backend_type = 'walsender')
       -- VACUUM holds nothing back; nor does the snapshot of this query, unless it is older
       and not exists (select from pg_catalog.pg_stat_progress_vacuum as vacuum where vacuum.pid = activity.pid)
       and not (activity.pid = pg_backend_pid() and activity.xact_start = activity.query_start)
    union all
    select 'prepared transaction' as holder,
           null::integer as pid,
           prepared.gid as name,
           prepared.owner::text as role,
           prepared.database::text as database,
           'rows' as holds,
           prepared.transaction as xmin,
           prepared.prepared as since,
           'waits for COMMIT PREPARED' as state,
           null::text as query
      from pg_catalog.pg_prepared_xacts as prepared
     where prepared.database = current_database()
    union all
    select 'replication slot' as holder,
           slot.active_pid as pid,
           slot.slot_name::text as name,
           null::text as role,
           slot.database::text as database,
           held.holds as holds,
           held.xmin as xmin,
           (to_jsonb(slot.*) ->> 'inactive_since')::timestamptz as since,   -- from PostgreSQL 17 on
           case when slot.active then 'active' else 'inactive' end as state,
           null::text as query
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
'what keeps vacuum from removing dead rows in this database, the oldest first';

alter view ngx_pgq.horizon owner to ngx_pgq_owner;
