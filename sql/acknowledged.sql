-- ngx_pgq.acknowledged(): the id up to which no subscription needs posts any more: each part of each has acknowledged them, or
-- they were deleted. The greatest bigint if there is no subscription. The first mover calls it before it deletes posts, if
-- ngx_pgq.keep_unacknowledged_for is set. It runs with the rights of ngx_pgq_owner, and locks no row.
--
-- Of each part it reads the newest version only: progress.sql.

create or replace function ngx_pgq.acknowledged()
returns bigint
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
    select greatest(coalesce(min(state.upto), 9223372036854775807), (select removed.last_value from ngx_pgq.removed))
      from ngx_pgq.subscription,
           generate_series(1, subscription.parts) as number,
           lateral (select progress.upto
                      from ngx_pgq.progress
                     where progress.name = subscription.name and progress.part = number
                     order by progress.turn desc
                     limit 1) as state
$$;

comment on function ngx_pgq.acknowledged() is
'the id up to which all subscriptions have acknowledged posts';

alter function ngx_pgq.acknowledged() owner to ngx_pgq_owner;
