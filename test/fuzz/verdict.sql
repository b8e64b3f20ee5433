-- What test/fuzz/verdict asks the server: a batch is put into the queue in one of the three ways, and each verdict is
-- compared with what the server's own casts say of the message.

create schema fuzz;

create table fuzz.sent (message_id uuid primary key, message text not null);

-- The SQLSTATE with which a message has to be refused; '' if it has to be taken; '?' if that cannot be told: jsonb has
-- limits that json has not, and what comes behind them is not looked at.
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

-- Levels that there may be at most: what opens one, outside of strings.
create function fuzz.levels(message text) returns integer language sql as $$
    select length(bare) - length(translate(bare, '[{', ''))
    from regexp_replace(message, '"([^"\\]|\\.)*("|$)', '', 'g') as bare
$$;

-- A row for each verdict that is not as it has to be; a message is given as the hexadecimal form of its bytes.
create function fuzz.try(way text, given text[]) returns setof text language plpgsql as $$
declare
    messages text[] := array(select convert_from(decode(g, 'hex'), 'UTF8') from unnest(given) with ordinality as u (g, n) order by n);
    ids      uuid[] := array(select gen_random_uuid() from unnest(given));
    wanted   text;
    bad      boolean := false;
    verdict  record;
begin
    for verdict in
        select u.message, u.id, v.sqlstate, v.problem
        from unnest(messages, ids) with ordinality as u (message, id, n)
        left join fuzz.put(way, ids, messages) as v on v.ordinal = u.n
        order by u.n
    loop
        wanted := fuzz.expected(verdict.message);

        -- all or nothing: it is the first bad one that is told
        if way = 'all' and bad then
            wanted := '';
        end if;
        bad := bad or verdict.sqlstate is not null;

        if wanted <> '?' and coalesce(verdict.sqlstate, '') <> wanted
            and not (verdict.sqlstate = '54001' and fuzz.levels(verdict.message) > 100)
        then
            return next format('%s: "%s" instead of "%s": %s', way, verdict.sqlstate, wanted, verdict.message);
        end if;

        if verdict.sqlstate like '22P%' and coalesce((substring(verdict.problem from '^byte (\d+): .'))::integer not between 1
            and octet_length(verdict.message) + 1, true)
        then
            return next format('%s: "%s" of %s', way, verdict.problem, verdict.message);
        end if;

        if verdict.sqlstate is null and way <> 'all' then
            insert into fuzz.sent values (verdict.id, verdict.message);
        end if;
    end loop;
end
$$;

create function fuzz.put(way text, ids uuid[], messages text[],
    out ordinal integer, out sqlstate text, out problem text) returns setof record language plpgsql as $$
begin
    if way = 'enqueue' then
        return query select * from ngx_pgq.enqueue(gen_random_uuid(), ids, messages);
    elsif way = 'keyed' then
        return query select * from ngx_pgq.enqueue_keyed(gen_random_uuid(), ids, messages, array_fill(null::text, array[cardinality(ids)]));
    else
        return query select * from ngx_pgq.enqueue_all(gen_random_uuid(), ids[1], messages);
    end if;
end
$$;

-- What is wrong with posts, at the end.
create function fuzz.posts() returns setof text language sql as $$
    select format('%s is not in posts once, as it was sent: %s', message_id, message)
    from fuzz.sent
    left join (select message_id, array_agg(data::text) as data from posts group by 1) as p using (message_id)
    where p.data is distinct from array[message]
$$;
