-- With several movers and several sessions, ids are in commit order: when a reader has seen an id, no post with a smaller
-- id appears later. Each message is posted once.

\ir helper.psql
create extension if not exists dblink;

select plan(8);

alter system set ngx_pgq.movers = 4;
alter system set ngx_pgq.batch_size = 50;
select pg_reload_conf() as reloaded \gset
select ok(pg_temp.wait_for($$select count(*) = 4 from ngx_pgq.status where state in ('idle', 'moving')$$), 'four movers start');

create table public.test_sent (message_id uuid);

-- Six sessions enqueue 500 batches of ten messages each. Each batch is a transaction.
create procedure public.test_send(rounds integer) language plpgsql as $$
declare
    ids uuid[];
begin
    for round in 1..rounds loop
        ids := array(select gen_random_uuid() from generate_series(1, 10));
        insert into public.test_sent select unnest(ids);
        perform ngx_pgq.enqueue(gen_random_uuid(), ids, array_fill('"ordered"'::text, array[10]));
        commit;
    end loop;
end
$$;

select count(dblink_connect('sender' || n, pg_temp.here())) as connected from generate_series(1, 6) as n \gset
select count(dblink_send_query('sender' || n, 'call public.test_send(500)')) as sent from generate_series(1, 6) as n \gset

-- Counts posts that appear with an id smaller than one that was seen, until all messages are posted.
create function pg_temp.late_posts() returns bigint language plpgsql as $$
declare
    seen     bigint := 0;
    below    bigint := 0;
    late     bigint := 0;
    deadline timestamptz := clock_timestamp() + interval '60 s';
begin
    loop
        late := late + (select count(*) from posts where id <= seen) - below;
        exit when clock_timestamp() > deadline
            or (select count(*) from posts where data::text = '"ordered"') >= 30000;
        select max(id), count(*) into seen, below from posts;
        perform pg_sleep(0.005);
    end loop;
    return late;
end
$$;

select is(pg_temp.late_posts(), 0::bigint, 'no post appears with an id smaller than one that was seen');
select count(*) as done
  from generate_series(1, 6) as n, lateral dblink_get_result('sender' || n) as result (status text) \gset
select count(dblink_disconnect('sender' || n)) as disconnected from generate_series(1, 6) as n \gset

select is((select count(*) from posts where data::text = '"ordered"'), 30000::bigint, 'all messages are posted');
select is((select count(*) from public.test_sent
            where not exists (select from posts where posts.message_id = test_sent.message_id)), 0::bigint, 'no message is lost');
select is((select count(*) from (select message_id from posts group by message_id having count(*) > 1) as twice), 0::bigint,
          'no message is posted twice');

alter system reset ngx_pgq.movers;
alter system reset ngx_pgq.batch_size;
select pg_reload_conf() as reloaded \gset
select ok(pg_temp.wait_for($$select count(*) = 1 from ngx_pgq.status where pid is not null$$), 'movers stop when ngx_pgq.movers is reduced');
select is((select count(*) from ngx_pgq.status where state = 'stopped'), 3::bigint, 'the status shows the other movers as stopped');

-- Messages of all lengths. A short message would fit into the free space of a block that was too small for a long one.
truncate posts;
create procedure public.test_lengths() language plpgsql as $body$
begin
    for round in 1..4 loop
        perform ngx_pgq.enqueue(gen_random_uuid(), array_agg(gen_random_uuid()), array_agg(to_json(repeat('x', n))::text order by n))
           from generate_series(1, 1500) as n;
        commit;
        perform pg_temp.wait_for($$select count(*) = 0 from ngx_pgq.queue$$);
    end loop;
end
$body$;
call public.test_lengths();
select is(count(*), 0::bigint, 'the messages of a batch keep their order')
  from (select length(data::text) - lag(length(data::text)) over (order by id) as step from posts) as post
 where step not in (1, -1499);

drop procedure public.test_send(integer);
drop procedure public.test_lengths();
drop table public.test_sent;
select * from finish();
