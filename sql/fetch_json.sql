-- ngx_pgq.fetch_json(name, most, lease, part, generation, size): the posts of fetch() in the form of after(), for GET of /sub.
-- nginx calls it. It runs with the rights of the caller.
--
--   lease  in seconds
--   size   the maximum number of bytes of the posts' data; the first post is returned in any case. Posts that are left out
--          belong to the lease, and are returned again until they are acknowledged
--
-- The other parameters: fetch.sql. The form of the columns: recent.sql. It is in PL/pgSQL, which keeps the plan: a function in
-- SQL would be planned for each call.

create or replace function ngx_pgq.fetch_json(
    name text, most integer, lease integer, part integer default null, generation bigint default null,
    size integer default 1048576)
returns table (id bigint, at text, data json, topic text, in_part integer, in_generation bigint)
language plpgsql
volatile
parallel unsafe
rows 100
set plan_cache_mode = force_generic_plan
as $$
begin
    return query
    select post.id,
           case when post.at >= '0001-01-01 00:00:00Z' and post.at < '10000-01-01 00:00:00Z'
                then to_char(post.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') end,
           ngx_pgq.json_utf8(post.data),
           post.topic,
           post.part,
           post.generation
      from (select next.*,
                   row_number() over upwards as place,
                   sum(ngx_pgq.json_octets(next.data)) over upwards as bytes
              from ngx_pgq.fetch(fetch_json.name, most, make_interval(secs => lease), fetch_json.part,
                                 fetch_json.generation) as next
            window upwards as (order by next.id rows unbounded preceding)) as post
     where post.place = 1 or post.bytes <= size
     order by post.id;
end
$$;

alter function ngx_pgq.fetch_json(text, integer, integer, integer, bigint, integer) owner to ngx_pgq_owner;
