-- pause(), resume(), wait_until_drained(): the levers of an operator.

\ir helper.psql

select plan(17);

select ok(ngx_pgq.wait_until_drained('30 s'), 'the queue is empty');
select lives_ok('select ngx_pgq.pause()', 'a pause');
select is((select string_agg(distinct state, ' ') from ngx_pgq.status where pid is not null), 'paused', 'every mover is paused');

insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 10) n;
select is(ngx_pgq.wait_until_drained('0.3 s'), false, 'they are waited for until the timeout');
select is((select count(*) from ngx_pgq.queue), 10::bigint, 'while it lasts messages wait');
select is((select sum(depth) from ngx_pgq.status), 10::numeric, 'the status knows how many');
select cmp_ok((select max(oldest) from ngx_pgq.status), '>=', interval '0.3 s', 'and how long');
select lives_ok('select ngx_pgq.pause()', 'a pause in a pause changes nothing');

select pid as old from ngx_pgq.status where mover = 1 \gset
select pg_terminate_backend(:old) as terminated \gset
select ok(pg_temp.wait_for(format('select pid <> %s and state = $$paused$$ from ngx_pgq.status where mover = 1', :old)),
          'a mover that is started anew is paused, too');

select lives_ok('select ngx_pgq.resume()', 'the end of the pause');
select ok(ngx_pgq.wait_until_drained(), 'then they are moved');
select is((select count(*) from posts), 10::bigint, 'all of them');
select is((select sum(depth) from ngx_pgq.status), 0::numeric, 'and nothing waits any more');
select ok(pg_temp.wait_for($$select rate > 0 from ngx_pgq.status where mover = 1$$), 'a mover that has moved has a rate');

set role ngx_pgq_web;
select throws_ok('select ngx_pgq.pause()', '42501', null, 'nginx may not pause');
select throws_ok('select ngx_pgq.resume()', '42501', null, 'nor resume');
reset role;
set role ngx_pgq_owner;
select lives_ok('select ngx_pgq.resume()', 'an operator may');
reset role;

select * from finish();
