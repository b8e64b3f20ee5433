-- ngx_pgq.follow(after, most, size, newest): the posts that follow an id, for the follower of an nginx host, which calls it
-- at each notification. It runs with the rights of the caller, who needs SELECT on posts, on ngx_pgq.removed and on
-- ngx_pgq.revision.
--
--   after    only posts with greater ids; null: the newest posts
--   most     the maximum number of posts
--   size     the maximum number of bytes of all data; the first post is returned even if it is larger
--   newest   the number of posts from the newest one down, if after is null
--
--   id, at, data, topic, message_id  as those of after(); null in the first row, which comes before the posts
--   head                 in the first row, the greatest id that posts has or has had; 0 if there is none
--   removed              in the first row, the greatest id that retention has deleted; 0 if there is none
--   revision             in the first row, ngx_pgq.revision: if it has changed, posts that were read before may have, too
--   delay                in the first row, the milliseconds from the time of the first post to this statement, at least 0; null
--                        if there is no post, or its time is infinite
--
-- Posts that retention has passed over, with smaller ids than removed, are not returned. So those that were deleted are not
-- scanned, also if vacuum cannot remove them.
--
-- To plan the statement takes several times as long as to run it. PL/pgSQL keeps the plan of a session. As it may have been
-- made while posts was empty, all plans but the one by the index on id are switched off.

-- that of an older version returns other columns
select 'drop function ngx_pgq.follow(bigint, integer, integer, integer)'
 where exists (select from pg_proc
                where oid = to_regprocedure('ngx_pgq.follow(bigint, integer, integer, integer)')
                  and 'delay' <> all (proargnames))
\gexec

create or replace function ngx_pgq.follow("after" bigint, most integer, size integer, newest integer default 1000)
returns table (id bigint, at text, data json, topic text, message_id uuid, head bigint, removed bigint,
               revision bigint, delay bigint)
language plpgsql
stable
parallel safe
rows 100
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
begin
    return query
    with known as materialized (
        select place.newest as head,
               removed.last_value as removed,
               (select max(n) from ngx_pgq.revision) as revision,
               greatest(removed.last_value,
                        coalesce("after", (select min(last.id) - 1
                                             from (select posts.id
                                                     from public.posts
                                                    where posts.id > removed.last_value
                                                    order by posts.id desc
                                                    limit follow.newest) as last))) as start
          from ngx_pgq.removed, ngx_pgq.position(0) as place
    )
    select null::bigint, null::text, null::json, null::text, null::uuid, known.head, known.removed, known.revision,
           (select case when isfinite(posts.at)
                        then greatest(extract(epoch from statement_timestamp() - posts.at) * 1000, 0)::bigint end
              from public.posts
             where posts.id > known.start
             order by posts.id
             limit 1)
      from known
    union all
    select post.id, post.at, post.data, post.topic, post.message_id, null, null, null, null
      from known, ngx_pgq.after(known.start, most, size) as post;
end
$$;

alter function ngx_pgq.follow(bigint, integer, integer, integer) owner to ngx_pgq_owner;
