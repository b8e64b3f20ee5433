-- pause() keeps messages in the queue until resume(). wait_until_drained() waits for an empty queue.

\ir helper.psql

select plan(17);

select ok(ngx_pgq.wait_until_drained('30 s'), 'wait_until_drained() returns true for an empty queue');
select lives_ok('select ngx_pgq.pause()', 'pause() succeeds');
select is((select string_agg(distinct state, ' ') from ngx_pgq.status where pid is not null), 'paused', 'the status shows all movers as paused');

insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 10) n;
select is(ngx_pgq.wait_until_drained('0.3 s'), false, 'wait_until_drained() returns false after its timeout');
select is((select count(*) from ngx_pgq.queue), 10::bigint, 'messages stay in the queue during a pause');
select is((select sum(depth) from ngx_pgq.status), 10::numeric, 'depth counts the messages of the queue');
select cmp_ok((select max(oldest) from ngx_pgq.status), '>=', interval '0.3 s', 'oldest is the age of the oldest message');
select lives_ok('select ngx_pgq.pause()', 'pause() succeeds when movers are paused');

select pid as old from ngx_pgq.status where mover = 1 \gset
select pg_terminate_backend(:old) as terminated \gset
select ok(pg_temp.wait_for(format('select pid <> %s and state = $$paused$$ from ngx_pgq.status where mover = 1', :old)),
          'a mover that is started again during a pause is paused');

select lives_ok('select ngx_pgq.resume()', 'resume() succeeds');
select ok(ngx_pgq.wait_until_drained(), 'the queue is drained after resume()');
select is((select count(*) from posts), 10::bigint, 'all messages become posts');
select is((select sum(depth) from ngx_pgq.status), 0::numeric, 'depth is 0 when the queue is drained');
select ok(pg_temp.wait_for($$select rate > 0 from ngx_pgq.status where mover = 1$$), 'a mover that has moved messages has a rate');

set role ngx_pgq_web;
select throws_ok('select ngx_pgq.pause()', '42501', null, 'ngx_pgq_web may not call pause()');
select throws_ok('select ngx_pgq.resume()', '42501', null, 'ngx_pgq_web may not call resume()');
reset role;
set role ngx_pgq_owner;
select lives_ok('select ngx_pgq.resume()', 'ngx_pgq_owner may call resume()');
reset role;

select * from finish();
