-- What the specs share: waiting for what the movers do, with an answer that is always the same.

create extension if not exists ngx_pgq;
create schema isolation;

-- True as soon as the query returns true; false if it has not within a quarter of a minute.
create function isolation.wait_for(query text) returns boolean language plpgsql as $$
declare
    deadline timestamptz := clock_timestamp() + interval '15 s';
    reached  boolean;
begin
    loop
        perform pg_stat_clear_snapshot();
        execute query into reached;
        if reached or clock_timestamp() > deadline then
            return coalesce(reached, false);
        end if;
        perform pg_sleep(0.005);
    end loop;
end
$$;

-- Whether this message becomes a post, and whether the movers have looked and left it: they have moved another meanwhile.
create function isolation.posted(message text) returns boolean language sql as $$
    select isolation.wait_for(format('select exists (select from public.posts where data::text = %L)', message))
$$;

-- What all see, in the order of ids.
create function isolation.posts() returns setof json language sql volatile as $$
    select data from public.posts order by id
$$;

-- The id of a batch, by its number in a permutation, and the messages of one, put in.
create table isolation.batch (number integer primary key, batch_id uuid not null);

create function isolation.batch(wanted integer) returns uuid language sql volatile as $$
    insert into isolation.batch values (wanted,
        (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
         || '7' || substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid)
        on conflict do nothing;
    select batch_id from isolation.batch where number = wanted
$$;

create function isolation.enqueue(variadic messages text[]) returns bigint language sql volatile as $$
    select count(*) from ngx_pgq.enqueue(gen_random_uuid(),
        (select array_agg(gen_random_uuid()) from unnest(messages)), messages)
$$;

-- What became of a message with a key, alone in its batch, whose id it has.
create function isolation.keyed(number integer, message text, key text) returns text language sql volatile as $$
    select coalesce((select sqlstate from ngx_pgq.enqueue_keyed(isolation.batch(number), array[isolation.batch(number)], array[message], array[key])), 'taken')
$$;

-- Whether there are movers. The setting is the specs' own: movers.
create function isolation.movers(number integer) returns boolean language sql as $$
    select isolation.wait_for(format(
        'select count(*) = %s from pg_stat_activity where backend_type = ''ngx_pgq mover''', number))
$$;

-- Movers that wait for a lock of another session.
create function isolation.mover_waits() returns boolean language sql as $$
    select isolation.wait_for('select exists (select from pg_stat_activity where backend_type = ''ngx_pgq mover''
                                               and wait_event_type = ''Lock'')')
$$;

-- Each permutation begins with nothing.
create function isolation.clean() returns void language plpgsql as $$
begin
    perform isolation.wait_for('select not exists (select from ngx_pgq.queue)');
    truncate public.posts, ngx_pgq.dead_letter, ngx_pgq.key, isolation.batch;
end
$$;
