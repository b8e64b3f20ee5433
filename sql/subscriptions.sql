-- ngx_pgq.subscriptions: the state of each part of each subscription. For operators and monitoring.
--
--   name, part      the part of a subscription
--   topics          only posts with one of these topics; null: all
--   upto            all posts up to this id are acknowledged
--   lag             how many ids follow, up to the newest post, those left out that retention has deleted. Posts of other
--                   topics and parts are counted
--   oldest_seconds  the age of the first of these posts; 0 if there is none
--   generation      changes whenever a consumer takes the part; 0: none has taken it
--   leased_until    the end of the lease; null if no lease is valid

create or replace view ngx_pgq.subscriptions as
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
       case when state.until > clock_timestamp() then state.until end as leased_until
  from ngx_pgq.removed,
       lateral (select coalesce((select last.id from public.posts as last
                                  where last.id > removed.last_value
                                  order by last.id desc
                                  limit 1), removed.last_value) as newest) as posts,
       ngx_pgq.subscription
  join ngx_pgq.progress as state using (name)
 order by subscription.name, state.part;

comment on view ngx_pgq.subscriptions is
'the state of each part of each subscription';

alter view ngx_pgq.subscriptions owner to ngx_pgq_owner;
