-- ngx_pgq.after(after, most, size, topics, pattern): the posts that follow an id, oldest first, for GET /get?after=.
-- nginx calls it. It runs with the rights of the caller, who needs SELECT on posts.
--
--   after    only posts with greater ids
--   newer    the id of the next newer post; null if there is none. If it is not null in the last row, size was reached
--   message_id  of the message that became the post
--
-- The other parameters and columns, and how the query is planned: recent.sql.

-- that of an older version returns other columns
select 'drop function ngx_pgq.after(bigint, integer, integer, text[], text)'
 where exists (select from pg_proc
                where oid = to_regprocedure('ngx_pgq.after(bigint, integer, integer, text[], text)')
                  and 'message_id' <> all (proargnames))
\gexec

create or replace function ngx_pgq.after(
    "after" bigint, most integer default 100, size integer default 1048576, topics text[] default null,
    pattern text default null)
returns table (id bigint, at text, data json, newer bigint, topic text, message_id uuid)
language sql
stable
parallel safe
rows 100
as $$
    select post.id,
           case when post.at >= '0001-01-01 00:00:00Z' and post.at < '10000-01-01 00:00:00Z'
                then to_char(post.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') end,
           ngx_pgq.json_utf8(post.data),
           post.newer,
           post.topic,
           post.message_id
      from (select oldest.id, oldest.at, oldest.data, oldest.topic, oldest.message_id,
                   row_number() over upwards as place,
                   sum(ngx_pgq.json_octets(oldest.data)) over upwards as bytes,
                   lead(oldest.id) over upwards as newer
              from (select posts.id, posts.at, posts.data, posts.topic, posts.message_id
                      from public.posts
                     where posts.id > "after"
                       and case when topics is null then true
                                when cardinality(topics) = 1 then posts.topic = topics[1]
                                else posts.topic = any (topics) end
                       and (pattern is null or posts.topic collate "C" ~ pattern)
                     order by posts.id
                     limit most) as oldest
            window upwards as (order by oldest.id rows unbounded preceding)) as post
     where post.place = 1 or post.bytes <= size
     order by post.id
$$;

alter function ngx_pgq.after(bigint, integer, integer, text[], text) owner to ngx_pgq_owner;
