-- A committed message becomes one post, unchanged and in order. A message that is rolled back never does.

\ir helper.psql
create extension if not exists dblink;

select plan(16);

insert into ngx_pgq.queue (data) values ('{"plain":  1.0}');
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '{"plain":  1.0}')$$),
          'a message of a plain INSERT becomes a post, byte for byte');

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
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"last"')$$), 'the last message of a transaction with a savepoint becomes a post');
select is((select count(*) from posts where data::text = '"first"'), 1::bigint, 'the message before the savepoint becomes a post');
select is((select count(*) from posts where data::text = '"undone"'), 0::bigint, 'messages that were rolled back become no posts');

insert into ngx_pgq.queue (data) select '"many"' from generate_series(1, 3500) as n;
select ok(pg_temp.wait_for($$select count(*) = 3500 from posts where data::text = '"many"'$$), '3500 messages, more than fit into a batch, are moved');

insert into ngx_pgq.queue (data) select to_json('row ' || n) from generate_series(1, 900) as n;
select ok(pg_temp.wait_for($$select count(*) = 900 from posts where data::text like '"row %'$$), '900 messages of one INSERT are moved');
select ok((select array_agg(substr(data::text, 6, length(data::text) - 6)::integer order by id) from posts where data::text like '"row %')
          = (select array_agg(n) from generate_series(1, 900) as n), 'ids are in the order in which the messages were inserted');

select gen_random_uuid() as message, '{"big":"' || repeat('é', 500000) || '"}' as big \gset
select is_empty(format('select * from ngx_pgq.enqueue(pg_temp.uuid7(), array[%L::uuid], array[%L])', :'message', :'big'), 'a message of one megabyte is accepted');
select ok(pg_temp.wait_for(format('select exists (select from posts where message_id = %L)', :'message')), 'a message of one megabyte is moved');
select is((select md5(data::text) from posts where message_id = :'message'), md5(:'big'), 'a message of one megabyte is unchanged');

-- rows in slots that are not current
insert into ngx_pgq.queue (slot, data) values (0, '"slot"'), (1, '"slot"'), (2, '"slot"'), (3, '"slot"');
select ok(pg_temp.wait_for($$select count(*) = 4 from posts where data::text = '"slot"'$$), 'rows in any slot are moved');

-- rows that another session has locked
alter system set ngx_pgq.movers = 0;
select pg_reload_conf() as reloaded \gset
select ok(pg_temp.wait_for($$select not exists (select from ngx_pgq.status where pid is not null)$$), 'movers stop when ngx_pgq.movers is 0');
insert into ngx_pgq.queue (data) values ('"held"'), ('"free"');
select dblink_connect('holder', pg_temp.here()) as connected \gset
select dblink_exec('holder', 'begin') as begun \gset
select held from dblink('holder', $$select data::text from ngx_pgq.queue where data::text = '"held"' for update$$) as row (held text) \gset
alter system reset ngx_pgq.movers;
select pg_reload_conf() as reloaded \gset
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"free"')$$), 'the row after a locked row is moved');
select is((select count(*) from posts where data::text = '"held"'), 0::bigint, 'a locked row is not moved');
select dblink_exec('holder', 'commit') as ended \gset
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"held"')$$), 'a locked row is moved when the lock is released');
select dblink_disconnect('holder') as disconnected \gset

select ok(pg_temp.wait_for($$select count(*) = 0 from ngx_pgq.queue$$), 'the queue is empty when all messages are moved');

select * from finish();
