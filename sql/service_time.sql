-- ngx_pgq.service_time: the time by which idempotency keys expire (setting ngx_pgq.keep_keys).
-- The first mover saves it every ten seconds while there are keys; enqueue_keyed() and enqueue_all() read it.
--
--   at  the time that was saved last; it starts with the first key and advances only while a primary runs
--
-- It starts at the wall clock's time and falls behind it. So no key expires early because clocks of two hosts differ, or
-- because one was set. There is one row; if the restore of a dump has added rows, the latest is valid.

create table if not exists ngx_pgq.service_time (
    at  timestamptz not null
);

select format('alter table %s owner to ngx_pgq_owner', oid::regclass)
  from pg_class
 where oid = 'ngx_pgq.service_time'::regclass and relowner <> 'ngx_pgq_owner'::regrole
\gexec

-- A table without a primary key that is published, for example FOR ALL TABLES, can be updated only with REPLICA IDENTITY FULL.
-- It is set only if it is not, as this blocks messages with keys.
select format('alter table %s replica identity full', oid::regclass)
  from pg_class
 where oid = 'ngx_pgq.service_time'::regclass and relreplident <> 'f'
\gexec
