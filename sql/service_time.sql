-- ngx_pgq.service_time: the time by which idempotency keys expire (setting ngx_pgq.keep_keys).
-- The first mover saves it every ten seconds while there are keys; enqueue_keyed() and enqueue_all() read it.
--
--   at  starts with the first key and advances only while a primary runs
--
-- It reads like a wall clock and falls behind it. So no key expires early because clocks of two hosts differ, or because one
-- was set. One row; if the restore of a dump has added rows, the latest is valid.

create table if not exists ngx_pgq.service_time (
    at  timestamptz not null
);

select format('alter table %s owner to ngx_pgq_owner', oid::regclass)
  from pg_class
 where oid = 'ngx_pgq.service_time'::regclass and relowner <> 'ngx_pgq_owner'::regrole
\gexec

-- A published table, FOR ALL TABLES for example, without a key can be updated only if whole rows identify it. Only if needed,
-- as this blocks messages with keys.
select format('alter table %s replica identity full', oid::regclass)
  from pg_class
 where oid = 'ngx_pgq.service_time'::regclass and relreplident <> 'f'
\gexec
