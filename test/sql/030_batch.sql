-- A batch is enqueued once. A repeated batch writes WAL, so that its commit waits for replication as the first one did.

\ir helper.psql
create extension if not exists dblink;

select plan(17);

select pg_temp.uuid7() as batch \gset

select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(2), array[''"once"'', ''"once"''])', :'batch'),
                'a batch is accepted');
select ok(pg_temp.wait_for($$select count(*) = 2 from posts where data::text = '"once"'$$), 'the messages of the batch are posted');

begin;
select pg_current_wal_insert_lsn() as before \gset
select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(2), array[''"once"'', ''"once"''])', :'batch'),
                'the same batch is accepted again');
select is((select count(*) from ngx_pgq.queue where data::text = '"once"'), 0::bigint, 'the repeated batch adds nothing to the queue');
select isnt(pg_current_xact_id_if_assigned(), null, 'the transaction of the repeated batch has an id');
select cmp_ok(pg_current_wal_insert_lsn(), '>', :'before'::pg_lsn, 'the repeated batch writes WAL, so that its commit is replicated');
select results_eq(
    format('select ordinal, sqlstate from ngx_pgq.enqueue(%L, pg_temp.ids(2), array[''1'', ''{''])', :'batch'),
    $$values (2, '22P02')$$, 'the repeated batch returns the refusals of its messages again');
commit;

select is((select count(*) from ngx_pgq.batch where batch_id = :'batch'), 1::bigint, 'the batch table has one row for the batch');

-- batches whose ids have other times
select array_agg(pg_temp.uuid7(clock_timestamp() + skew)) as skewed
  from unnest('{-20000 days,-3 days,-73 min,-611 s,-1 s,1 s,599 s,73 min,3 days,20000 days}'::interval[]) as skew \gset
insert into ngx_pgq.batch (slot, batch_id) select n % 3, batch from unnest(:'skewed'::uuid[]) with ordinality as b (batch, n) where n % 2 = 0;
select is((select count(*) from unnest(:'skewed'::uuid[]) as batch, generate_series(1, 2), lateral ngx_pgq.enqueue(batch, pg_temp.ids(1), array['"skewed"'])), 0::bigint,
          'batches with ids of any time are accepted twice');
select ok(pg_temp.wait_for($$select count(*) = 5 from posts where data::text = '"skewed"'$$), 'batches that were not in the batch table are posted once');
select is((select count(*) from ngx_pgq.batch where batch_id = any (:'skewed')), 10::bigint, 'the leaves of the batch table together have each batch once');

begin;
select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(1), array[''"rolled back"''])',
                       '00000000-0000-7000-8000-000000000001'), 'a batch is accepted in a transaction that is rolled back');
rollback;
select is((select count(*) from ngx_pgq.batch where batch_id = '00000000-0000-7000-8000-000000000001'), 0::bigint,
          'a batch that was rolled back is not in the batch table');

-- a second attempt while the first is still running
select pg_temp.uuid7() as batch \gset
select dblink_connect('second', pg_temp.here()) as connected \gset
begin;
select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(1), array[''"twice"''])', :'batch'), 'a first attempt of a batch is accepted');
select dblink_send_query('second',
    format('select count(*) from ngx_pgq.enqueue(%L, array[gen_random_uuid()], array[''"twice"''])', :'batch')) as sent \gset
select ok(pg_temp.wait_for($$select exists (select from pg_stat_activity
                              where wait_event_type = 'Lock' and query ~ 'ngx_pgq.enqueue' and pid <> pg_backend_pid())$$),
          'a second attempt waits while the transaction of the first is open');
commit;
select is((select refused from dblink_get_result('second') as result (refused bigint)), 0::bigint, 'the second attempt is accepted when the first has committed');
select dblink_disconnect('second') as disconnected \gset
select ok(pg_temp.wait_for($$select count(*) = 1 from posts where data::text = '"twice"'$$), 'two attempts of a batch at the same time make one post');

select * from finish();
