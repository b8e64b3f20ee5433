-- ngx_pgq.subscription_rows(): the rows of the view subscriptions.
-- It runs with the rights of ngx_pgq_owner. A view that names posts would not let its owner alter or replace the table.
-- It finds the state of each part as fetch() does, so that versions that vacuum cannot remove yet are not read.

create or replace function ngx_pgq.subscription_rows()
returns table (name text, part integer, topics text[], upto bigint, lag bigint, oldest_seconds numeric, generation bigint,
               leased_until timestamptz)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
    select subscription.name,
           state.part,
           subscription.topics,
           state.upto,
           greatest(posts.newest - greatest(state.upto, removed.last_value), 0) as lag,
           coalesce((select case when isfinite(next.at) then trim_scale(greatest(extract(epoch from posts.now - next.at), 0)) end
                       from public.posts as next
                      where next.id > greatest(state.upto, removed.last_value)
                      order by next.id
                      limit 1), 0) as oldest_seconds,
           state.generation,
           case when state.until - posts.now between '1 us' and state.lease then state.until end as leased_until
      from ngx_pgq.removed,
           lateral (select coalesce((select last.id from public.posts as last
                                      where last.id > removed.last_value
                                      order by last.id desc
                                      limit 1), removed.last_value) as newest,
                           clock_timestamp() as now) as posts,
           ngx_pgq.subscription,
           generate_series(1, subscription.parts) as number,
           lateral (select *
                      from ngx_pgq.progress
                     where progress.name = subscription.name and progress.part = number
                     order by progress.turn desc
                     limit 1) as state
     order by subscription.name, state.part
$$;

comment on function ngx_pgq.subscription_rows() is
'the rows of ngx_pgq.subscriptions';

alter function ngx_pgq.subscription_rows() owner to ngx_pgq_owner;
