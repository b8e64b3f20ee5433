-- ngx_pgq.revision: changes whenever posts was changed by hand, or after posts were lost.
-- refresh() updates it; follow() returns it, so that a follower that was away at the notification reads all posts again.
--
--   n  greater after each change. It contains the time, so that two primaries that lack each other's changes differ
--
-- There is one row; if the restore of a dump has added rows, the greatest is valid.

create table if not exists ngx_pgq.revision (
    n  bigint not null
);

insert into ngx_pgq.revision select 0 where not exists (select from ngx_pgq.revision);

select format('alter table %s owner to ngx_pgq_owner', oid::regclass)
  from pg_class
 where oid = 'ngx_pgq.revision'::regclass and relowner <> 'ngx_pgq_owner'::regrole
\gexec

-- as in service_time.sql
select format('alter table %s replica identity full', oid::regclass)
  from pg_class
 where oid = 'ngx_pgq.revision'::regclass and relreplident <> 'f'
\gexec
