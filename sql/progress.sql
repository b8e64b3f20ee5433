-- ngx_pgq.progress: the position and the lease of each part of a subscription.
-- subscribe() inserts; fetch() and ack() update, each by one statement that also raises turn by one.
--
--   name, part  the part of a subscription, from 1 to subscription.parts
--   turn        the number of updates
--   upto        all posts up to this id are acknowledged, or do not belong to the part
--   generation  changes whenever a consumer takes the part. It contains the time, so that it is not given again after the
--               subscription was created again, or by a primary that lacks the changes of another one
--   until       the end of the lease; null: the consumer has released the part, or none has taken it
--   lease       the length of the lease, by which an acknowledgement renews it
--
-- There is one row for each part. It is found as the one with the greatest turn: a scan of the primary key from the end of
-- the part meets the newest version first. By a key without turn it would visit all versions that vacuum cannot remove yet.

create table if not exists ngx_pgq.progress (
    name        text        not null references ngx_pgq.subscription on delete cascade,
    part        integer     not null,
    turn        bigint      not null default 0,
    upto        bigint      not null,
    generation  bigint      not null default 0,
    until       timestamptz,
    lease       interval,
    primary key (name, part, turn)
);

-- To truncate the table vacuum would block consumers.
select 'alter table ngx_pgq.progress set (vacuum_truncate = off)'
  from pg_class
 where oid = 'ngx_pgq.progress'::regclass and reloptions is null
\gexec

select format('alter table %s owner to ngx_pgq_owner', oid::regclass)
  from pg_class
 where oid = 'ngx_pgq.progress'::regclass and relowner <> 'ngx_pgq_owner'::regrole
\gexec
