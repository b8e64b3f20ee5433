-- enqueue() raises an error for invalid arguments.

\ir helper.psql

select plan(7);

select throws_ok($$select ngx_pgq.enqueue(null, pg_temp.ids(1), '{1}')$$, '22004');
select throws_ok($$select ngx_pgq.enqueue(pg_temp.uuid7(), null, '{1}')$$, '22004');
select throws_ok($$select ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(2), '{1}')$$, '22023',
                 'batch has 2 message ids but 1 messages');
select throws_ok($$select ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(65537), array_fill('1'::text, array[65537]))$$,
                 '54000', 'batch has 65537 messages, the limit is 65536');
select throws_ok($$select ngx_pgq.enqueue(pg_temp.uuid7(), array[pg_temp.ids(1)], array[array['1']])$$, '2202E');
select results_eq($$select ordinal, sqlstate from ngx_pgq.enqueue(pg_temp.uuid7(), array[null, gen_random_uuid()]::uuid[], '{1,2}')$$,
                  $$values (1, '22004')$$, 'a message without an id is refused');
select is_empty($$select * from ngx_pgq.enqueue(pg_temp.uuid7(), '{}', '{}')$$, 'an empty batch is accepted');

select * from finish();
