-- A mover that has just started does not truncate the batch table, even if all rows in it are old.

\ir helper.psql

select plan(2);

select pid as old from ngx_pgq.status where mover = 1 \gset
insert into ngx_pgq.batch (at, slot, batch_id) select '2001-01-01', slot, gen_random_uuid() from generate_series(0, 2) as slot;
select pg_terminate_backend(:old) as terminated \gset
select ok(pg_temp.wait_for(format('select pid <> %s from ngx_pgq.status where mover = 1', :old)), 'a terminated mover is started again');
insert into ngx_pgq.queue (data) values ('"after the first check of the batch table"');
select pg_temp.wait_for($$select exists (select from posts where data::text = '"after the first check of the batch table"')$$) as moved \gset
select is((select count(distinct slot) from ngx_pgq.batch where at = '2001-01-01'), 3::bigint, 'no leaf of the batch table is truncated');
delete from ngx_pgq.batch where at = '2001-01-01';

select * from finish();
