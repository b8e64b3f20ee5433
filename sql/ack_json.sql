-- ngx_pgq.ack_json(name, body): ack() with its other arguments as members of a JSON object, for POST of /sub/<name>/ack.
-- nginx calls it. It runs with the rights of the caller.
--
--   upto, generation, part, release   as those of ack(); absent: their default. There is no first: with it a call whose
--   outcome is unknown could not be repeated

create or replace function ngx_pgq.ack_json(name text, body json)
returns void
language plpgsql
volatile
parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
begin
    perform ngx_pgq.check_members(body, '{upto,generation,part,release}');
    perform ngx_pgq.ack(
        name,
        (body ->> 'upto')::bigint,
        (body ->> 'generation')::bigint,
        coalesce((body ->> 'part')::integer, 1),
        coalesce((body ->> 'release')::boolean, false));
end
$$;

alter function ngx_pgq.ack_json(text, json) owner to ngx_pgq_owner;
