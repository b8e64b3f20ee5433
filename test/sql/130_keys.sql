-- A message with an idempotency key is enqueued once: the same message gets PQ200, another one is refused.

\ir helper.psql

select plan(45);

create function pg_temp.keyed(messages text[], keys text[], batch uuid default pg_temp.uuid7())
returns table (ordinal integer, sqlstate text, problem text) language sql as $$
    select * from ngx_pgq.enqueue_keyed(batch, (select array_agg(pg_temp.uuid7()) from unnest(messages)), messages, keys)
$$;

create function pg_temp.refusals(messages text[], keys text[]) returns text language sql as $$
    select string_agg(ordinal || ' ' || sqlstate, ', ') from pg_temp.keyed(messages, keys)
$$;

create function pg_temp.posts(message text) returns bigint language sql volatile as $$
    select count(*) from posts where data::text = message
$$;

-- Makes all keys older.
create function pg_temp.age(by interval) returns void language sql as $$ update ngx_pgq.key set at = at - by $$;

truncate ngx_pgq.key;

-- the same message again
select pg_temp.uuid7() as id \gset
select is_empty(format('select * from ngx_pgq.enqueue_keyed(pg_temp.uuid7(), array[%L]::uuid[], array[%L], array[%L])', :'id', '{"a": 1}', 'k1'),
                'a message with a key is accepted');
select is((select digest::text || ' ' || message_id from ngx_pgq.key), sha256('k1')::text || ' ' || :'id', 'a key is stored as its SHA-256, with the message''s id');
select is((select fingerprint from ngx_pgq.key), sha256('\x0100000008'::bytea || '{"a": 1}'::bytea), 'a key has the message''s fingerprint');
select ok(pg_temp.wait_for($$select pg_temp.posts('{"a": 1}') = 1$$), 'a message with a key is posted');

begin;
select pg_current_wal_insert_lsn() as before \gset
select results_eq($$select * from pg_temp.keyed(array['{"a": 1}'], array['k1'])$$,
                  format('values (1, ''PQ200'', %L)', :'id'), 'the same message gets PQ200 with the first id');
select is((select count(*) from ngx_pgq.queue), 0::bigint, 'the repeated message adds nothing to the queue');
select cmp_ok(pg_current_wal_insert_lsn(), '>', :'before'::pg_lsn, 'the repeated message writes WAL, so that its commit is replicated');
commit;
select is(pg_temp.refusals(array['{"a": 2}'], array['k1']), '1 PQ422', 'another message with a used key is refused');
select is(pg_temp.refusals(array['{"a":1}'], array['k1']), '1 PQ422', 'equal JSON in other bytes is another message');
select is((select count(*) from ngx_pgq.key), 1::bigint, 'a key is stored once');
select is_empty($$select * from pg_temp.keyed(array['{"a": 1}', '{"a": 1}'], array[null, 'K1'])$$, 'the same message is accepted without a key and with another key');

-- a batch of messages with and without keys
select is(pg_temp.refusals(array['1', '{"a": 1}', '[', '2', '3', '4', '5', null, '6'],
                           array[null, 'k1', 'k2', 'k2', 'k2', 'k3', repeat('x', 1025), 'k4', '']),
          '2 PQ200, 3 22P02, 5 PQ409, 7 54000, 8 22004, 9 22023', 'each message of a batch has its own result, by ordinal');
select ok(pg_temp.wait_for($$select count(*) = 3 from posts where data::text in ('1', '2', '4')$$), 'accepted messages of the batch are posted');
select is((select count(*) from posts where data::text in ('3', '5', '6')), 0::bigint, 'refused messages of the batch are not posted');
select is(pg_temp.refusals(array['2', '3'], array['k2', 'k2']), '1 PQ200, 2 PQ422', 'the key of a refused message is used by the next message of the batch');
select is(pg_temp.refusals(array['[', '7'], array['k5', null]), '1 22P02', 'an invalid message with a key is refused');
select is(pg_temp.refusals(array['8'], array['k5']), null, 'an invalid message leaves its key unused');
select is(pg_temp.refusals(array['9'], array[repeat('x', 1024)]), null, 'a key may have 1024 bytes');
select is(pg_temp.refusals(array['9'], array[repeat('ü', 127) || 'x']), null, 'a key may have characters that are not ASCII');
select is(pg_temp.refusals(array['9'], array[repeat('ü', 513)]), '1 54000', 'the limit of a key counts bytes, not characters');
select is((select count(*) from ngx_pgq.enqueue_keyed(pg_temp.uuid7(), '{}', '{}', '{}')), 0::bigint, 'a batch may be empty');

-- a batch sent again
select pg_temp.uuid7() as batch, pg_temp.uuid7() as first, pg_temp.uuid7() as second, pg_temp.uuid7() as third, pg_temp.uuid7() as fourth \gset
select format('select * from ngx_pgq.enqueue_keyed(%L, array[%L, %L, %L, %L]::uuid[], array[%L, %L, %L, %L], array[%L, null, %L, %L])',
              :'batch', :'first', :'second', :'third', :'fourth', '"r1"', '"r2"', '"r3"', '{"a": 1}', 'r1', 'r1', 'k1') as again \gset
select results_eq('select ordinal, sqlstate from (' || :'again' || ') as v', $$values (3, 'PQ409'), (4, 'PQ200')$$, 'a batch with keys returns its refusals');
select results_eq(:'again', format($$values (3, 'PQ422', 'Idempotency key was used with another message.'), (4, 'PQ200', %L)$$, :'id'),
                  'a batch with keys that is sent again returns the results that are in the table of keys');
select pg_temp.age('25 h');
select results_eq(:'again', format($$values (3, 'PQ422', 'Idempotency key was used with another message.'), (4, 'PQ200', %L)$$, :'id'),
                  'a batch that is sent again returns the same results when its keys have expired');
select is(pg_temp.refusals(array['"r4"'], array['r1']), null, 'a message of another batch uses an expired key');
select results_eq(:'again', format($$values (3, 'PQ422', 'Idempotency key was used with another message.'), (4, 'PQ200', %L)$$, :'id'),
                  'a batch that is sent again returns the same results when another batch has used its key');
select is((select count(*) from ngx_pgq.key where digest = sha256('r1')), 2::bigint, 'both uses of the key are stored');
select is(pg_temp.refusals(array['"r4"', '"r1"'], array['r1', 'r1']), '1 PQ200, 2 PQ422', 'a key that was used twice has the result of the newer use');
delete from ngx_pgq.key where digest in (sha256('r1'), sha256('k1'));
select results_eq('select ordinal, sqlstate from (' || :'again' || ') as v', $$values (1, 'PQ409'), (3, 'PQ409'), (4, 'PQ409')$$,
                  'a batch that is sent again returns PQ409 for keys that are not in the table');
select ok(pg_temp.wait_for($$select pg_temp.posts('"r1"') = 1 and pg_temp.posts('"r2"') = 1 and pg_temp.posts('"r4"') = 1$$), 'each accepted message is posted once');

-- expired keys
truncate ngx_pgq.key;
select is(pg_temp.refusals(array['"t"'], array['t']), null, 'a message with a new key is accepted');
select pg_temp.age('23 h 59 min');
select is(pg_temp.refusals(array['"t"'], array['t']), '1 PQ200', 'a key is known for a day');
select pg_temp.age('1 min');
select is(pg_temp.refusals(array['"u"'], array['t']), null, 'a key is unknown after a day');
select is(pg_temp.refusals(array['"t"', '"u"'], array['t', 't']), '1 PQ422, 2 PQ200', 'a key that was used after it had expired has the result of the newer use');

-- an open transaction
begin;
select is(pg_temp.refusals(array['"tx"'], array['tx']), null, 'a key is used in an open transaction');
select is(pg_temp.refusals(array['"tx"', '"ty"'], array['tx', 'tx']), '1 PQ200, 2 PQ422', 'a key is known to its own transaction');
savepoint before;
select is(pg_temp.refusals(array['"tz"'], array['tz']), null, 'a key is used in a savepoint that is rolled back');
rollback to before;
select is(pg_temp.refusals(array['"tz"'], array['tz']), null, 'a key that was rolled back is unused');
rollback;
select is((select count(*) from ngx_pgq.key where digest in (sha256('tx'), sha256('tz'))), 0::bigint, 'no key is left of a transaction that was rolled back');

-- invalid arguments
select throws_ok($$select ngx_pgq.enqueue_keyed(pg_temp.uuid7(), pg_temp.ids(1), '{1}', null)$$, '22004', null, 'keys must not be null');
select throws_ok($$select ngx_pgq.enqueue_keyed(pg_temp.uuid7(), pg_temp.ids(1), '{1}', '{}')$$, '22023', 'batch has 1 messages but 0 keys', 'the number of keys must be that of messages');
select throws_ok($$select ngx_pgq.enqueue_keyed(pg_temp.uuid7(), pg_temp.ids(2), '{1}', '{a}')$$, '22023', null, 'the number of ids must be that of messages');
select throws_ok($$select pg_temp.refusals(array_agg('1'::text), array_agg('many ' || n)) from generate_series(1, 65) as n$$,
                 '54000', 'batch has 65 idempotency keys, the limit is 64', 'a batch with 65 keys is refused');
select is(pg_temp.refusals(array_agg('1'::text), array_agg(case when n % 2 = 0 then 'many ' || n end)), null, 'a batch of 128 messages may have 64 keys')
  from generate_series(1, 128) as n;

begin read only;
select throws_ok($$select * from pg_temp.keyed('{1}', '{a}')$$, '25006', null, 'enqueue_keyed() fails in a read-only transaction');
commit;

select * from finish();
