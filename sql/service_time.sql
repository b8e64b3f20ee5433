-- ngx_pgq.service_time: the database's own time, by which idempotency keys expire (setting ngx_pgq.keep_keys).
-- Written by the first mover, every ten seconds while there are keys; read by ngx_pgq.enqueue_keyed() and
-- ngx_pgq.enqueue_all().
--
--   at  begins with the first key; only time in which a primary has been in service is added
--
-- It reads like a wall clock and falls behind it. No key expires early because the clocks of two hosts differ, or because
-- one of them was set. One row; of several, as after a dump was restored, the latest counts.

create table if not exists ngx_pgq.service_time (
    at  timestamptz not null
);

select format('alter table %s owner to ngx_pgq_owner', oid::regclass)
  from pg_class
 where oid = 'ngx_pgq.service_time'::regclass and relowner <> 'ngx_pgq_owner'::regrole
\gexec

-- A table without a key cannot be updated once it is published, as by FOR ALL TABLES, unless whole rows identify it. Only
-- where it is not so already: this locks out everybody who sends keys.
select format('alter table %s replica identity full', oid::regclass)
  from pg_class
 where oid = 'ngx_pgq.service_time'::regclass and relreplident <> 'f'
\gexec
