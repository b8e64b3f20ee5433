-- The messages of one request are taken all or none.

\ir helper.psql

select plan(32);

create function pg_temp.all_of(messages text[], key text default null, batch uuid default pg_temp.uuid7())
returns table (ordinal integer, sqlstate text, problem text) language sql as $$
    select * from ngx_pgq.enqueue_all(batch, pg_temp.uuid7(), messages, key)
$$;

create function pg_temp.verdict(messages text[], key text default null) returns text language sql as $$
    select string_agg(ordinal || ' ' || sqlstate, ', ') from pg_temp.all_of(messages, key)
$$;

truncate ngx_pgq.key;

select is_empty($$select * from ngx_pgq.enqueue_all(pg_temp.uuid7(), '01900000-0000-7000-8000-0000000000fe', array['"a1"', '"a2"', '"a3"'])$$, 'three messages are accepted');
select ok(pg_temp.wait_for($$select count(*) = 3 from posts where data::text like '"a_"'$$), 'and posted');
select results_eq($$select data::text || message_id from posts where data::text like '"a_"' order by id$$,
                  $$values ('"a1"01900000-0000-7000-8000-0000000000fe'), ('"a2"01900000-0000-7000-8000-0000000000ff'), ('"a3"01900000-0000-7000-8000-000000000100')$$,
                  'in their order, with ids that count up');
select is((select count(distinct at) from posts where data::text like '"a_"'), 1::bigint, 'and one time');
select is_empty($$select * from ngx_pgq.enqueue_all(pg_temp.uuid7(), '01900000-0000-7000-bfff-ffffffffffff', array['"b1"', '"b2"'])$$, 'ids that do not fit');
select ok(pg_temp.wait_for($$select array_agg(message_id::text order by id) = '{01900000-0000-7000-bfff-ffffffffffff,01900000-0000-7000-8000-000000000000}'
                               from posts where data::text like '"b_"'$$), 'stay UUIDs of their kind');

-- one is refused
select results_eq($$select * from pg_temp.all_of(array['"c1"', '{', '"c3"', ']'])$$,
                  $$values (2, '22P02', 'byte 2: The input string ended unexpectedly.')$$, 'if one is refused, the first such is named');
select is(pg_temp.verdict(array['"c1"', null]), '2 22004', 'be it a null');
select is((select count(*) from ngx_pgq.queue where data::text like '"c_"') + (select count(*) from posts where data::text like '"c_"'), 0::bigint, 'and none is taken');
select pg_temp.uuid7() as batch \gset
select is((select ordinal from pg_temp.all_of(array['"c1"', '{'], null, :'batch')), 2, 'sent again');
select is((select ordinal from pg_temp.all_of(array['"c1"', '{'], null, :'batch')), 2, 'it is refused again');

-- sent again
select pg_temp.uuid7() as batch \gset
select is_empty(format('select * from pg_temp.all_of(array[%L, %L], null, %L)', '"d1"', '"d2"', :'batch'), 'messages without a key');
select is_empty(format('select * from pg_temp.all_of(array[%L, %L], null, %L)', '"d1"', '"d2"', :'batch'), 'sent again, are accepted again');
select pg_temp.uuid7() as batch, pg_temp.uuid7() as id \gset
select format('select * from ngx_pgq.enqueue_all(%L, %L, array[%L, %L], %L)', :'batch', :'id', '"e1"', '"e2"', 'e') as again \gset
select is_empty(:'again', 'messages with a key');
select is_empty(:'again', 'sent again, are accepted again');
select results_eq($$select * from pg_temp.all_of(array['"e1"', '"e2"'], 'e')$$, format('values (0, ''PQ200'', %L)', :'id'), 'as another batch, they are told the first id');
select is((select fingerprint from ngx_pgq.key where digest = sha256('e')), sha256('\x0200000004226531220000000422653222'::bytea), 'by all of their bytes');
select is(pg_temp.verdict(array['"e1"'], 'e'), '0 PQ422', 'fewer messages with this key are refused');
select is(pg_temp.verdict(array['"e1"', '"e2"', '"e3"'], 'e'), '0 PQ422', 'and more');
select is(pg_temp.verdict(array['"e1""e2"'], 'e'), '1 22P02', 'JSON comes first');
select ok(pg_temp.wait_for($$select count(*) = 4 from posts where data::text in ('"d1"', '"d2"', '"e1"', '"e2"')$$), 'each is posted');
select is((select count(*) from posts where data::text ~ '^"[de]'), 4::bigint, 'once');

-- what one message alone is, and what a batch of one
select is_empty($$select * from ngx_pgq.enqueue_keyed(pg_temp.uuid7(), pg_temp.ids(1), array['"f"'], array['f'])$$, 'one message posted alone');
select is(pg_temp.verdict(array['"f"'], 'f'), '0 PQ422', 'is not the same as a batch of one');
select is(pg_temp.verdict(array['"g"'], 'g'), null, 'nor a batch of one');
select results_eq($$select sqlstate from ngx_pgq.enqueue_keyed(pg_temp.uuid7(), pg_temp.ids(1), array['"g"'], array['g'])$$, $$values ('PQ422')$$, 'the same as one alone');

-- refused ones leave the key, and bad keys
select is(pg_temp.verdict(array['"h"', 'h'], 'h') || ', ' || coalesce(pg_temp.verdict(array['"h"'], 'h'), 'ok'), '2 22P02, ok', 'what is refused leaves its key free');
select is(pg_temp.verdict(array['1'], '') || ', ' || pg_temp.verdict(array['1'], repeat('x', 1025)), '0 22023, 0 54000', 'a key has 1 to 1024 bytes');
select is_empty($$select * from pg_temp.all_of('{}')$$, 'no messages at all are accepted');
select throws_ok($$select * from pg_temp.all_of(null)$$, '22004', null, 'but not null');
select throws_ok($$select * from pg_temp.all_of((select array_agg('1'::text) from generate_series(1, 65537)))$$, '54000', null, 'at most 65536');
begin read only;
select throws_ok($$select * from pg_temp.all_of('{1}')$$, '25006', null, 'not in a read-only transaction');
commit;

select * from finish();
