-- One view tells what the movers do; each is a process with a name.

\ir helper.psql

select plan(13);

select columns_are('ngx_pgq', 'status', array['database', 'slot', 'mover', 'pid', 'state', 'depth', 'bytes', 'oldest', 'rotations',
                                              'skipped', 'batches', 'messages', 'rate', 'dead_letters', 'errors', 'last_error', 'last_error_at',
                                              'last_move_at', 'started_at']);
select is((select count(*) from ngx_pgq.status where slot is not null), 4::bigint, 'a row a slot');
select ok(pg_temp.wait_for($$select state = 'idle' from ngx_pgq.status where mover = 1$$), 'a mover with nothing to do is idle');
select is((select database from ngx_pgq.status where mover = 1), current_database(), 'in this database');
select is((select application_name from pg_stat_activity join ngx_pgq.status using (pid) where mover = 1),
          'ngx_pgq mover 1 of ' || current_database(), 'and says so in pg_stat_activity');
select is((select count(*) from pg_stat_activity where backend_type = 'ngx_pgq launcher'), 1::bigint, 'there is one launcher');

select messages as before from ngx_pgq.status where mover = 1 \gset
insert into ngx_pgq.queue (data) select '1' from generate_series(1, 10);
select ok(pg_temp.wait_for(format('select messages = %s + 10 from ngx_pgq.status where mover = 1', :before)), 'it counts messages');
select cmp_ok((select last_move_at from ngx_pgq.status where mover = 1), '>', now() - interval '1 min', 'and knows when it moved last');
select ok(pg_temp.wait_for($$select xact_start is null from pg_stat_activity join ngx_pgq.status using (pid) where mover = 1$$),
          'no transaction is open while it is idle');
select ok(pg_temp.wait_for(format($$select wait_event = %L from pg_stat_activity join ngx_pgq.status using (pid) where mover = 1$$,
                                  case when current_setting('server_version_num')::integer >= 170000 then 'NgxPgqMoverMain' else 'Extension' end)),
          'and what it waits for has a name, where the server has names for that');

select pid as old from ngx_pgq.status where mover = 1 \gset
select pg_terminate_backend(:old) as terminated \gset
select ok(pg_temp.wait_for(format('select pid <> %s from ngx_pgq.status where mover = 1', :old)), 'terminated, it starts again');
insert into ngx_pgq.queue (data) values ('"after the end"');
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"after the end"')$$), 'and moves');

select pg_cancel_backend(pid) as cancelled from ngx_pgq.status where mover = 1 \gset
insert into ngx_pgq.queue (data) values ('"after a cancel"');
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"after a cancel"')$$), 'a cancel does not end it');

select * from finish();
