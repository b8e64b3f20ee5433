-- A batch is taken once, and a batch met again commits as the first one did.

\ir helper.psql
create extension if not exists dblink;

select plan(17);

select pg_temp.uuid7() as batch \gset

select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(2), array[''"once"'', ''"once"''])', :'batch'),
                'a batch is accepted');
select ok(pg_temp.wait_for($$select count(*) = 2 from posts where data::text = '"once"'$$), 'and posted');

begin;
select pg_current_wal_insert_lsn() as before \gset
select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(2), array[''"once"'', ''"once"''])', :'batch'),
                'the same batch is accepted again');
select is((select count(*) from ngx_pgq.queue where data::text = '"once"'), 0::bigint, 'but adds nothing');
select isnt(pg_current_xact_id_if_assigned(), null, 'its transaction has an id');
select cmp_ok(pg_current_wal_insert_lsn(), '>', :'before'::pg_lsn, 'and writes WAL, so that its commit is replicated');
select results_eq(
    format('select ordinal, sqlstate from ngx_pgq.enqueue(%L, pg_temp.ids(2), array[''1'', ''{''])', :'batch'),
    $$values (2, '22P02')$$, 'verdicts are given again');
commit;

select is((select count(*) from ngx_pgq.batch where batch_id = :'batch'), 1::bigint, 'the ledger has it once');

-- what the clock said where the batch ids were made does not matter
select array_agg(pg_temp.uuid7(clock_timestamp() + skew)) as skewed
  from unnest('{-20000 days,-3 days,-73 min,-611 s,-1 s,1 s,599 s,73 min,3 days,20000 days}'::interval[]) as skew \gset
insert into ngx_pgq.batch (slot, batch_id) select n % 3, batch from unnest(:'skewed'::uuid[]) with ordinality as b (batch, n) where n % 2 = 0;
select is((select count(*) from unnest(:'skewed'::uuid[]) as batch, generate_series(1, 2), lateral ngx_pgq.enqueue(batch, pg_temp.ids(1), array['"skewed"'])), 0::bigint,
          'batches of all times, sent twice, are accepted');
select ok(pg_temp.wait_for($$select count(*) = 5 from posts where data::text = '"skewed"'$$), 'and each is posted once, but those that were there');
select is((select count(*) from ngx_pgq.batch where batch_id = any (:'skewed')), 10::bigint, 'the ledger has each once, whichever leaf it lies in');

begin;
select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(1), array[''"rolled back"''])',
                       '00000000-0000-7000-8000-000000000001'), 'a batch that is rolled back');
rollback;
select is((select count(*) from ngx_pgq.batch where batch_id = '00000000-0000-7000-8000-000000000001'), 0::bigint,
          'is not in the ledger');

-- a second attempt while the first is still running
select pg_temp.uuid7() as batch \gset
select dblink_connect('second', pg_temp.here()) as connected \gset
begin;
select is_empty(format('select * from ngx_pgq.enqueue(%L, pg_temp.ids(1), array[''"twice"''])', :'batch'), 'a first attempt');
select dblink_send_query('second',
    format('select count(*) from ngx_pgq.enqueue(%L, array[gen_random_uuid()], array[''"twice"''])', :'batch')) as sent \gset
select ok(pg_temp.wait_for($$select exists (select from pg_stat_activity
                              where wait_event_type = 'Lock' and query ~ 'ngx_pgq.enqueue' and pid <> pg_backend_pid())$$),
          'makes the second one wait');
commit;
select is((select refused from dblink_get_result('second') as result (refused bigint)), 0::bigint, 'which is then accepted');
select dblink_disconnect('second') as disconnected \gset
select ok(pg_temp.wait_for($$select count(*) = 1 from posts where data::text = '"twice"'$$), 'and there is one post');

select * from finish();
