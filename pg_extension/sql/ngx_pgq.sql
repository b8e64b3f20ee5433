\pset format unaligned
\pset tuples_only on
-- enqueue() refuses a message that is not JSON and accepts the others. The same batch adds nothing the second time.
\set batch '10000000-0000-7000-8000-000000000001'
\set ids 'array[gen_random_uuid(), gen_random_uuid()]'
select ordinal, sqlstate from ngx_pgq.enqueue(:'batch', :ids, array['{"a": 1}', '[']);
select ordinal, sqlstate from ngx_pgq.enqueue(:'batch', :ids, array['{"a": 1}', '[']);
-- fence() returns false for a batch that was enqueued. A batch that was fenced cannot be enqueued.
select ngx_pgq.fence(:'batch');
select ngx_pgq.fence('10000000-0000-7000-8000-000000000002');
select * from ngx_pgq.enqueue('10000000-0000-7000-8000-000000000002', :ids, '{1, 2}');
-- A message with a key is accepted once. The same message gets PQ200, another message with its key gets PQ422.
\set first '20000000-0000-7000-8000-000000000001'
select * from ngx_pgq.enqueue_keyed(gen_random_uuid(), array[:'first'::uuid], '{"\"b\""}', '{key}');
select * from ngx_pgq.enqueue_keyed(gen_random_uuid(), :ids, '{"\"b\"", "\"c\""}', '{key, key}');
-- enqueue_all() enqueues no message if it refuses one.
select ordinal, sqlstate from ngx_pgq.enqueue_all(gen_random_uuid(), gen_random_uuid(), '{1, 2, "["}');
-- A plain INSERT puts a message into the queue.
insert into ngx_pgq.queue (data) values ('"plain"');
-- The accepted messages become posts.
select ngx_pgq.wait_until_drained('1 min');
select data from public.posts order by id;
-- A message that posts refuses becomes a dead letter.
alter table public.posts add constraint no_bad check (data::text <> '"bad"');
select * from ngx_pgq.enqueue(gen_random_uuid(), :ids, '{"\"bad\"", "\"good\""}');
select ngx_pgq.wait_until_drained('1 min');
select sqlstate, data from ngx_pgq.dead_letter;
alter table public.posts drop constraint no_bad;
-- Messages stay in the queue while movers are paused.
select ngx_pgq.pause();
insert into ngx_pgq.queue (data) values ('"paused"');
select ngx_pgq.wait_until_drained('10 ms');
select ngx_pgq.resume();
select ngx_pgq.wait_until_drained('1 min');
-- The view status shows slots and movers.
select slot, state, depth from ngx_pgq.status where slot = 0;
select sum(dead_letters) as dead_letters from ngx_pgq.status;
-- A role that may only call enqueue() has no other rights.
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
