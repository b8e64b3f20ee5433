-- ngx_pgq.acknowledged(): the position of the part that is furthest behind.

\ir helper.psql

select plan(8);

truncate ngx_pgq.subscription, ngx_pgq.progress;
select setval('ngx_pgq.removed', 0) \g /dev/null
insert into posts (id, at, message_id, data, topic) select i, now(), gen_random_uuid(), to_json(i), 't/' || i % 20 from generate_series(1, 100) as i;

select is(ngx_pgq.acknowledged(), 9223372036854775807, 'without a subscription all posts are acknowledged');
select ngx_pgq.subscribe('new'), ngx_pgq.subscribe('old', start => 50) \g /dev/null
select is(ngx_pgq.acknowledged(), 50::bigint, 'the subscription that is furthest behind counts');
select ngx_pgq.subscribe('parts', '{none}', 20, 3) \g /dev/null
select ngx_pgq.ack('old', 60, generation, release => true) from ngx_pgq.fetch('old', 1) \g /dev/null
update ngx_pgq.progress set upto = 70, turn = 1 where name = 'parts' and part <> 2;
select is(ngx_pgq.acknowledged(), 20::bigint, 'so does the part that is furthest behind');
update ngx_pgq.progress set upto = 80, turn = 5 where name = 'parts' and part = 2;
select is(ngx_pgq.acknowledged(), 60::bigint, 'when it has acknowledged posts, the next one does');
select setval('ngx_pgq.removed', 65) \g /dev/null
select is(ngx_pgq.acknowledged(), 65::bigint, 'posts that were deleted are not needed');
select is(ngx_pgq.unsubscribe('old'), true, 'the subscription is deleted');
select is(ngx_pgq.acknowledged(), 70::bigint, 'a subscription that was deleted does not count');

set role ngx_pgq_consumer;
select throws_ok('select ngx_pgq.acknowledged()', '42501', null, 'a consumer may not call it');
reset role;
truncate ngx_pgq.subscription, ngx_pgq.progress;
select * from finish();
