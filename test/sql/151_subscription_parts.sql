-- Subscriptions with topics and parts: each post belongs to one part, posts of others are passed once. Errors, rights and the
-- view of subscriptions.

\ir helper.psql

select plan(65);

create function pg_temp.ids(name text, most integer default 100, part integer default null) returns bigint[] language sql volatile as $$
    select array_agg(id) from ngx_pgq.fetch(name, most, '1 h', part)
$$;
create function pg_temp.state(name text, part integer default 1) returns text language sql volatile as $$
    select format('%s %s %s', p.upto, case when p.until > clock_timestamp() then 'leased' else 'free' end, p.turn)
      from ngx_pgq.progress as p where p.name = state.name and p.part = state.part
$$;
create function pg_temp.ack(name text, upto bigint, part integer default 1) returns void language sql volatile as $$
    select ngx_pgq.ack(name, upto, (select generation from ngx_pgq.subscriptions as s where s.name = ack.name and s.part = ack.part), part, true)
$$;

truncate ngx_pgq.subscription, ngx_pgq.progress;
select setval('ngx_pgq.removed', 0) \g /dev/null
insert into posts (id, at, message_id, data, topic)
    select i, now() - interval '50 s', gen_random_uuid(), to_json(i), case i % 3 when 0 then '' else 't/' || i % 20 end from generate_series(1, 900) as i;

-- ---- topics
select ngx_pgq.subscribe('topics', '{t/1,t/2}', 0), ngx_pgq.subscribe('none', '{""}', 0), ngx_pgq.subscribe('rare', '{rare}', 0) \g /dev/null
select is(pg_temp.ids('topics', 1000), (select array_agg(id order by id) from posts where topic in ('t/1', 't/2')), 'a subscription to topics has their posts, in the order of ids');
select is(pg_temp.ids('none', 1000), (select array_agg(id order by id) from posts where topic = ''), 'a subscription to the empty topic has the posts without a topic');
select is(pg_temp.ids('rare'), null, 'a topic may have no post');
select is(pg_temp.state('rare'), '0 free 0', 'few posts of other topics are passed without an update');
select ngx_pgq.subscribe('slow', '{rare}', 899) \g /dev/null
update posts set at = at - interval '15 s' where id = 900;
select is(pg_temp.ids('slow'), null, 'there is no post a minute later either');
select is(pg_temp.state('slow'), '900 free 1', 'a post that is a minute old is passed by an update, so that it does not count as lag');
insert into posts (id, at, message_id, data, topic) select i, now(), gen_random_uuid(), to_json(i), 'other' from generate_series(901, 1000) as i;
select is(pg_temp.ids('rare'), null, 'there is still no post of the topic');
select is(pg_temp.state('rare'), '1000 free 1', '1000 posts of other topics are passed by one update');
insert into posts (id, at, message_id, data, topic) select i, now(), gen_random_uuid(), to_json(i), 'other' from generate_series(1001, 1010) as i;
insert into posts (id, at, message_id, data, topic) values (1011, now(), gen_random_uuid(), '1', 'rare');
select is(pg_temp.ids('rare'), '{1011}', 'the first post of the topic is found');
select is(pg_temp.state('rare'), '1010 leased 2', 'the posts before it are passed by the update of the lease');
insert into posts (id, at, message_id, data, topic) select i, now(), gen_random_uuid(), '1', 'many' from generate_series(1012, 100500) as i;
select ngx_pgq.subscribe('many', '{rare,last}', 1011) \g /dev/null
insert into posts (id, at, message_id, data, topic) values (200000, now(), gen_random_uuid(), '1', 'last');
select is(pg_temp.ids('many'), '{200000}', 'a call passes 100,000 posts');
select ngx_pgq.subscribe('more', '{last}', 0) \g /dev/null
select is(pg_temp.ids('more'), null, 'a call passes no more than that');
select is(pg_temp.state('more'), '100000 free 1', 'it passes them by one update');
select is(pg_temp.ids('more'), '{200000}', 'the next call continues there');
select pg_temp.ack('rare', 1011) \g /dev/null
select is(array_length(pg_temp.ids('more', 1, 1), 1), null, 'a leased part has no posts for another consumer');
delete from posts where id > 900;

-- ---- parts
select is((select array_agg(ngx_pgq.part(topic, 4)) from unnest(array['', 'a', 'b', 'a/b', 'orders/7', '~', repeat('x', 255)]) as topic),
    '{2,2,1,4,3,4,4}', 'the part of a topic never changes');
select is((select count(distinct ngx_pgq.part('t/' || i, 64)) from generate_series(1, 2000) as i), 64::bigint, 'topics are distributed over all parts');
select ngx_pgq.subscribe('parts', start => 0, parts => 4) \g /dev/null
create temporary table seen as select n, fetched.* from generate_series(1, 5) as n, ngx_pgq.fetch('parts', 1000 + n, '1 h') as fetched;
select is((select array_agg(distinct part) from seen), '{1,2,3,4}', 'each call without a part takes another one');
select is((select array_agg(id order by id) from seen), (select array_agg(id order by id) from posts), 'all parts together have each post once');
select is((select count(*) from (select topic from seen group by topic having count(distinct part) > 1) as split), 0::bigint, 'the posts of a topic belong to one part');
select is((select count(distinct n) from seen), 4::bigint, 'a fifth consumer gets nothing');
select pg_temp.ack('parts', 900, 2) \g /dev/null
select is((select array_agg(pg_temp.state('parts', part)) from generate_series(1, 4) as part), '{1 leased 1,900 free 2,0 leased 1,4 leased 1}', 'one part is acknowledged and released, no other');

-- ---- retention
select ngx_pgq.subscribe('deleted', start => 0) \g /dev/null
delete from posts where id <= 890;
select setval('ngx_pgq.removed', 890) \g /dev/null
insert into posts (id, at, message_id, data, topic) values (5, 'infinity', gen_random_uuid(), '1', '');
select is(pg_temp.ids('deleted', 3), '{891,892,893}', 'a subscription goes on after posts that were deleted');
select results_eq($$select part, topics, upto, lag, oldest_seconds > 49, generation > 0, leased_until > now() from ngx_pgq.subscriptions where name = 'deleted'$$,
    $$values (1, null::text[], 890::bigint, 10::bigint, true, true, true)$$, 'the view shows how many posts follow, and the age of the first');
select pg_temp.ack('deleted', 900) \g /dev/null
select results_eq($$select upto, lag, oldest_seconds, leased_until from ngx_pgq.subscriptions where name = 'deleted'$$,
    $$values (900::bigint, 0::bigint, 0::numeric, null::timestamptz)$$, 'a subscription without new posts has no lag');
select is((select array_agg(format('%s %s', part, lag)) from ngx_pgq.subscriptions where name = 'parts'), '{1 10,2 0,3 10,4 10}', 'the view has a row for each part');
select is((select topics from ngx_pgq.subscriptions where name = 'topics'), '{t/1,t/2}', 'it shows the topics');
delete from posts;
select setval('ngx_pgq.removed', 900) \g /dev/null
select is((select sum(lag + oldest_seconds) from ngx_pgq.subscriptions), 0::numeric, 'there is no lag when all posts were deleted');
insert into posts (id, at, message_id, data) values (901, 'infinity', gen_random_uuid(), '1');
select is((select lag::text || ' ' || oldest_seconds from ngx_pgq.subscriptions where name = 'deleted'), '1 0', 'the time of a post may be infinite');

-- ---- errors
select throws_ok($$select ngx_pgq.fetch('missing')$$, 'PQ404', 'subscription "missing" does not exist', 'a fetch of an unknown subscription fails');
select throws_ok($$select ngx_pgq.ack('missing', 1, 1)$$, 'PQ404', null, 'an acknowledgement of an unknown subscription fails');
select throws_ok($$select ngx_pgq.ack('parts', 1, 1, 5)$$, 'PQ404', null, 'an acknowledgement of an unknown part fails');
select throws_ok($$select ngx_pgq.ack('parts', 902, 1)$$, '22023', 'upto must be between 0 and the newest post, 901', 'an id that no post has yet cannot be acknowledged');
select throws_ok(format('select ngx_pgq.fetch(%L, %s)', 'parts', arguments), '22023', null, format('fetch() refuses %s', arguments))
  from unnest(array['0', '10001', 'null', 'lease => null', 'lease => ''0''', 'lease => ''1 day 1 s''', 'part => 0', 'part => 5', 'generation => 1']) as arguments;
select throws_ok(format('select ngx_pgq.ack(%L, %s)', 'parts', arguments), '22023', null, format('ack() refuses %s', arguments))
  from unnest(array['-1, 1', 'null, 1', '1, null', '1, 1, release => null']) as arguments;

-- ---- the number of subscriptions
insert into ngx_pgq.subscription select 'many-' || i, null, 1 from generate_series(1, 999 - (select count(*) from ngx_pgq.subscription)) as i;
select lives_ok($$select ngx_pgq.subscribe('thousandth')$$, 'the thousandth subscription is created');
select throws_ok($$select ngx_pgq.subscribe('next')$$, 'PQ507', 'too many subscriptions', 'the next one is refused');
select lives_ok($$select ngx_pgq.subscribe('thousandth')$$, 'one that exists may be created again');
select is(ngx_pgq.unsubscribe('thousandth'), true, 'one is deleted');
select lives_ok($$select ngx_pgq.subscribe('next')$$, 'another one is created');
delete from ngx_pgq.subscription where subscription.name = 'next' or subscription.name like 'many-%';

-- ---- rights
create role ngx_pgq_test_consumer in role ngx_pgq_consumer;
set role ngx_pgq_test_consumer;
select lives_ok($$select ngx_pgq.subscribe('mine', start => 900)$$, 'a consumer may subscribe');
select lives_ok($$select ngx_pgq.ack('mine', id, generation) from ngx_pgq.fetch('mine')$$, 'a consumer may fetch and acknowledge');
select is(ngx_pgq.unsubscribe('mine'), true, 'a consumer may delete a subscription');
select throws_ok('select * from ' || name, '42501', null, 'a consumer may not read ' || name)
  from unnest(array['posts', 'ngx_pgq.subscription', 'ngx_pgq.progress', 'ngx_pgq.subscriptions', 'ngx_pgq.queue']) as name;
select throws_ok($$insert into ngx_pgq.queue (data) values ('1')$$, '42501', null, 'a consumer may not insert into the queue');
reset role;
set role ngx_pgq_web;
select lives_ok($$select ngx_pgq.fetch_json('parts', 1, 1)$$, 'nginx may fetch');
select throws_ok('table ngx_pgq.progress', '42501', null, 'nginx may not read positions');
reset role;
set role ngx_pgq_producer;
select throws_ok($$select ngx_pgq.fetch('parts')$$, '42501', null, 'a producer may not fetch');
reset role;
set role pg_monitor;
select lives_ok('select * from ngx_pgq.subscriptions', 'pg_monitor may read the view');
reset role;

-- ---- the owner of posts may be another role
create role ngx_pgq_test_posts;
alter table posts owner to ngx_pgq_test_posts;
\ir ../../sql/grants.sql
select lives_ok($$select ngx_pgq.fetch('deleted')$$, 'a consumer can fetch if posts has another owner');
alter table posts owner to ngx_pgq_owner;
drop role ngx_pgq_test_posts, ngx_pgq_test_consumer;
truncate ngx_pgq.subscription, ngx_pgq.progress;
select * from finish();
