-- A fenced batch is never enqueued, and a batch that was enqueued cannot be fenced.

\ir helper.psql
create extension if not exists dblink;

select plan(22);

select pg_temp.uuid7() as batch \gset
select is(ngx_pgq.fence(:'batch'), true, 'fence() of an unknown batch returns true');
select is(ngx_pgq.fence(:'batch'), true, 'fence() of a fenced batch returns true again');
select throws_ok(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(1), array[%L])', :'batch', '"late"'), '55000', 'batch was fenced by ngx_pgq.fence()',
                 'enqueue() refuses a fenced batch');
select throws_ok(format('select * from ngx_pgq.enqueue_keyed(%L, pg_temp.ids(1), array[%L], array[%L])', :'batch', '"late"', 'late'), '55000', null, 'enqueue_keyed() refuses a fenced batch');
select throws_ok(format('select * from ngx_pgq.enqueue_all(%L, pg_temp.uuid7(), array[%L], %L)', :'batch', '"late"', 'late'), '55000', null, 'enqueue_all() refuses a fenced batch');
select is(ngx_pgq.fence(:'batch'), true, 'a batch stays fenced after it was refused');
select is((select count(*) from ngx_pgq.batch where batch_id = :'batch'), 1::bigint, 'a fenced batch is once in the batch table');
select is((select at from ngx_pgq.batch where batch_id = :'batch'), 'infinity'::timestamptz, 'a fenced batch has the time infinity in the batch table');
select is((select count(*) from ngx_pgq.key where digest = sha256('late')), 0::bigint, 'a fenced batch has used no key');

select pg_temp.uuid7() as batch \gset
select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(1), array[%L])', :'batch', '"enqueued"'), 'a batch is enqueued');
select is(ngx_pgq.fence(:'batch'), false, 'fence() of an enqueued batch returns false');
select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(1), array[%L])', :'batch', '"enqueued"'), 'the batch sent again is accepted after fence()');
select is(ngx_pgq.fence(:'batch'), false, 'fence() of an enqueued batch returns false each time');
select ok(pg_temp.wait_for($$select count(*) = 1 from posts where data::text = '"enqueued"'$$), 'a batch that could not be fenced makes one post');

-- the result of fence() is as durable as a batch
begin;
select pg_current_wal_insert_lsn() as before \gset
select ngx_pgq.fence(:'batch') as fenced \gset
select cmp_ok(pg_current_wal_insert_lsn(), '>', :'before'::pg_lsn, 'fence() that returns false writes WAL');
commit;

-- fence() while the first attempt of the batch is still running
select pg_temp.uuid7() as batch \gset
select dblink_connect('second', pg_temp.here()) as connected \gset
begin;
select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(1), array[%L])', :'batch', '"running"'), 'a first attempt is accepted');
select dblink_send_query('second', format('select ngx_pgq.fence(%L)', :'batch')) as sent \gset
select ok(pg_temp.wait_for($$select exists (select from pg_stat_activity
                              where wait_event_type = 'Lock' and query ~ 'ngx_pgq.fence' and pid <> pg_backend_pid())$$), 'fence() waits while the transaction of the first attempt is open');
commit;
select is((select fenced from dblink_get_result('second') as result (fenced boolean)), false, 'fence() returns false when the first attempt has committed');
select dblink_disconnect('second') as disconnected \gset

select throws_ok('select ngx_pgq.fence(null)', '22004', null, 'fence(null) fails');
select pg_temp.uuid7(clock_timestamp() - interval '3 days 7 min') as early, pg_temp.uuid7(clock_timestamp() + interval '71 min') as late \gset
select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(1), array[%L])', :'early', '"early"'), 'a batch with an id of another time is accepted');
select is(array[ngx_pgq.fence(:'early'), ngx_pgq.fence(:'late')], array[false, true], 'fence() works for batches with ids of other times');
begin read only;
select throws_ok($$select ngx_pgq.fence(pg_temp.uuid7())$$, '25006', null, 'fence() fails in a read-only transaction');
commit;

select * from finish();
