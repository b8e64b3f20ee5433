-- A message may carry a topic. It comes with the message from enqueue() or an INSERT to the post or the dead letter, and back
-- by a retry. A bad topic is refused, and does not affect the other messages of the batch.

\ir helper.psql

select plan(65);

-- The topics of posts whose data are strings that begin with this prefix, in the order of their data.
create function pg_temp.topics(prefix text) returns text language sql as $$
    select string_agg(topic, ' ' order by data::text) from posts where data::text like '"' || prefix || '%'
$$;

-- Returns the SQLSTATE of a topic's check by enqueue(), and by the constraint of the queue; null if it is accepted.
create function pg_temp.by_enqueue(topic text) returns text language plpgsql as $$
begin
    return (select sqlstate from ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(1), array['1'], array[topic]));
end
$$;
create function pg_temp.by_insert(topic text) returns text language plpgsql as $$
begin
    insert into ngx_pgq.queue (data, topic) values ('1', topic);
    return null;
exception when others then
    return sqlstate;
end
$$;

-- ---- from enqueue() to the post
select results_eq($$select ordinal, sqlstate from ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(4),
                       array['"batch 1"', '"batch 2"', '"batch 3"', '"batch 4"'], array['a/b', null, '', 'c/'])$$,
    $$values (4, '22023')$$, 'enqueue() refuses a message with a bad topic');
select ok(pg_temp.wait_for($$select count(*) = 3 from posts where data::text like '"batch%'$$), 'the other messages become posts');
select is(pg_temp.topics('batch'), 'a/b  ', 'a post has the topic of its message, or an empty one');
select is_empty($$select * from ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(1), array['"none"'])$$, 'enqueue() without topics accepts a message');
select is_empty($$select * from ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(1), array['"nothing"'], null)$$, 'enqueue() accepts null for topics');
select is_empty($$select * from ngx_pgq.enqueue_keyed(pg_temp.uuid7(), pg_temp.ids(2), array['"keyed 1"', '"keyed 2"'], array['topics 1', null], array['k', 'l'])$$,
    'enqueue_keyed() accepts messages with topics');
select is_empty($$select * from ngx_pgq.enqueue_all(pg_temp.uuid7(), gen_random_uuid(), array['"all 1"', '"all 2"'], null, 'x/y.z')$$,
    'enqueue_all() accepts a request with a topic');
select is_empty($$select * from ngx_pgq.enqueue_all(pg_temp.uuid7(), gen_random_uuid(), array['"null"'], null, null)$$,
    'enqueue_all() accepts null as the topic');
select results_eq($$select ordinal, sqlstate from ngx_pgq.enqueue_all(pg_temp.uuid7(), gen_random_uuid(), array['"bad"'], 'topics bad', '/')$$,
    $$values (0, '22023')$$, 'enqueue_all() refuses a request with a bad topic');
select is_empty($$select * from ngx_pgq.enqueue_all(pg_temp.uuid7(), gen_random_uuid(), array['"good"'], 'topics bad', 'good')$$,
    'the key of a request with a bad topic can be used for the corrected one');
insert into ngx_pgq.queue (data, topic) values ('"outbox"', 'orders/7');
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"outbox"')$$), 'a message with a topic that was inserted becomes a post');
select is(pg_temp.topics('no'), ' ', 'messages that were enqueued without topics have an empty one');
select is(pg_temp.topics('keyed'), 'k l', 'enqueue_keyed() sets the topic of each message');
select is(pg_temp.topics('all'), 'x/y.z x/y.z', 'enqueue_all() sets the topic of all messages');
select is(pg_temp.topics('null'), '', 'a request with a null topic has an empty one');
select is(pg_temp.topics('outbox'), 'orders/7', 'an INSERT sets the topic');
select throws_ok($$select ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(2), '{1,2}', '{a}')$$, '22023', 'batch has 2 messages but 1 topics',
    'enqueue() fails if the number of topics differs from that of the messages');

-- ---- the syntax. The movers are paused, so that the rows of INSERT can be rolled back.
begin;
select is(pg_temp.by_enqueue(good) || pg_temp.by_insert(good), null, 'accepted: ' || left(good, 20))
  from unnest(array['a', 'A/z/0', '.', '~-._', 'a_', 'a/_b', repeat('x', 255), repeat('a/', 127) || 'b']) as good;
select is(pg_temp.by_enqueue(bad) || ' ' || pg_temp.by_insert(bad), '22023 23514', 'refused: ' || left(bad, 20))
  from unnest(array['/', '/a', 'a/', 'a//b', '_', '_a/b', 'a b', E'a\n', 'ä', 'a*', '**', 'a?', 'a%2f', 'a,b', repeat('x', 256)]) as bad;
-- Each ASCII character is accepted or refused by both checks, inside a topic and as a topic.
select is(string_agg(chr(i), '' order by i) filter (where pg_temp.by_enqueue('a' || chr(i) || 'b') is null), '-./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~',
    'enqueue() accepts these characters') from generate_series(1, 127) as i;
select is(count(*), 0::bigint, 'the constraint of the queue refuses what enqueue() refuses, and nothing else')
  from generate_series(1, 127) as i, unnest(array['a' || chr(i) || 'b', chr(i), chr(i) || 'a', 'a' || chr(i)]) as topic
 where (pg_temp.by_enqueue(topic) is null) <> (pg_temp.by_insert(topic) is null);
rollback;

-- ---- idempotency keys
create function pg_temp.keyed(key text, topic text) returns text language sql as $$
    select coalesce((select sqlstate from ngx_pgq.enqueue_keyed(pg_temp.uuid7(), pg_temp.ids(1), array['"key"'], array[key], array[topic])), 'accepted')
$$;
create function pg_temp.keyed_all(key text, topic text) returns text language sql as $$
    select coalesce((select sqlstate from ngx_pgq.enqueue_all(pg_temp.uuid7(), gen_random_uuid(), array['"key"'], key, topic)), 'accepted')
$$;
select is(array[pg_temp.keyed('topics 2', 'a'), pg_temp.keyed('topics 2', 'a'), pg_temp.keyed('topics 2', 'b'), pg_temp.keyed('topics 2', '')],
          array['accepted', 'PQ200', 'PQ422', 'PQ422'], 'a key belongs to the message with its topic');
select is(array[pg_temp.keyed_all('topics 3', 'a'), pg_temp.keyed_all('topics 3', 'a'), pg_temp.keyed_all('topics 3', 'b'), pg_temp.keyed_all('topics 3', '')],
          array['accepted', 'PQ200', 'PQ422', 'PQ422'], 'the key of a request belongs to the messages with their topic');
select is(array[pg_temp.keyed('topics 4', ''), pg_temp.keyed_all('topics 5', '')], array['accepted', 'accepted'], 'messages without topics take keys');
select is((select count(*) from ngx_pgq.key
            where digest in (sha256('topics 4'), sha256('topics 5'))
              and fingerprint in (sha256('\x0100000005'::bytea || '"key"'), sha256('\x0200000005'::bytea || '"key"'))), 2::bigint,
          'the fingerprint of messages without a topic is that of the messages alone');
select is((select fingerprint from ngx_pgq.key where digest = sha256('topics 2')), sha256('\x030000000161'::bytea || '\x00000005'::bytea || '"key"'),
          'the fingerprint of a message with a topic contains the topic');

-- ---- dead letters
alter table posts add constraint no_bad check (data::text <> '"dead"');
select is_empty($$select * from ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(2), array['"dead"', '"alive"'], array['dead/1', 'alive/1'])$$,
    'a message that posts refuses is enqueued with its topic');
select ok(pg_temp.wait_for($$select exists (select from ngx_pgq.dead_letter)$$), 'it becomes a dead letter');
select is((select topic from ngx_pgq.dead_letter), 'dead/1', 'a dead letter has the topic of its message');
alter table posts drop constraint no_bad;
select ngx_pgq.retry(id) as retried from ngx_pgq.dead_letter \gset
insert into ngx_pgq.dead_letter (at, message_id, data, sqlstate, problem, topic) values (now(), gen_random_uuid(), '"dead too"', '', '', 'dead/2');
select ngx_pgq.retry_all() as retried \gset
select ok(pg_temp.wait_for($$select count(*) = 2 from posts where data::text like '"dead%'$$), 'the dead letters become posts');
select is(pg_temp.topics('dead'), 'dead/2 dead/1', 'the posts of dead letters that were retried have their topics');

-- ---- the executor inserts if the tables have triggers
create function public.test_pass() returns trigger language plpgsql as 'begin return new; end';
create trigger pass before insert on posts for each row execute function public.test_pass();
create trigger pass before insert on ngx_pgq.queue for each row execute function public.test_pass();
select is_empty($$select * from ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(2), array['"trigger 1"', '"trigger 2"'], array['t/1', null])$$,
    'enqueue() accepts topics if the queue has a trigger');
select ok(pg_temp.wait_for($$select count(*) = 2 from posts where data::text like '"trigger%'$$), 'the messages become posts');
select is(pg_temp.topics('trigger'), 't/1 ', 'the posts have the topics of their messages');
drop trigger pass on posts;
drop trigger pass on ngx_pgq.queue;

-- ---- a CHECK of the owner is observed besides that of topics
alter table ngx_pgq.queue add constraint no_such check (topic <> 'such');
select throws_ok($$select ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(1), '{1}', '{such}')$$, '23514', null, 'enqueue() observes another constraint of the queue');
alter table ngx_pgq.queue drop constraint no_such;

-- ---- tables without the column, as in an older version
alter table posts rename column topic to old_topic;
select is_empty($$select * from ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(1), array['"older"'])$$, 'a message without a topic is accepted');
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"older"')$$), 'a message without a topic becomes a post if posts lacks the column');
select is_empty($$select * from ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(1), array['"newer"'], array['n'])$$, 'a message with a topic is accepted');
select ok(pg_temp.wait_for($$select last_error ~ '42703' from ngx_pgq.status where mover = 1$$), 'the mover reports that posts lacks the column');
select is((select count(*) from ngx_pgq.dead_letter) + (select count(*) from posts where data::text = '"newer"'), 0::bigint, 'the message stays in the queue');
alter table posts rename column old_topic to topic;
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"newer"' and topic = 'n')$$), 'it becomes a post with its topic when the column exists');

alter table ngx_pgq.queue rename column topic to old_topic;
select is_empty($$select * from ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(1), array['"old queue"'])$$, 'a message without a topic is accepted if the queue lacks the column');
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"old queue"' and topic = '')$$), 'it becomes a post');
select throws_ok($$select ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(1), '{1}', '{a}')$$, '55000',
    'column "topic" of relation "ngx_pgq.queue" is missing, nullable or of another type', 'enqueue() fails for a topic if the queue lacks the column');
alter table ngx_pgq.queue rename column old_topic to topic;

drop function public.test_pass();
select * from finish();
