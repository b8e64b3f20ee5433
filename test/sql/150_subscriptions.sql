-- A consumer of a subscription fetches each post in the order of ids, acknowledges it, and loses its part to another consumer
-- when its lease has ended.

\ir helper.psql

select plan(72);

-- What a fetch returns: the ids, or those of one part and its generation.
create function pg_temp.ids(name text, most integer default 100, lease interval default '1 h', part integer default null, generation bigint default null)
returns bigint[] language sql volatile as $$
    select array_agg(id) from ngx_pgq.fetch(name, most, lease, part, generation)
$$;
create function pg_temp.generation(name text, part integer default 1) returns bigint language sql volatile as $$
    select generation from ngx_pgq.subscriptions as s where s.name = generation.name and s.part = generation.part
$$;
-- The state of a part, as text: upto, whether it is leased, the number of updates.
create function pg_temp.state(name text, part integer default 1) returns text language sql volatile as $$
    select format('%s %s %s', p.upto, case when p.until > clock_timestamp() then 'leased' else 'free' end, p.turn)
      from ngx_pgq.progress as p where p.name = state.name and p.part = state.part
$$;
create function pg_temp.end_lease(name text, part integer default 1) returns void language sql volatile as $$
    update ngx_pgq.progress as p set until = '2020-01-01' where p.name = end_lease.name and p.part = end_lease.part
$$;

truncate ngx_pgq.subscription, ngx_pgq.progress;
select setval('ngx_pgq.removed', 0) \g /dev/null
insert into posts (id, at, message_id, data, topic)
    select i, now() - interval '1 min', ('00000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid, to_json(i), (array['a', 'b', ''])[i % 3 + 1]
      from generate_series(1, 30) as i;

-- ---- subscribe
select is(ngx_pgq.subscribe('new'), true, 'a subscription is created');
select is(pg_temp.state('new'), '30 free 0', 'it starts behind the newest post');
select lives_ok($$select ngx_pgq.subscribe('old', start => 0)$$, 'a subscription is created that starts at the oldest post');
select is(pg_temp.state('old'), '0 free 0', 'its position is before all posts');
select lives_ok($$select ngx_pgq.subscribe('middle', start => 20)$$, 'a subscription is created that starts after an id');
select is(pg_temp.ids('middle', 3), '{21,22,23}', 'its first post is that after the id');
select is(ngx_pgq.subscribe('middle'), false, 'the same subscription may be created again');
select is(pg_temp.state('middle'), '20 leased 1', 'this changes nothing');
select lives_ok($$select ngx_pgq.subscribe('two', '{b,a,b}', 0)$$, 'a subscription to topics is created');
select lives_ok($$select ngx_pgq.subscribe('two', '{a,b}')$$, 'the order of topics does not matter');
select throws_ok($$select ngx_pgq.subscribe('two', '{a}')$$, 'PQ422', 'subscription "two" exists with other topics or parts', 'the same name with other topics fails');
select throws_ok($$select ngx_pgq.subscribe('two')$$, 'PQ422', null, 'the same name without topics fails');
select throws_ok($$select ngx_pgq.subscribe('middle', parts => 2)$$, 'PQ422', null, 'the same name with other parts fails');
select throws_ok(format('select ngx_pgq.subscribe(%L)', name), '22023', 'name of a subscription is not valid', format('the name "%s" is refused', left(name, 9)))
  from unnest(array['', '.', '..', '-a', 'a/b', 'a b', 'ä', repeat('a', 64), null]) as name;
select lives_ok(format('select ngx_pgq.subscribe(%L)', name), format('the name "%s" is accepted', left(name, 9)))
  from unnest(array['a', '7', '_', 'A.b-c_1', repeat('z', 63)]) as name;
select throws_ok(format('select ngx_pgq.subscribe(%L, %L)', 'bad', topics), '22023', null, format('the topics %s are refused', left(topics, 9)))
  from unnest(array['{}', '{NULL}', '{a,/}', '{_a}', '{a//b}', '{a/*}', '{ä}', '{' || repeat('a', 256) || '}',
                    (select array_agg(i)::text from generate_series(1, 65) as i)]) as topics;
select throws_ok(format('select ngx_pgq.subscribe(%L, parts => %s)', 'bad', parts), '22023', null, format('%s parts are refused', parts))
  from unnest(array['0', '65', 'null']) as parts;
select throws_ok(format('select ngx_pgq.subscribe(%L, start => %s)', 'bad', start), '22023', null, format('the start %s is refused', start))
  from unnest(array['-1', '31']) as start;
select is((select count(*) from ngx_pgq.subscription where name = 'bad'), 0::bigint, 'a refused subscription does not exist');

-- ---- fetch and ack
select results_eq($$select part, generation is not null, id, message_id, topic, data::text from ngx_pgq.fetch('old', 2)$$,
    $$values (1, true, 1::bigint, '00000000-0000-4000-8000-000000000001'::uuid, 'b', '1'), (1, true, 2, '00000000-0000-4000-8000-000000000002', '', '2')$$,
    'a fetch returns the first posts as they are in posts');
select is(pg_temp.state('old'), '0 leased 1', 'it takes a lease by one update');
select is(pg_temp.ids('old'), null, 'another consumer gets no post');
select is(pg_temp.ids('old', 3, generation => pg_temp.generation('old')), '{1,2,3}', 'the holder of the lease gets the posts again');
select is(pg_temp.state('old'), '0 leased 1', 'neither call updates anything');
select lives_ok($$select ngx_pgq.ack('old', 2, pg_temp.generation('old'), first => 1)$$, 'the holder acknowledges');
select is(pg_temp.state('old'), '2 leased 2', 'this is one update');
select is(pg_temp.ids('old', 3, generation => pg_temp.generation('old')), '{3,4,5}', 'the holder gets the next posts');
select lives_ok($$select ngx_pgq.ack('old', 2, pg_temp.generation('old'))$$, 'an acknowledgement may be repeated');
select throws_ok($$select ngx_pgq.ack('old', 5, pg_temp.generation('old'), first => 2)$$, 'PQ412', 'post 2 of subscription "old" is acknowledged already',
    'it fails if the first post that was processed is acknowledged already');
select lives_ok($$select ngx_pgq.ack('old', 1, pg_temp.generation('old'))$$, 'an earlier post may be acknowledged');
select is(pg_temp.state('old'), '2 leased 4', 'it does not move the position back');

select pg_temp.generation('old') as first \gset
select pg_temp.end_lease('old') \g /dev/null
select is(pg_temp.ids('old', 1, generation => :first), '{3}', 'a holder whose lease has ended gets posts if no other consumer has taken the part');
select is(pg_temp.state('old') || ' ' || (pg_temp.generation('old') = :first), '2 leased 5 true', 'its lease is renewed by one update');
select pg_temp.end_lease('old') \g /dev/null
select lives_ok(format('select ngx_pgq.ack(%L, 3, %s)', 'old', :first), 'such a holder can acknowledge');
select is(pg_temp.state('old'), '3 leased 6', 'the acknowledgement renews its lease');
select pg_temp.end_lease('old') \g /dev/null
select is(pg_temp.ids('old', 2), '{4,5}', 'another consumer takes the part after the end of the lease');
select throws_ok(format('select ngx_pgq.ack(%L, 5, %s)', 'old', :first), 'PQ410', 'part 1 of subscription "old" was taken by another consumer', 'the first consumer cannot acknowledge any more');
select throws_ok(format('select ngx_pgq.fetch(%L, part => 1, generation => %s)', 'old', :first), 'PQ410', null, 'nor fetch');
select is(pg_temp.state('old'), '3 leased 7', 'its calls change nothing');
select lives_ok($$select ngx_pgq.ack('old', 30, pg_temp.generation('old'), release => true)$$, 'a consumer acknowledges all posts and releases the part');
select is(pg_temp.state('old'), '30 free 8', 'the part is free');
select is(pg_temp.ids('old'), null, 'a fetch returns nothing when all posts are acknowledged');
select is(pg_temp.ids('old', generation => pg_temp.generation('old')), null, 'also with the generation');
select is(pg_temp.state('old'), '30 free 8', 'it updates nothing');

-- ---- created again
select pg_temp.generation('old') as first \gset
select is(ngx_pgq.unsubscribe('old'), true, 'a subscription is deleted');
select is((select count(*) from ngx_pgq.progress where name = 'old'), 0::bigint, 'its position is deleted');
select is(ngx_pgq.unsubscribe('old'), false, 'it does not exist any more');
select ngx_pgq.subscribe('old', start => 0) \g /dev/null
select throws_ok(format('select ngx_pgq.ack(%L, 30, %s)', 'old', :first), 'PQ410', null, 'a consumer of the deleted subscription is not one of the new one');
select isnt((select max(generation) from ngx_pgq.fetch('old', 1)), :first::bigint, 'the new one does not give the old generations again');
select * from finish();
