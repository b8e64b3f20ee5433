-- Each role has the rights that it needs, and no others.

\ir helper.psql

select plan(50);

select is((select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls from pg_roles where rolname = name),
          false, name || ' has no special attribute')
  from unnest(array['ngx_pgq_owner', 'ngx_pgq_mover', 'ngx_pgq_web', 'ngx_pgq_producer', 'ngx_pgq_consumer']) as name;
select is((select rolpassword from pg_authid where rolname = name), null, name || ' has no password')
  from unnest(array['ngx_pgq_mover', 'ngx_pgq_web']) as name;
select is((select rolcanlogin from pg_roles where rolname = name), login, name || (case when login then ' can' else ' cannot' end) || ' log in')
  from (values ('ngx_pgq_owner', false), ('ngx_pgq_producer', false), ('ngx_pgq_consumer', false), ('ngx_pgq_mover', true), ('ngx_pgq_web', true)) as role (name, login);
select is((select setconfig @> array['synchronous_commit=on'] from pg_db_role_setting where setrole = 'ngx_pgq_web'::regrole),
          true, 'ngx_pgq_web commits synchronously');

select is((select usename from pg_stat_activity where backend_type = 'ngx_pgq mover' limit 1), 'ngx_pgq_mover'::name,
          'a mover runs as ngx_pgq_mover');
select is((select count(*) from pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
            where pronamespace = 'ngx_pgq'::regnamespace and grantee = 0), 0::bigint, 'PUBLIC may call no function');

create role ngx_pgq_test_producer;
create role ngx_pgq_test_stranger;
grant ngx_pgq_producer to ngx_pgq_test_producer;

grant execute on function pg_temp.ids(integer), pg_temp.uuid7(timestamptz) to public;

set role ngx_pgq_web;
select is_empty($$select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], '{1}')$$, 'ngx_pgq_web may enqueue');
select is_empty($$select * from ngx_pgq.enqueue_keyed(pg_temp.uuid7(), array[gen_random_uuid()], '{1}', array['rights'])$$, 'ngx_pgq_web may enqueue with a key');
select results_eq($$select sqlstate from ngx_pgq.enqueue_keyed(pg_temp.uuid7(), array[gen_random_uuid()], '{1}', array['rights'])$$, $$values ('PQ200')$$, 'ngx_pgq_web gets the result of a repeated key');
select is_empty($$select * from ngx_pgq.enqueue_all(pg_temp.uuid7(), gen_random_uuid(), '{1}', 'rights of all')$$, 'ngx_pgq_web may call enqueue_all()');
select is(ngx_pgq.fence(pg_temp.uuid7()), true, 'ngx_pgq_web may fence a batch');
select lives_ok('select ngx_pgq.recent()', 'ngx_pgq_web may call recent()');
select lives_ok('select ngx_pgq.metrics()', 'ngx_pgq_web may call metrics()');
select lives_ok('select ngx_pgq.subscription_status()', 'ngx_pgq_web may call subscription_status()');
select throws_ok('select * from ngx_pgq.subscriptions', '42501', null, 'ngx_pgq_web may not read the subscriptions');
select lives_ok('select count(*) from posts', 'ngx_pgq_web may read posts');
select throws_ok('select count(*) from ngx_pgq.queue', '42501', null, 'ngx_pgq_web may not read the queue');
select throws_ok($$insert into ngx_pgq.queue (data) values ('1')$$, '42501', null, 'ngx_pgq_web may not insert into the queue');
select throws_ok($$insert into posts (at, message_id, data) values (now(), gen_random_uuid(), '1')$$, '42501', null, 'ngx_pgq_web may not write posts');
select throws_ok('select count(*) from ngx_pgq.dead_letter', '42501', null, 'ngx_pgq_web may not read dead letters');
select throws_ok('select count(*) from ngx_pgq.batch', '42501', null, 'ngx_pgq_web may not read the batch table');
select throws_ok('select count(*) from ngx_pgq.key', '42501', null, 'ngx_pgq_web may not read the keys');
select throws_ok('select ngx_pgq.slot()', '42501', null, 'ngx_pgq_web may not call slot()');
select throws_ok('select * from ngx_pgq.status', '42501', null, 'ngx_pgq_web may not see the status');
reset role;

set role ngx_pgq_test_producer;
select lives_ok($$insert into ngx_pgq.queue (data) values ('"from a producer"')$$, 'a producer may insert into the queue');
select throws_ok($$insert into ngx_pgq.queue (at, data) values ('infinity', '1')$$, '42501', null, 'a producer may not choose a time');
select throws_ok($$insert into ngx_pgq.queue (message_id, data) values (gen_random_uuid(), '1')$$, '42501', null, 'a producer may not choose an id');
select throws_ok($$insert into ngx_pgq.queue (slot, data) values (0, '1')$$, '42501', null, 'a producer may not choose a slot');
select throws_ok('select count(*) from ngx_pgq.queue', '42501', null, 'a producer may not read the queue');
select throws_ok('delete from ngx_pgq.queue', '42501', null, 'a producer may not delete from the queue');
select throws_ok($$select ngx_pgq.enqueue(gen_random_uuid(), '{}', '{}')$$, '42501', null, 'a producer may not enqueue batches');
select throws_ok('select count(*) from posts', '42501', null, 'a producer may not read posts');
select throws_ok('select ngx_pgq.fence(pg_temp.uuid7())', '42501', null, 'a producer may not fence batches');
reset role;

set role ngx_pgq_test_stranger;
select throws_ok($$select ngx_pgq.enqueue(gen_random_uuid(), '{}', '{}')$$, '42501', null, 'a role without grants may not enqueue');
select throws_ok($$insert into ngx_pgq.queue (data) values ('1')$$, '42501', null, 'a role without grants may not insert into the queue');
select throws_ok('select count(*) from posts', '42501', null, 'a role without grants may not read posts');
reset role;

set role pg_monitor;
select lives_ok('select * from ngx_pgq.status', 'pg_monitor may see the status');
reset role;

set role ngx_pgq_mover;
select throws_ok($$update posts set data = '1'$$, '42501', null, 'a mover may not change posts');
select throws_ok('select count(*) from ngx_pgq.key', '42501', null, 'a mover may not read keys');
select throws_ok('truncate ngx_pgq.queue', '42501', null, 'a mover may not truncate the queue as a whole');
reset role;

select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"from a producer"')$$), 'a producer''s message is posted');

drop role ngx_pgq_test_producer;
drop role ngx_pgq_test_stranger;
select * from finish();
