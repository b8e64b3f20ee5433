-- ngx_pgq.check_members(body, known): fails unless body is a JSON object of which each member has one of the known names.

create or replace function ngx_pgq.check_members(body json, known text[])
returns void
language plpgsql
stable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    unknown text;
begin
    if json_typeof(body) is distinct from 'object' then
        raise exception 'the request must be a JSON object' using errcode = 'invalid_parameter_value';
    end if;
    select member into unknown from json_object_keys(body) as member where member <> all (known) limit 1;
    if found then
        raise exception 'the member "%" is unknown; there are %', left(unknown, 64), array_to_string(known, ', ')
            using errcode = 'invalid_parameter_value';
    end if;
end
$$;

alter function ngx_pgq.check_members(json, text[]) owner to ngx_pgq_owner;
