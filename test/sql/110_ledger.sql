-- The leaf of the ledger that is a period away is emptied, once a period and in its first half; the others are kept.

\ir helper.psql

select floor(extract(epoch from now()) / 600)::bigint as period, extract(epoch from now())::bigint % 600 < 290 as early \gset

select plan(2);

\if :early
-- a mover that starts looks at the ledger, whatever one before it has done
insert into ngx_pgq.batch (slot, batch_id) select slot, gen_random_uuid() from generate_series(0, 2) as slot;
select pid as old from ngx_pgq.status where mover = 1 \gset
select pg_terminate_backend(:old) as terminated \gset
-- by its size, as reading it would lock it, and a leaf in use is left alone
select ok(pg_temp.wait_for(format('select pg_relation_size(''ngx_pgq.batch_%s'') = 0', (:period + 1) % 3)), 'the old leaf is emptied');
select is((select count(distinct slot) from ngx_pgq.batch), 2::bigint, 'the others are not');
\else
select skip('the second half of a period', 2);
\endif

select * from finish();
