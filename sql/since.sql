-- ngx_pgq.since(time): the id after which the posts of a time begin, for GET /stream?since=. nginx calls it.
-- It runs with the rights of the caller, who needs SELECT on posts.
--
--   time  the id is that before the first post that is not older. If all are older, it is the greatest id
--
-- Posts are not strictly in the order of time: a dead letter that was retried has an old time and a new id. Therefore the
-- smallest id of all posts that are not older is found, by an index on at: see ngx_pgq.time_index(). Without one it fails.

create or replace function ngx_pgq.since("time" timestamptz)
returns bigint
language plpgsql
stable
strict
parallel safe
as $$
begin
    if not exists (select
                     from pg_catalog.pg_index
                     join pg_catalog.pg_attribute on attrelid = indrelid and attnum = indkey[0]
                    where indrelid = 'public.posts'::regclass and attname = 'at' and indisvalid and indpred is null) then
        raise exception 'public.posts has no index on at'
            using errcode = 'object_not_in_prerequisite_state', hint = 'Call ngx_pgq.time_index().';
    end if;
    -- without OFFSET the planner would look for the minimum in the index on id
    return coalesce((select min(later.id) - 1
                       from (select posts.id from public.posts where posts.at >= since."time" offset 0) as later),
                    (select place.newest from ngx_pgq.position(0) as place));
end
$$;

alter function ngx_pgq.since(timestamptz) owner to ngx_pgq_owner;
