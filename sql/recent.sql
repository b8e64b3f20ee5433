-- ngx_pgq.recent(most, before): the newest posts as the body of GET /get, newest first.
-- Called by nginx; runs with the caller's rights, who needs SELECT on posts.
--
--   most    how many at most
--   before  only posts with smaller ids; null: from the newest on

create or replace function ngx_pgq.recent(most integer default 100, before bigint default null)
returns text
language sql
stable
parallel safe
as $$
    select '{"msg":['
           || coalesce(string_agg('{"id":' || post.id
                                  || ',"data":' || post.data::text
                                  || ',"at":"' || to_char(post.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                                  || '"}', ',' order by post.id desc), '')
           || ']}'
      from (select id, data, at
              from public.posts
             where before is null or id < before
             order by id desc
             limit most) as post
$$;

alter function ngx_pgq.recent(integer, bigint) owner to ngx_pgq_owner;
