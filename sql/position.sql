-- ngx_pgq.position(after): what a reader that continues after an id needs to know. nginx calls it for GET /stream.
-- It runs with the rights of the caller, who needs SELECT on posts and on ngx_pgq.removed.
--
--   after     the id of the last post that the reader has seen; 0: it starts at the oldest post
--
--   oldest    the smallest id of posts, posts that retention has passed over left out; null if there is none
--   newest    the greatest id that posts has or has had; 0 if there is none
--   complete  true if retention has deleted no post after this id. Always true for 0
--
-- In one statement with after() it is exact: what the snapshot does not show of deleted posts is in ngx_pgq.removed. Posts
-- that retention has deleted are not scanned, also if vacuum cannot remove them.

create or replace function ngx_pgq.position("after" bigint)
returns table (oldest bigint, newest bigint, complete boolean)
language sql
stable
parallel safe
rows 1
as $$
    select (select posts.id from public.posts where posts.id > removed.last_value order by posts.id limit 1),
           coalesce((select posts.id from public.posts where posts.id > removed.last_value order by posts.id desc limit 1),
                    removed.last_value),
           "after" = 0 or "after" >= removed.last_value
      from ngx_pgq.removed
$$;

alter function ngx_pgq.position(bigint) owner to ngx_pgq_owner;
