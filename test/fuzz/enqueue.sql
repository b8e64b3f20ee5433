-- Used by test/fuzz/enqueue. Calls one of the three enqueue functions and compares the result of each message with the result
-- of the server's own casts.

create schema fuzz;

create table fuzz.sent (message_id uuid primary key, message text not null);

-- Returns the expected SQLSTATE of a message, '' if it must be accepted, '?' if both are possible: jsonb has limits that json
-- does not have, and does not check the text after them.
create function fuzz.expected(message text) returns text language plpgsql as $$
begin
    if message is null then
        return '22004';
    end if;

    begin
        perform message::jsonb;
        return '';
    exception when others then
        if sqlstate in ('22P02', '22P05') then
            return sqlstate;
        end if;
    end;

    perform message::json;
    return '?';
exception when others then
    return case when sqlstate like '54%' then '?' else sqlstate end;
end
$$;

-- Returns an upper limit of a message's levels: the number of opening brackets outside of strings.
create function fuzz.levels(message text) returns integer language sql as $$
    select length(bare) - length(translate(bare, '[{', ''))
    from regexp_replace(message, '"([^"\\]|\\.)*("|$)', '', 'g') as bare
$$;

-- Returns a row for each unexpected result. The messages are given in hexadecimal form.
create function fuzz.try(function_name text, given text[]) returns setof text language plpgsql as $$
declare
    messages text[] := array(select convert_from(decode(g, 'hex'), 'UTF8') from unnest(given) with ordinality as u (g, n) order by n);
    ids      uuid[] := array(select gen_random_uuid() from unnest(given));
    wanted   text;
    bad      boolean := false;
    result   record;
begin
    for result in
        select u.message, u.id, v.sqlstate, v.problem
        from unnest(messages, ids) with ordinality as u (message, id, n)
        left join fuzz.put(function_name, ids, messages) as v on v.ordinal = u.n
        order by u.n
    loop
        wanted := fuzz.expected(result.message);

        -- all or nothing: only the first bad message has a result
        if function_name = 'enqueue_all' and bad then
            wanted := '';
        end if;
        bad := bad or result.sqlstate is not null;

        if wanted <> '?' and coalesce(result.sqlstate, '') <> wanted
            and not (result.sqlstate = '54001' and fuzz.levels(result.message) > 100)
        then
            return next format('%s: "%s" instead of "%s": %s', function_name, result.sqlstate, wanted, result.message);
        end if;

        if result.sqlstate like '22P%' and coalesce((substring(result.problem from '^byte (\d+): .'))::integer not between 1
            and octet_length(result.message) + 1, true)
        then
            return next format('%s: "%s" of %s', function_name, result.problem, result.message);
        end if;

        if result.sqlstate is null and function_name <> 'enqueue_all' then
            insert into fuzz.sent values (result.id, result.message);
        end if;
    end loop;
end
$$;

create function fuzz.put(function_name text, ids uuid[], messages text[],
    out ordinal integer, out sqlstate text, out problem text) returns setof record language plpgsql as $$
begin
    if function_name = 'enqueue' then
        return query select * from ngx_pgq.enqueue(gen_random_uuid(), ids, messages);
    elsif function_name = 'enqueue_keyed' then
        return query select * from ngx_pgq.enqueue_keyed(gen_random_uuid(), ids, messages, array_fill(null::text, array[cardinality(ids)]));
    else
        return query select * from ngx_pgq.enqueue_all(gen_random_uuid(), ids[1], messages);
    end if;
end
$$;

-- Returns a row for each accepted message that is not in posts once.
create function fuzz.posts() returns setof text language sql as $$
    select format('%s is not in posts once, as it was sent: %s', message_id, message)
    from fuzz.sent
    left join (select message_id, array_agg(data::text) as data from posts group by 1) as p using (message_id)
    where p.data is distinct from array[message]
$$;
