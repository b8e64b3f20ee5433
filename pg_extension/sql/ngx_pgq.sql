-- enqueue(): a message that is not JSON is refused, the others are taken; the same batch again adds nothing.
\set batch '10000000-0000-7000-8000-000000000001'
\set ids 'array[gen_random_uuid(), gen_random_uuid()]'
select ordinal, sqlstate from ngx_pgq.enqueue(:'batch', :ids, array['{"a": 1}', '[']);
select ordinal, sqlstate from ngx_pgq.enqueue(:'batch', :ids, array['{"a": 1}', '[']);
-- fence(): too late for this batch, in time for another one
select ngx_pgq.fence(:'batch');
select ngx_pgq.fence('10000000-0000-7000-8000-000000000002');
select * from ngx_pgq.enqueue('10000000-0000-7000-8000-000000000002', :ids, '{1, 2}');
-- keys: the same message again, and another one with the key of the first
\set first '20000000-0000-7000-8000-000000000001'
select * from ngx_pgq.enqueue_keyed(gen_random_uuid(), array[:'first'::uuid], '{"\"b\""}', '{key}');
select * from ngx_pgq.enqueue_keyed(gen_random_uuid(), :ids, '{"\"b\"", "\"c\""}', '{key, key}');
-- all or nothing
select ordinal, sqlstate from ngx_pgq.enqueue_all(gen_random_uuid(), gen_random_uuid(), '{1, 2, "["}');
-- a plain INSERT
insert into ngx_pgq.queue (data) values ('"plain"');
-- what was taken becomes posts
select ngx_pgq.wait_until_drained('1 min');
select data from public.posts order by id;
-- a message that posts refuses becomes a dead letter
alter table public.posts add constraint no_bad check (data::text <> '"bad"');
select * from ngx_pgq.enqueue(gen_random_uuid(), :ids, '{"\"bad\"", "\"good\""}');
select ngx_pgq.wait_until_drained('1 min');
select sqlstate, data from ngx_pgq.dead_letter;
alter table public.posts drop constraint no_bad;
-- while movers are paused, messages wait
select ngx_pgq.pause();
insert into ngx_pgq.queue (data) values ('"paused"');
select ngx_pgq.wait_until_drained('10 ms');
select ngx_pgq.resume();
select ngx_pgq.wait_until_drained('1 min');
-- the status
select slot, state, depth from ngx_pgq.status where slot = 0;
select sum(dead_letters) as dead_letters from ngx_pgq.status;
-- rights: who may call enqueue() may nothing else
create role regress_ngx_pgq_web;
grant usage on schema ngx_pgq to regress_ngx_pgq_web;
grant execute on function ngx_pgq.enqueue to regress_ngx_pgq_web;
set role regress_ngx_pgq_web;
select * from ngx_pgq.enqueue(gen_random_uuid(), :ids, '{1, 2}');
select ngx_pgq.fence(gen_random_uuid());
select * from ngx_pgq.queue;
insert into ngx_pgq.queue (data) values ('1');
select * from ngx_pgq.status;
reset role;
drop owned by regress_ngx_pgq_web;
drop role regress_ngx_pgq_web;
