-- The view ngx_pgq.status shows slots and movers. Each mover has a name in pg_stat_activity.

\ir helper.psql

select plan(13);

select columns_are('ngx_pgq', 'status', array['database', 'slot', 'mover', 'pid', 'state', 'depth', 'bytes', 'oldest', 'rotations',
                                              'skipped', 'batches', 'messages', 'rate', 'dead_letters', 'errors', 'last_error', 'last_error_at',
                                              'last_move_at', 'started_at']);
select is((select count(*) from ngx_pgq.status where slot is not null), 4::bigint, 'the status has one row per slot');
select ok(pg_temp.wait_for($$select state = 'idle' from ngx_pgq.status where mover = 1$$), 'a mover with nothing to move is idle');
select is((select database from ngx_pgq.status where mover = 1), current_database(), 'the status shows the database of a mover');
select is((select application_name from pg_stat_activity join ngx_pgq.status using (pid) where mover = 1),
          'ngx_pgq mover 1 of ' || current_database(), 'application_name has the number and database of a mover');
select is((select count(*) from pg_stat_activity where backend_type = 'ngx_pgq launcher'), 1::bigint, 'there is one launcher');

select messages as before from ngx_pgq.status where mover = 1 \gset
insert into ngx_pgq.queue (data) select '1' from generate_series(1, 10);
select ok(pg_temp.wait_for(format('select messages = %s + 10 from ngx_pgq.status where mover = 1', :before)), 'the status counts the messages of a mover');
select cmp_ok((select last_move_at from ngx_pgq.status where mover = 1), '>', now() - interval '1 min', 'last_move_at is the time of the last batch');
select ok(pg_temp.wait_for($$select xact_start is null from pg_stat_activity join ngx_pgq.status using (pid) where mover = 1$$),
          'an idle mover has no open transaction');
select ok(pg_temp.wait_for(format($$select wait_event = %L from pg_stat_activity join ngx_pgq.status using (pid) where mover = 1$$,
                                  case when current_setting('server_version_num')::integer >= 170000 then 'NgxPgqMoverMain' else 'Extension' end)),
          'the wait event of an idle mover has a name if the server supports it');

select pid as old from ngx_pgq.status where mover = 1 \gset
select pg_terminate_backend(:old) as terminated \gset
select ok(pg_temp.wait_for(format('select pid <> %s from ngx_pgq.status where mover = 1', :old)), 'a terminated mover is started again');
insert into ngx_pgq.queue (data) values ('"after the restart"');
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"after the restart"')$$), 'a mover that was started again moves messages');

select pg_cancel_backend(pid) as cancelled from ngx_pgq.status where mover = 1 \gset
insert into ngx_pgq.queue (data) values ('"after a cancel"');
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"after a cancel"')$$), 'a cancelled mover continues to move messages');

select * from finish();
