-- ngx_pgq.subscription_rows(): the rows of the view subscriptions.
-- It runs with the rights of ngx_pgq_owner. A view that names posts would not let its owner alter or replace the table.

create or replace function ngx_pgq.subscription_rows()
returns table (name text, part integer, topics text[], upto bigint, lag bigint, oldest_seconds numeric, generation bigint,
               leased_until timestamptz)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
    select subscription.name,
           state.part,
           subscription.topics,
           state.upto,
           greatest(posts.newest - greatest(state.upto, removed.last_value), 0) as lag,
           coalesce((select case when isfinite(next.at) then trim_scale(greatest(extract(epoch from clock_timestamp() - next.at), 0)) end
                       from public.posts as next
                      where next.id > greatest(state.upto, removed.last_value)
                      order by next.id
                      limit 1), 0) as oldest_seconds,
           state.generation,
           case when state.until - clock_timestamp() between '1 us' and state.lease then state.until end as leased_until
      from ngx_pgq.removed,
           lateral (select coalesce((select last.id from public.posts as last
                                      where last.id > removed.last_value
                                      order by last.id desc
                                      limit 1), removed.last_value) as newest) as posts,
           ngx_pgq.subscription
      join ngx_pgq.progress as state using (name)
     order by subscription.name, state.part
$$;

comment on function ngx_pgq.subscription_rows() is
'the rows of ngx_pgq.subscriptions';

alter function ngx_pgq.subscription_rows() owner to ngx_pgq_owner;
