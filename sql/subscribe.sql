-- ngx_pgq.subscribe(name, topics, start, parts): creates a subscription; returns whether it did. If it exists with the same
-- topics and parts, nothing is changed. It runs with the rights of ngx_pgq_owner. There are at most 1000 subscriptions, so
-- that a client that may create them cannot fill the database; a few more are possible if several are created at a time.
--
--   name    letters, digits and . _ - up to 63; the first is not . or -
--   topics  only posts with one of these topics, up to 64; null: all
--   start   only posts with greater ids; 0: from the oldest post; null: only posts that are not visible yet
--   parts   how many consumers can read at the same time, up to 64. The posts of a topic belong to one part

-- that of an older version returns nothing
select 'drop function ngx_pgq.subscribe(text, text[], bigint, integer)'
 where exists (select from pg_proc
                where oid = to_regprocedure('ngx_pgq.subscribe(text, text[], bigint, integer)') and prorettype = 'void'::regtype)
\gexec

create or replace function ngx_pgq.subscribe(
    name text, topics text[] default null, start bigint default null, parts integer default 1)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    newest  bigint := (select place.newest from ngx_pgq.position(0) as place);
    sorted  text[] := (select array_agg(distinct topic collate "C") from unnest(topics) as topic);
    existing  ngx_pgq.subscription;
begin
    if name is null or name collate "C" !~ '^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$' then
        raise exception 'name of a subscription is not valid'
            using errcode = 'invalid_parameter_value', hint = 'It has 1 to 63 letters, digits, ".", "_" or "-".';
    elsif cardinality(topics) = 0 or cardinality(sorted) > 64
          or exists (select from unnest(topics) as topic
                      where topic is null
                         or topic <> '' and (octet_length(topic) > 255 or
                                             topic collate "C" !~ '^(?!_)[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*$')) then
        raise exception 'topics of subscription "%" are not valid', name
            using errcode = 'invalid_parameter_value', hint = 'There are 1 to 64 topics. They are no patterns.';
    elsif parts is null or parts not between 1 and 64 then
        raise exception 'number of parts must be between 1 and 64' using errcode = 'invalid_parameter_value';
    elsif start not between 0 and newest then
        raise exception 'start must be between 0 and the newest post, %', newest using errcode = 'invalid_parameter_value';
    end if;

    -- If it is deleted between the two statements, it is created.
    loop
        insert into ngx_pgq.subscription values (name, sorted, parts) on conflict do nothing;
        if found then
            if (select count(*) > 1000 from ngx_pgq.subscription) then
                raise exception 'too many subscriptions'
                    using errcode = 'PQ507', detail = 'There are at most 1000.', hint = 'Delete those that no consumer needs.';
            end if;
            insert into ngx_pgq.progress (name, part, upto)
            select subscribe.name, part, coalesce(start, newest) from generate_series(1, parts) as part;
            return true;
        end if;
        select * into existing from ngx_pgq.subscription where subscription.name = subscribe.name;
        exit when found;
    end loop;
    if (existing.topics, existing.parts) is distinct from (sorted, parts) then
        raise exception 'subscription "%" exists with other topics or parts', name using errcode = 'PQ422';
    end if;
    return false;
end
$$;

comment on function ngx_pgq.subscribe(text, text[], bigint, integer) is
'create a subscription, unless it exists';

alter function ngx_pgq.subscribe(text, text[], bigint, integer) owner to ngx_pgq_owner;
