-- What is committed to the queue becomes a post, in order, whole, once; what is not committed never does.

\ir helper.psql
create extension if not exists dblink;

select plan(16);

insert into ngx_pgq.queue (data) values ('{"plain":  1.0}');
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '{"plain":  1.0}')$$),
          'a plain INSERT is moved, to the byte');

begin;
insert into ngx_pgq.queue (data) values ('"undone"');
rollback;
begin;
insert into ngx_pgq.queue (data) values ('"first"');
savepoint here;
insert into ngx_pgq.queue (data) values ('"undone"');
rollback to here;
insert into ngx_pgq.queue (data) values ('"last"');
commit;
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"last"')$$), 'a transaction with a savepoint is moved');
select is((select count(*) from posts where data::text = '"first"'), 1::bigint, 'with what stands before it');
select is((select count(*) from posts where data::text = '"undone"'), 0::bigint, 'without what was rolled back');

insert into ngx_pgq.queue (data) select '"many"' from generate_series(1, 3500) as n;
select ok(pg_temp.wait_for($$select count(*) = 3500 from posts where data::text = '"many"'$$), 'more than a batch is moved');

insert into ngx_pgq.queue (data) select to_json('row ' || n) from generate_series(1, 900) as n;
select ok(pg_temp.wait_for($$select count(*) = 900 from posts where data::text like '"row %'$$), 'a batch is moved');
select ok((select array_agg(substr(data::text, 6, length(data::text) - 6)::integer order by id) from posts where data::text like '"row %')
          = (select array_agg(n) from generate_series(1, 900) as n), 'its ids are in the order in which it came in');

select gen_random_uuid() as message, '{"big":"' || repeat('é', 500000) || '"}' as big \gset
select is_empty(format('select * from ngx_pgq.enqueue(pg_temp.uuid7(), array[%L::uuid], array[%L])', :'message', :'big'), 'a large message');
select ok(pg_temp.wait_for(format('select exists (select from posts where message_id = %L)', :'message')), 'is moved');
select is((select md5(data::text) from posts where message_id = :'message'), md5(:'big'), 'unharmed');

-- whatever slot a row is in, and if nobody was told
insert into ngx_pgq.queue (slot, data) values (0, '"slot"'), (1, '"slot"'), (2, '"slot"'), (3, '"slot"');
select ok(pg_temp.wait_for($$select count(*) = 4 from posts where data::text = '"slot"'$$), 'rows of every slot are found');

-- rows somebody holds are left to him, and not forgotten
alter system set ngx_pgq.movers = 0;
select pg_reload_conf() as reloaded \gset
select ok(pg_temp.wait_for($$select not exists (select from ngx_pgq.status where pid is not null)$$), 'no movers, if so set');
insert into ngx_pgq.queue (data) values ('"held"'), ('"free"');
select dblink_connect('holder', pg_temp.here()) as connected \gset
select dblink_exec('holder', 'begin') as begun \gset
select held from dblink('holder', $$select data::text from ngx_pgq.queue where data::text = '"held"' for update$$) as row (held text) \gset
alter system reset ngx_pgq.movers;
select pg_reload_conf() as reloaded \gset
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"free"')$$), 'a row beside one that is locked is moved');
select is((select count(*) from posts where data::text = '"held"'), 0::bigint, 'the locked one is not');
select dblink_exec('holder', 'commit') as ended \gset
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"held"')$$), 'it is when the lock is gone');
select dblink_disconnect('holder') as disconnected \gset

select ok(pg_temp.wait_for($$select count(*) = 0 from ngx_pgq.queue$$), 'the queue is empty');

select * from finish();
