-- A message with an idempotency key is taken once: the same again is told so, another is refused.

\ir helper.psql

select plan(45);

create function pg_temp.keyed(messages text[], keys text[], batch uuid default pg_temp.uuid7())
returns table (ordinal integer, sqlstate text, problem text) language sql as $$
    select * from ngx_pgq.enqueue_keyed(batch, (select array_agg(pg_temp.uuid7()) from unnest(messages)), messages, keys)
$$;

create function pg_temp.verdicts(messages text[], keys text[]) returns text language sql as $$
    select string_agg(ordinal || ' ' || sqlstate, ', ') from pg_temp.keyed(messages, keys)
$$;

create function pg_temp.posts(message text) returns bigint language sql volatile as $$
    select count(*) from posts where data::text = message
$$;

-- all of what is there is as old as this
create function pg_temp.age(by interval) returns void language sql as $$ update ngx_pgq.key set at = at - by $$;

truncate ngx_pgq.key;

-- taken, and met again
select pg_temp.uuid7() as id \gset
select is_empty(format('select * from ngx_pgq.enqueue_keyed(pg_temp.uuid7(), array[%L]::uuid[], array[%L], array[%L])', :'id', '{"a": 1}', 'k1'),
                'a message with a key is accepted');
select is((select digest::text || ' ' || message_id from ngx_pgq.key), sha256('k1')::text || ' ' || :'id', 'the SHA-256 of the key is kept, with the message''s id');
select is((select fingerprint from ngx_pgq.key), sha256('\x0100000008'::bytea || '{"a": 1}'::bytea), 'and the message''s fingerprint');
select ok(pg_temp.wait_for($$select pg_temp.posts('{"a": 1}') = 1$$), 'and it is posted');

begin;
select pg_current_wal_insert_lsn() as before \gset
select results_eq($$select * from pg_temp.keyed(array['{"a": 1}'], array['k1'])$$,
                  format('values (1, ''PQ200'', %L)', :'id'), 'the same again is told the id it was given then');
select is((select count(*) from ngx_pgq.queue), 0::bigint, 'and adds nothing');
select cmp_ok(pg_current_wal_insert_lsn(), '>', :'before'::pg_lsn, 'but writes WAL, so that its commit is replicated');
commit;
select is(pg_temp.verdicts(array['{"a": 2}'], array['k1']), '1 PQ422', 'another message with this key is refused');
select is(pg_temp.verdicts(array['{"a":1}'], array['k1']), '1 PQ422', 'also one that says the same in other bytes');
select is((select count(*) from ngx_pgq.key), 1::bigint, 'and the key is there once');
select is_empty($$select * from pg_temp.keyed(array['{"a": 1}', '{"a": 1}'], array[null, 'K1'])$$, 'without a key, or with another, it is a new message');

-- a batch of all kinds
select is(pg_temp.verdicts(array['1', '{"a": 1}', '[', '2', '3', '4', '5', null, '6'],
                           array[null, 'k1', 'k2', 'k2', 'k2', 'k3', repeat('x', 1025), 'k4', '']),
          '2 PQ200, 3 22P02, 5 PQ409, 7 54000, 8 22004, 9 22023', 'each message of a batch has its own verdict, by ordinal');
select ok(pg_temp.wait_for($$select count(*) = 3 from posts where data::text in ('1', '2', '4')$$), 'those without one are posted');
select is((select count(*) from posts where data::text in ('3', '5', '6')), 0::bigint, 'and no others');
select is(pg_temp.verdicts(array['2', '3'], array['k2', 'k2']), '1 PQ200, 2 PQ422', 'the key of a message that was refused is taken by the next one');
select is(pg_temp.verdicts(array['[', '7'], array['k5', null]), '1 22P02', 'a message that is refused');
select is(pg_temp.verdicts(array['8'], array['k5']), null, 'leaves its key free');
select is(pg_temp.verdicts(array['9'], array[repeat('x', 1024)]), null, 'a key may have 1024 bytes');
select is(pg_temp.verdicts(array['9'], array[repeat('ü', 127) || 'x']), null, 'whatever they are');
select is(pg_temp.verdicts(array['9'], array[repeat('ü', 513)]), '1 54000', 'bytes, not characters');
select is((select count(*) from ngx_pgq.enqueue_keyed(pg_temp.uuid7(), '{}', '{}', '{}')), 0::bigint, 'a batch may be empty');

-- a batch sent again
select pg_temp.uuid7() as batch, pg_temp.uuid7() as first, pg_temp.uuid7() as second, pg_temp.uuid7() as third, pg_temp.uuid7() as fourth \gset
select format('select * from ngx_pgq.enqueue_keyed(%L, array[%L, %L, %L, %L]::uuid[], array[%L, %L, %L, %L], array[%L, null, %L, %L])',
              :'batch', :'first', :'second', :'third', :'fourth', '"r1"', '"r2"', '"r3"', '{"a": 1}', 'r1', 'r1', 'k1') as again \gset
select results_eq('select ordinal, sqlstate from (' || :'again' || ') as v', $$values (3, 'PQ409'), (4, 'PQ200')$$, 'a batch');
select results_eq(:'again', format($$values (3, 'PQ422', 'Idempotency key was used with another message.'), (4, 'PQ200', %L)$$, :'id'),
                  'sent again, is answered from the table');
select pg_temp.age('25 h');
select results_eq(:'again', format($$values (3, 'PQ422', 'Idempotency key was used with another message.'), (4, 'PQ200', %L)$$, :'id'),
                  'also when its keys have expired');
select is(pg_temp.verdicts(array['"r4"'], array['r1']), null, 'and another has taken one since:');
select results_eq(:'again', format($$values (3, 'PQ422', 'Idempotency key was used with another message.'), (4, 'PQ200', %L)$$, :'id'),
                  'what was accepted stays so');
select is((select count(*) from ngx_pgq.key where digest = sha256('r1')), 2::bigint, 'the key is there twice');
select is(pg_temp.verdicts(array['"r4"', '"r1"'], array['r1', 'r1']), '1 PQ200, 2 PQ422', 'and the newest counts');
delete from ngx_pgq.key where digest in (sha256('r1'), sha256('k1'));
select results_eq('select ordinal, sqlstate from (' || :'again' || ') as v', $$values (1, 'PQ409'), (3, 'PQ409'), (4, 'PQ409')$$,
                  'what the table does not know was not accepted');
select ok(pg_temp.wait_for($$select pg_temp.posts('"r1"') = 1 and pg_temp.posts('"r2"') = 1 and pg_temp.posts('"r4"') = 1$$), 'each is posted once');

-- how long
truncate ngx_pgq.key;
select is(pg_temp.verdicts(array['"t"'], array['t']), null, 'a key');
select pg_temp.age('23 h 59 min');
select is(pg_temp.verdicts(array['"t"'], array['t']), '1 PQ200', 'is remembered for a day');
select pg_temp.age('1 min');
select is(pg_temp.verdicts(array['"u"'], array['t']), null, 'and no longer');
select is(pg_temp.verdicts(array['"t"', '"u"'], array['t', 't']), '1 PQ422, 2 PQ200', 'it may then be used for another message');

-- in one transaction
begin;
select is(pg_temp.verdicts(array['"tx"'], array['tx']), null, 'a key taken');
select is(pg_temp.verdicts(array['"tx"', '"ty"'], array['tx', 'tx']), '1 PQ200, 2 PQ422', 'is known to its own transaction');
savepoint before;
select is(pg_temp.verdicts(array['"tz"'], array['tz']), null, 'one taken and rolled back');
rollback to before;
select is(pg_temp.verdicts(array['"tz"'], array['tz']), null, 'is free');
rollback;
select is((select count(*) from ngx_pgq.key where digest in (sha256('tx'), sha256('tz'))), 0::bigint, 'as they all are in the end');

-- calls that make no sense
select throws_ok($$select ngx_pgq.enqueue_keyed(pg_temp.uuid7(), pg_temp.ids(1), '{1}', null)$$, '22004', null, 'keys must not be null');
select throws_ok($$select ngx_pgq.enqueue_keyed(pg_temp.uuid7(), pg_temp.ids(1), '{1}', '{}')$$, '22023', 'batch has 1 messages but 0 keys', 'there are as many as messages');
select throws_ok($$select ngx_pgq.enqueue_keyed(pg_temp.uuid7(), pg_temp.ids(2), '{1}', '{a}')$$, '22023', null, 'and as messages ids');
select throws_ok($$select pg_temp.verdicts(array_agg('1'::text), array_agg('many ' || n)) from generate_series(1, 65) as n$$,
                 '54000', 'batch has 65 idempotency keys, the limit is 64', 'at most 64 keys');
select is(pg_temp.verdicts(array_agg('1'::text), array_agg(case when n % 2 = 0 then 'many ' || n end)), null, 'but any number of messages')
  from generate_series(1, 128) as n;

begin read only;
select throws_ok($$select * from pg_temp.keyed('{1}', '{a}')$$, '25006', null, 'not in a read-only transaction');
commit;

select * from finish();
