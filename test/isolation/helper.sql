-- Functions that the specs share. They wait for the movers, so that the output of a spec is the same each time.

create extension if not exists ngx_pgq;
create schema isolation;

-- Returns true as soon as the query does, and false after 15 seconds.
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

-- Returns true when the message has become a post, and false after 15 seconds.
create function isolation.posted(message text) returns boolean language sql as $$
    select isolation.wait_for(format('select exists (select from public.posts where data::text = %L)', message))
$$;

-- Returns the posts in the order of their ids.
create function isolation.posts() returns setof json language sql volatile as $$
    select data from public.posts order by id
$$;

-- The batch ids that the steps of a permutation use, by number.
create table isolation.batch (number integer primary key, batch_id uuid not null);

create function isolation.batch(wanted integer) returns uuid language sql stable as $$
    select batch_id from isolation.batch where number = wanted
$$;

-- Enqueues messages as one batch and returns how many were refused.
create function isolation.enqueue(variadic messages text[]) returns bigint language sql volatile as $$
    select count(*) from ngx_pgq.enqueue(gen_random_uuid(),
        (select array_agg(gen_random_uuid()) from unnest(messages)), messages)
$$;

-- Enqueues one message with a key as the batch of that number. Returns 'accepted' or the SQLSTATE. The batch id is also
-- the message id.
create function isolation.keyed(number integer, message text, key text) returns text language sql volatile as $$
    select coalesce((select sqlstate from ngx_pgq.enqueue_keyed(isolation.batch(number), array[isolation.batch(number)], array[message], array[key])), 'accepted')
$$;

-- The ids of the posts that the consumer of this session gets from the subscription "s". It keeps its generation in a setting.
create function isolation.fetch(most integer default 2) returns text language plpgsql volatile as $$
declare
    fetched record;
begin
    select string_agg(id::text, ' ') as ids, max(generation) as generation into fetched
      from ngx_pgq.fetch('s', most, '1 h', 1, nullif(current_setting('isolation.generation', true), '')::bigint);
    perform set_config('isolation.generation', coalesce(fetched.generation::text, current_setting('isolation.generation', true)), false);
    return coalesce(fetched.ids, 'none');
end
$$;

-- Processes the posts 1 and 2: acknowledges them in the transaction of an effect.
create table isolation.effect (id bigint, consumer text);

create function isolation.process(consumer text, first bigint default null) returns text language plpgsql volatile as $$
begin
    insert into isolation.effect select id, process.consumer from generate_series(1, 2) as id;
    perform ngx_pgq.ack('s', 2, current_setting('isolation.generation')::bigint, first => process.first);
    return 'acknowledged';
end
$$;

-- Returns true when a mover waits for a lock of another session, and false after 15 seconds.
create function isolation.mover_waits() returns boolean language sql as $$
    select isolation.wait_for('select exists (select from pg_stat_activity where backend_type = ''ngx_pgq mover''
                                               and wait_event_type = ''Lock'')')
$$;

create procedure isolation.reload() language plpgsql as $$
begin
    perform pg_reload_conf();
end
$$;

-- Each permutation calls this first. It reloads the configuration, ends a pause, empties the tables and makes new batch
-- ids. With movers => false it waits until the movers have stopped. It is a procedure because CALL prints nothing.
create procedure isolation.clean(movers boolean default true) language plpgsql as $$
begin
    call isolation.reload();
    perform ngx_pgq.resume();
    if movers then
        perform isolation.wait_for('select not exists (select from ngx_pgq.queue)');
    else
        perform isolation.wait_for('select count(*) = 0 from pg_stat_activity where backend_type = ''ngx_pgq mover''');
        truncate ngx_pgq.queue;
    end if;
    truncate public.posts, ngx_pgq.dead_letter, ngx_pgq.key, isolation.batch;
    insert into isolation.batch
    select number,
           (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
            || '7' || substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid
      from generate_series(1, 5) as number;
end
$$;
