-- ngx_pgq.recent(most, before, size, topics, pattern): the newest posts, newest first, for GET /get.
-- nginx calls it. It runs with the rights of the caller, who needs SELECT on posts.
--
--   most     the maximum number of posts
--   before   only posts with smaller ids; null: from the newest
--   size     the maximum number of bytes of all data; the first post is returned even if it is larger
--   topics   only posts with one of these topics; null: all
--   pattern  only posts whose topic matches this regular expression; null: all
--
--   id       the id of the post
--   data     the message, in UTF-8
--   at       the time in RFC 3339; null if it is infinite or its year does not have four digits
--   older    the id of the next older post; null if there is none. If it is not null in the last row, size was reached
--   topic    the topic; '' if there is none
--
-- The planner inlines this query, so that rows are sent as they are found, and removes the conditions on topics that are not
-- given. Of posts that are left out only the length is read. A single topic is compared by =, so that an index on
-- (topic, id) returns its posts in order.

-- the function of an older version
drop function if exists ngx_pgq.recent(integer, bigint, integer);

create or replace function ngx_pgq.recent(
    most integer default 100, before bigint default null, size integer default 1048576, topics text[] default null,
    pattern text default null)
returns table (id bigint, at text, data json, older bigint, topic text)
language sql
stable
parallel safe
rows 100
as $$
    select post.id,
           case when post.at >= '0001-01-01 00:00:00Z' and post.at < '10000-01-01 00:00:00Z'
                then to_char(post.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') end,
           ngx_pgq.json_utf8(post.data),
           post.older,
           post.topic
      from (select newest.id, newest.at, newest.data, newest.topic,
                   row_number() over downwards as place,
                   sum(ngx_pgq.json_octets(newest.data)) over downwards as bytes,
                   lead(newest.id) over downwards as older
              from (select posts.id, posts.at, posts.data, posts.topic
                      from public.posts
                     where posts.id < coalesce(before, 9223372036854775807)
                       and case when topics is null then true
                                when cardinality(topics) = 1 then posts.topic = topics[1]
                                else posts.topic = any (topics) end
                       and (pattern is null or posts.topic collate "C" ~ pattern)
                     order by posts.id desc
                     limit most) as newest
            window downwards as (order by newest.id desc rows unbounded preceding)) as post
     where post.place = 1 or post.bytes <= size
     order by post.id desc
$$;

alter function ngx_pgq.recent(integer, bigint, integer, text[], text) owner to ngx_pgq_owner;
