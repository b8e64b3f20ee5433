-- ngx_pgq.subscribe_json(name, body): subscribe() with its other arguments as members of a JSON object, for PUT of /sub. nginx
-- calls it. It runs with the rights of the caller.
--
--   topics  an array of strings; absent or null: all
--   start   an id, or "now"; absent or null: now
--   parts   a number; absent: 1

create or replace function ngx_pgq.subscribe_json(name text, body json)
returns boolean
language plpgsql
volatile
parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
begin
    perform ngx_pgq.check_members(body, '{topics,start,parts}');
    if json_typeof(body -> 'topics') not in ('array', 'null') then
        raise exception 'topics must be an array of strings' using errcode = 'invalid_parameter_value';
    end if;
    return ngx_pgq.subscribe(
        name,
        case when body ->> 'topics' is not null
             then array(select * from json_array_elements_text(body -> 'topics')) end,
        nullif(body ->> 'start', 'now')::bigint,
        case when body -> 'parts' is null then 1 else (body ->> 'parts')::integer end);
end
$$;

alter function ngx_pgq.subscribe_json(text, json) owner to ngx_pgq_owner;
