-- ngx_pgq.part(topic, parts): the part, from 1 to parts, to which the posts of a topic belong. fetch() calls it.
-- It must never return another number: consumers would miss posts. hashtextextended() does not change, as tables that are
-- partitioned by hash depend on it. All posts without a topic belong to one part.

create or replace function ngx_pgq.part(topic text, parts integer)
returns integer
language sql
immutable
strict
parallel safe
as $$
    select (1 + (pg_catalog.hashtextextended(topic collate "C", 0) & 9223372036854775807) % parts)::integer
$$;

alter function ngx_pgq.part(text, integer) owner to ngx_pgq_owner;
