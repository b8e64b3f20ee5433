-- A fenced batch is never taken, and a batch that was taken cannot be fenced.

\ir helper.psql
create extension if not exists dblink;

select plan(22);

select pg_temp.uuid7() as batch \gset
select is(ngx_pgq.fence(:'batch'), true, 'a batch that is not known is fenced');
select is(ngx_pgq.fence(:'batch'), true, 'and stays so, who asks again is told');
select throws_ok(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(1), array[%L])', :'batch', '"late"'), '55000', 'batch was fenced by ngx_pgq.fence()',
                 'when it arrives after all, it is not taken');
select throws_ok(format('select * from ngx_pgq.enqueue_keyed(%L, pg_temp.ids(1), array[%L], array[%L])', :'batch', '"late"', 'late'), '55000', null, 'nor with keys');
select throws_ok(format('select * from ngx_pgq.enqueue_all(%L, pg_temp.uuid7(), array[%L], %L)', :'batch', '"late"', 'late'), '55000', null, 'nor as one request');
select is(ngx_pgq.fence(:'batch'), true, 'and is a fenced one still');
select is((select count(*) from ngx_pgq.batch where batch_id = :'batch'), 1::bigint, 'once in the ledger');
select is((select at from ngx_pgq.batch where batch_id = :'batch'), 'infinity'::timestamptz, 'and marked there');
select is((select count(*) from ngx_pgq.key where digest = sha256('late')), 0::bigint, 'it has taken no key');

select pg_temp.uuid7() as batch \gset
select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(1), array[%L])', :'batch', '"taken"'), 'a batch that is taken');
select is(ngx_pgq.fence(:'batch'), false, 'cannot be fenced');
select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(1), array[%L])', :'batch', '"taken"'), 'and is accepted when it is sent again');
select is(ngx_pgq.fence(:'batch'), false, 'however often');
select ok(pg_temp.wait_for($$select count(*) = 1 from posts where data::text = '"taken"'$$), 'and there is one post');

-- the answer is as durable as a batch
begin;
select pg_current_wal_insert_lsn() as before \gset
select ngx_pgq.fence(:'batch') as taken \gset
select cmp_ok(pg_current_wal_insert_lsn(), '>', :'before'::pg_lsn, 'also who is told no writes WAL');
commit;

-- the first attempt is still running
select pg_temp.uuid7() as batch \gset
select dblink_connect('second', pg_temp.here()) as connected \gset
begin;
select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(1), array[%L])', :'batch', '"running"'), 'a first attempt');
select dblink_send_query('second', format('select ngx_pgq.fence(%L)', :'batch')) as sent \gset
select ok(pg_temp.wait_for($$select exists (select from pg_stat_activity
                              where wait_event_type = 'Lock' and query ~ 'ngx_pgq.fence' and pid <> pg_backend_pid())$$), 'is waited for');
commit;
select is((select fenced from dblink_get_result('second') as result (fenced boolean)), false, 'and when it commits, it is not fenced');
select dblink_disconnect('second') as disconnected \gset

select throws_ok('select ngx_pgq.fence(null)', '22004', null, 'not null');
select pg_temp.uuid7(clock_timestamp() - interval '3 days 7 min') as early, pg_temp.uuid7(clock_timestamp() + interval '71 min') as late \gset
select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(1), array[%L])', :'early', '"early"'), 'a batch of another time than ours');
select is(array[ngx_pgq.fence(:'early'), ngx_pgq.fence(:'late')], array[false, true], 'is fenced as any other');
begin read only;
select throws_ok($$select ngx_pgq.fence(pg_temp.uuid7())$$, '25006', null, 'not in a read-only transaction');
commit;

select * from finish();
