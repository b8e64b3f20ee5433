-- enqueue_all() enqueues all messages of a request or none.

\ir helper.psql

select plan(32);

create function pg_temp.all_of(messages text[], key text default null, batch uuid default pg_temp.uuid7())
returns table (ordinal integer, sqlstate text, problem text) language sql as $$
    select * from ngx_pgq.enqueue_all(batch, pg_temp.uuid7(), messages, key)
$$;

create function pg_temp.refusal(messages text[], key text default null) returns text language sql as $$
    select string_agg(ordinal || ' ' || sqlstate, ', ') from pg_temp.all_of(messages, key)
$$;

truncate ngx_pgq.key;

select is_empty($$select * from ngx_pgq.enqueue_all(pg_temp.uuid7(), '01900000-0000-7000-8000-0000000000fe', array['"a1"', '"a2"', '"a3"'])$$, 'three messages are accepted');
select ok(pg_temp.wait_for($$select count(*) = 3 from posts where data::text like '"a_"'$$), 'three accepted messages are posted');
select results_eq($$select data::text || message_id from posts where data::text like '"a_"' order by id$$,
                  $$values ('"a1"01900000-0000-7000-8000-0000000000fe'), ('"a2"01900000-0000-7000-8000-0000000000ff'), ('"a3"01900000-0000-7000-8000-000000000100')$$,
                  'the messages of a request keep their order and have consecutive ids');
select is((select count(distinct at) from posts where data::text like '"a_"'), 1::bigint, 'the messages of a request have the same time');
select is_empty($$select * from ngx_pgq.enqueue_all(pg_temp.uuid7(), '01900000-0000-7000-bfff-ffffffffffff', array['"b1"', '"b2"'])$$, 'messages whose consecutive ids would overflow the variant are accepted');
select ok(pg_temp.wait_for($$select array_agg(message_id::text order by id) = '{01900000-0000-7000-bfff-ffffffffffff,01900000-0000-7000-8000-000000000000}'
                               from posts where data::text like '"b_"'$$), 'ids after an overflow are UUIDs of the same version and variant');

-- a refused message
select results_eq($$select * from pg_temp.all_of(array['"c1"', '{', '"c3"', ']'])$$,
                  $$values (2, '22P02', 'byte 2: The input string ended unexpectedly.')$$, 'the first invalid message of a request is returned');
select is(pg_temp.refusal(array['"c1"', null]), '2 22004', 'a null message is refused');
select is((select count(*) from ngx_pgq.queue where data::text like '"c_"') + (select count(*) from posts where data::text like '"c_"'), 0::bigint, 'no message of a refused request is enqueued');
select pg_temp.uuid7() as batch \gset
select is((select ordinal from pg_temp.all_of(array['"c1"', '{'], null, :'batch')), 2, 'a request with an invalid message is refused');
select is((select ordinal from pg_temp.all_of(array['"c1"', '{'], null, :'batch')), 2, 'a refused request that is sent again is refused again');

-- sent again
select pg_temp.uuid7() as batch \gset
select is_empty(format('select * from pg_temp.all_of(array[%L, %L], null, %L)', '"d1"', '"d2"', :'batch'), 'messages without a key are accepted');
select is_empty(format('select * from pg_temp.all_of(array[%L, %L], null, %L)', '"d1"', '"d2"', :'batch'), 'the same batch without a key is accepted again');
select pg_temp.uuid7() as batch, pg_temp.uuid7() as id \gset
select format('select * from ngx_pgq.enqueue_all(%L, %L, array[%L, %L], %L)', :'batch', :'id', '"e1"', '"e2"', 'e') as again \gset
select is_empty(:'again', 'messages with a key are accepted');
select is_empty(:'again', 'the same batch with a key is accepted again');
select results_eq($$select * from pg_temp.all_of(array['"e1"', '"e2"'], 'e')$$, format('values (0, ''PQ200'', %L)', :'id'), 'the same messages in another batch get PQ200 with the first id');
select is((select fingerprint from ngx_pgq.key where digest = sha256('e')), sha256('\x0200000004226531220000000422653222'::bytea), 'the fingerprint covers the bytes of all messages');
select is(pg_temp.refusal(array['"e1"'], 'e'), '0 PQ422', 'fewer messages with this key are refused');
select is(pg_temp.refusal(array['"e1"', '"e2"', '"e3"'], 'e'), '0 PQ422', 'more messages with this key are refused');
select is(pg_temp.refusal(array['"e1""e2"'], 'e'), '1 22P02', 'invalid JSON is reported before a used key');
select ok(pg_temp.wait_for($$select count(*) = 4 from posts where data::text in ('"d1"', '"d2"', '"e1"', '"e2"')$$), 'all accepted messages are posted');
select is((select count(*) from posts where data::text ~ '^"[de]'), 4::bigint, 'each accepted message is posted once');

-- one message of enqueue_keyed(), and a request of one message
select is_empty($$select * from ngx_pgq.enqueue_keyed(pg_temp.uuid7(), pg_temp.ids(1), array['"f"'], array['f'])$$, 'enqueue_keyed() accepts one message');
select is(pg_temp.refusal(array['"f"'], 'f'), '0 PQ422', 'a request of one message differs from the same message of enqueue_keyed()');
select is(pg_temp.refusal(array['"g"'], 'g'), null, 'enqueue_all() accepts a request of one message');
select results_eq($$select sqlstate from ngx_pgq.enqueue_keyed(pg_temp.uuid7(), pg_temp.ids(1), array['"g"'], array['g'])$$, $$values ('PQ422')$$, 'a message of enqueue_keyed() differs from the same request of one message');

-- keys of refused requests, and invalid keys
select is(pg_temp.refusal(array['"h"', 'h'], 'h') || ', ' || coalesce(pg_temp.refusal(array['"h"'], 'h'), 'ok'), '2 22P02, ok', 'a refused request leaves its key unused');
select is(pg_temp.refusal(array['1'], '') || ', ' || pg_temp.refusal(array['1'], repeat('x', 1025)), '0 22023, 0 54000', 'a key must have 1 to 1024 bytes');
select is_empty($$select * from pg_temp.all_of('{}')$$, 'a request without messages is accepted');
select throws_ok($$select * from pg_temp.all_of(null)$$, '22004', null, 'a null array of messages is refused');
select throws_ok($$select * from pg_temp.all_of((select array_agg('1'::text) from generate_series(1, 65537)))$$, '54000', null, 'a request of more than 65536 messages is refused');
begin read only;
select throws_ok($$select * from pg_temp.all_of('{1}')$$, '25006', null, 'enqueue_all() fails in a read-only transaction');
commit;

select * from finish();
