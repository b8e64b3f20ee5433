-- ngx_pgq.progress: the position and the lease of each part of a subscription.
-- subscribe() inserts; fetch() and ack() update, each by one statement that also raises turn by one.
--
--   name, part  the part of a subscription, from 1 to subscription.parts
--   turn        the number of updates
--   upto        all posts up to this id are acknowledged, or do not belong to the part
--   generation  a random number of 48 bits, another one whenever a consumer takes the part; 0: none has taken it
--   until       the end of the lease; null: the consumer has released the part, or none has taken it
--   lease       the length of the lease, by which an acknowledgement renews it; always written together with until
--
-- Which consumer has the part depends on no clock: it is the one that knows generation, and each call compares that. A
-- generation is not given again (but with a probability of 2^-48) if the transaction that took the part was rolled back or
-- lost in a failover, or if the subscription was deleted and created again. A number that rises, or the time, would be: the
-- next consumer could get the same one from the same row, by a clock that was set back.
--
-- Clocks only decide when a part may be taken from its consumer. The lease is valid while the primary's clock is not before
-- until - lease, and before until. So an unchanged row keeps others from the part for at most the length of the lease by each
-- clock, however far it is behind the clock that wrote the row, and for less if it is ahead.
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
