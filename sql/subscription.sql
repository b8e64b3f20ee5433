-- ngx_pgq.subscription: named consumers of posts.
-- subscribe() inserts, unsubscribe() deletes; a row is never updated. fetch() reads it.
--
--   name    the name of the subscription
--   topics  only posts with one of these topics, sorted; null: all
--   parts   the number of parts, each of which one consumer at a time reads: part.sql

create table if not exists ngx_pgq.subscription (
    name    text    primary key,
    topics  text[],
    parts   integer not null
);

select format('alter table %s owner to ngx_pgq_owner', oid::regclass)
  from pg_class
 where oid = 'ngx_pgq.subscription'::regclass and relowner <> 'ngx_pgq_owner'::regrole
\gexec
