-- ngx_pgq.recent(most, before, size): the newest posts, newest first, for GET /get.
-- nginx calls it. It runs with the rights of the caller, who needs SELECT on posts.
--
--   most    the maximum number of posts
--   before  only posts with smaller ids; null: from the newest
--   size    the maximum number of bytes of all data; the first post is returned even if it is larger
--
--   id      the id of the post
--   data    the message, in UTF-8
--   at      the time in RFC 3339; null if it is infinite or its year does not have four digits
--   older   the id of the next older post; null if there is none. If it is not null in the last row, size was reached
--
-- The planner inlines this query, so that rows are sent as they are found. Of posts that are left out only the length is
-- read.

create or replace function ngx_pgq.recent(
    most integer default 100, before bigint default null, size integer default 1048576)
returns table (id bigint, at text, data json, older bigint)
language sql
stable
parallel safe
rows 100
as $$
    select post.id,
           case when post.at >= '0001-01-01 00:00:00Z' and post.at < '10000-01-01 00:00:00Z'
                then to_char(post.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') end,
           ngx_pgq.json_utf8(post.data),
           post.older
      from (select newest.id, newest.at, newest.data,
                   row_number() over downwards as place,
                   sum(ngx_pgq.json_octets(newest.data)) over downwards as bytes,
                   lead(newest.id) over downwards as older
              from (select posts.id, posts.at, posts.data
                      from public.posts
                     where posts.id < coalesce(before, 9223372036854775807)
                     order by posts.id desc
                     limit most) as newest
            window downwards as (order by newest.id desc rows unbounded preceding)) as post
     where post.place = 1 or post.bytes <= size
     order by post.id desc
$$;

alter function ngx_pgq.recent(integer, bigint, integer) owner to ngx_pgq_owner;
